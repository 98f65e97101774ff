"""From strings to what a text encoder takes, and from the embeddings of sentences to those of reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from medvl.networks.encoders.hugging_face_files import load_tokenizer
from medvl.text import content_sentences, tokenize_texts
from medvl.utils.checks import check_integer, check_option
from medvl.utils.disk import name_full_disk

REPORT_ENCODINGS = ("whole", "sentences")


class TextProcessor:
    """The tokenizer of a dual encoder, how much of a text it reads, and the way in which it encodes reports.

    Args:
        tokenizer: the Hugging Face tokenizer of the text encoder; None for a model that only gets token ids.
        report_encoding: how a report becomes one embedding: "whole", as one text; or "sentences", as the mean of the unit
            vectors of its sentences, scaled to unit length, for a model that was trained on sentences.
        max_length: maximum number of tokens of a text, special tokens included, as in training; the rest is cut off. None for
            as many as the text encoder has positions.
        pad_to: number of tokens to which every text is padded with tokens that the attention mask keeps, as SigLIP's text
            encoder sees them (64); None to pad a batch to its longest text, outside of the mask.

    Raises:
        ValueError: If ``report_encoding`` is unknown, ``max_length`` is below 3, or ``pad_to`` is not above 0.

    Example:
        >>> from medvl.transforms import train_tokenizer
        >>> processor = TextProcessor(train_tokenizer(["no effusion . heart is normal ."], min_patients=1))
        >>> processor.tokenize(["No effusion. Heart is normal.", "No effusion."], max_length=8)["sentence_ids"].tolist()
        [[-1, 0, 0, 0, 1, 1, 1, -1], [-1, 0, 0, 0, -1, -1, -1, -1]]
    """

    def __init__(
        self,
        tokenizer: Any = None,
        report_encoding: str = "whole",
        max_length: int | None = None,
        pad_to: int | None = None,
    ) -> None:
        check_option(report_encoding, "report_encoding", REPORT_ENCODINGS)
        if max_length is not None:
            check_integer(max_length, "max_length", minimum=3)
        if pad_to is not None:
            check_integer(pad_to, "pad_to", minimum=1)
        self.tokenizer, self.report_encoding, self.max_length = tokenizer, report_encoding, max_length
        self.pad_to = pad_to

    def tokenize(self, texts: Sequence[str], max_length: int) -> dict[str, torch.Tensor]:
        """Tokenize M texts, truncated to ``max_length`` tokens and padded to the longest of them.

        Returns:
            ``input_ids``, ``attention_mask`` and, with a fast tokenizer, ``sentence_ids``, each (M, L); see
            :func:`medvl.text.tokenize_texts`.

        Raises:
            ValueError: If there is no tokenizer, or no text.
        """
        if self.tokenizer is None:
            raise ValueError("The model has no tokenizer for strings: pass token ids, or build it with a tokenizer.")
        if self.pad_to is not None:
            max_length = min(max_length, self.pad_to)
        values = tokenize_texts(self.tokenizer, texts, max_length)
        tokens = {name: torch.from_numpy(value) for name, value in values.items()}
        return tokens if self.pad_to is None else self._pad(tokens, max_length)

    def _pad(self, tokens: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
        """The tokens with padding that the attention mask keeps."""
        is_text = tokens["attention_mask"].bool()
        fillers = {"input_ids": self.tokenizer.pad_token_id, "sentence_ids": -1, "attention_mask": 1}
        padded = {}
        for name, value in tokens.items():
            filled = value.where(is_text, fillers[name])
            padded[name] = F.pad(filled, (0, length - value.shape[1]), value=fillers[name])
        return padded

    def encode_reports(self, reports: Sequence[str], encode_text: Callable[[list[str]], torch.Tensor]) -> torch.Tensor:
        """Embed reports according to ``report_encoding``.

        Headers and sentences without a word do not count (:func:`medvl.text.content_sentences`). A sentence that several
        reports share is encoded once.

        Args:
            reports: M reports.
            encode_text: from a list of n texts to their unit vectors (n, D).

        Returns:
            Unit vectors (M, D).
        """
        if self.report_encoding == "whole":
            return encode_text(list(reports))
        sentences = [content_sentences(report) or [report] for report in reports]
        row_of = {sentence: 0 for report in sentences for sentence in report}
        row_of = {sentence: row for row, sentence in enumerate(row_of)}
        embeds = encode_text(list(row_of))
        rows = [row_of[sentence] for report in sentences for sentence in report]
        owners = [number for number, report in enumerate(sentences) for _ in report]
        index = torch.tensor([rows, owners], dtype=torch.long, device=embeds.device)
        sums = embeds.new_zeros(len(reports), embeds.shape[1]).index_add(0, index[1], embeds[index[0]])
        return F.normalize(sums, dim=-1)

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this processor, without the tokenizer, as plain values for JSON."""
        config = {"report_encoding": self.report_encoding, "max_length": self.max_length}
        return config if self.pad_to is None else {**config, "pad_to": self.pad_to}

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write the tokenizer's files, if there is a tokenizer; return their names."""
        if self.tokenizer is None:
            return []
        with name_full_disk(folder):
            paths = [Path(path) for path in self.tokenizer.save_pretrained(folder)]
        return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> TextProcessor:
        """The processor with the tokenizer that was saved in a folder, if there is one.

        Args:
            folder: the folder of a saved model.
            **options: the other arguments, as :meth:`to_config` gives them.
        """
        has_tokenizer = (Path(folder) / "tokenizer_config.json").is_file()
        return cls(load_tokenizer(folder) if has_tokenizer else None, **options)
