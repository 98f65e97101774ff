"""Tokenization with a sentence id for each token."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Transform
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from medvl.text import tokenize_texts
from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import check_integer, error_message

REMEMBERED_TEXTS = 20_000
"""The number of texts whose tokens a transform keeps: prompts and sentences of reports repeat."""


class TokenizeText(Transform):
    """Tokenize a text into token ids, an attention mask, and the sentence id of each token.

    With the sentence ids, one pass over a report gives the embedding of every sentence. Tokens are matched to sentences by
    their character offsets, so that the whole text is tokenized at once, as the text model expects.

    Args:
        tokenizer: a fast Hugging Face tokenizer (one with character offsets), or a local folder with one, which is read at
            the first call.
        max_length: maximum length, special tokens included, at least 3; longer texts are truncated.
        padding: pad to ``max_length``. Otherwise batches are padded when they are collated.

    Raises:
        ValueError: If ``max_length`` is below 3, the tokenizer is not a fast one, or ``padding`` is True and the tokenizer
            has no padding token.
        OSError: At the first call, if the folder holds no tokenizer.

    Example:
        >>> from medvl.transforms import train_tokenizer
        >>> tokenizer = train_tokenizer(["no effusion . heart is normal ."], min_patients=1)
        >>> out = TokenizeText(tokenizer, max_length=8)("No effusion. Heart is normal.")
        >>> tokenizer.convert_ids_to_tokens(out["input_ids"].tolist())
        ['[CLS]', 'no', 'effusion', '.', 'heart', 'is', 'normal', '[SEP]']
        >>> out["sentence_ids"].tolist()
        [-1, 0, 0, 0, 1, 1, 1, -1]
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | str, max_length: int = 256, padding: bool = False) -> None:
        check_integer(max_length, "max_length", minimum=3)
        self.max_length, self.padding = max_length, padding
        self.source = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else str(tokenizer)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._remembered: dict[str, dict[str, NDArray[np.int64]]] = {}
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            self._tokenizer = self._checked(tokenizer)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; its folder is read at the first access."""
        if self._tokenizer is None:
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, local_files_only=True, trust_remote_code=False)
            except Exception as error:  # of many kinds, where a file is damaged
                raise OSError(f"the folder {self.source!r} holds no tokenizer, or a damaged one.") from error
            self._tokenizer = self._checked(tokenizer)
        return self._tokenizer

    def _checked(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if not tokenizer.is_fast:
            raise ValueError(
                error_message("tokenizer", "be a fast tokenizer (with character offsets)", type(tokenizer).__name__)
            )
        if self.padding and tokenizer.pad_token_id is None:
            raise ValueError(
                error_message("tokenizer", "have a padding token where padding is True", type(tokenizer).__name__)
            )
        return tokenizer

    def __call__(self, text: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenize one text.

        Args:
            text: a text, split into sentences by :func:`medvl.text.split_sentences`, or the list of its sentences.

        Returns:
            ``input_ids`` (L,), ``attention_mask`` (L,) and ``sentence_ids`` (L,), int64. A sentence id is -1 for
            special and padding tokens.

        Raises:
            TypeError: If ``text`` is neither a string nor a sequence of strings.
        """
        tokens = self._remembered.get(text) if isinstance(text, str) else None
        if tokens is None:
            padding = "max_length" if self.padding else False
            batch = tokenize_texts(self.tokenizer, [text], self.max_length, padding)
            tokens = {name: values[0] for name, values in batch.items()}
            if isinstance(text, str):
                if len(self._remembered) >= REMEMBERED_TEXTS:
                    self._remembered.clear()
                self._remembered[text] = tokens
        return {name: torch.tensor(values) for name, values in tokens.items()}

    def __getstate__(self) -> dict[str, Any]:
        """What is copied to other processes, and hashed: all but the remembered texts."""
        return {**self.__dict__, "_remembered": {}}


class TokenizeTextd(StudyMapTransform):
    """Dictionary form of :class:`TokenizeText`: writes ``input_ids``, ``attention_mask`` and ``sentence_ids``.

    Args:
        keys: the key of the text, or of the list of its sentences.
        tokenizer: see :class:`TokenizeText`.
        max_length: see :class:`TokenizeText`.
        padding: see :class:`TokenizeText`.
        prefix: prefix of the three output keys, for studies with several texts.
        allow_missing_keys: do nothing for a study without the text.

    Raises:
        ValueError: If ``keys`` names more than one key; see also :class:`TokenizeText`.

    Example:
        >>> from medvl.transforms import train_tokenizer
        >>> tokenizer = train_tokenizer(["no effusion"], min_patients=1)
        >>> sorted(TokenizeTextd(tokenizer=tokenizer)({"text": "No effusion."}))
        ['attention_mask', 'input_ids', 'sentence_ids', 'text']
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "text",
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        max_length: int = 256,
        padding: bool = False,
        prefix: str = "",
        allow_missing_keys: bool = False,
    ) -> None:
        if tokenizer is None:
            raise ValueError(error_message("tokenizer", "be a Hugging Face tokenizer or the folder of one", None))
        super().__init__(keys, TokenizeText(tokenizer, max_length, padding), allow_missing_keys)
        self.prefix = prefix

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Tokenize one text."""
        return {self.prefix + name: value for name, value in self.transform(data[key]).items()}


TokenizeTextD = TokenizeTextDict = TokenizeTextd
