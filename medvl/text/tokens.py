"""Token ids of texts with the sentence that each token comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.text.sentences import split_sentences
from medvl.utils.checks import check_text, error_message


def tokenize_texts(
    tokenizer: Any, texts: Sequence[str | Sequence[str]], max_length: int, padding: bool | str = True
) -> dict[str, NDArray[np.int64]]:
    """Tokenize texts and find the sentence of each token.

    Texts are padded on the right, whatever the tokenizer's own side: positions are counted from the left.

    The sentence of a token is the one that contains its last character: byte-level tokenizers let a token begin with the
    space before its word.

    Args:
        tokenizer: a Hugging Face tokenizer. A slow one does not know the characters of its tokens, so that the result has no
            ``sentence_ids``.
        texts: M texts, at least one; each is a string, split by :func:`split_sentences`, or the list of its sentences.
        max_length: maximum number of tokens of a text, special tokens included; the rest is cut off.
        padding: True pads to the longest of the texts, "max_length" to ``max_length``; False does not pad, for one text.

    Returns:
        ``input_ids``, ``attention_mask`` and ``sentence_ids``, each (M, L). A sentence id is -1 for special and padding
        tokens.

    Raises:
        TypeError: If a text is neither a string nor a sequence of strings.
        ValueError: If there is no text.
    """
    if not texts:
        raise ValueError(error_message("texts", "hold at least one string", "none"))
    whole, starts = zip(*(_sentence_starts(text) for text in texts), strict=True)
    batch = tokenizer(
        list(whole),
        padding=padding,
        padding_side="right",
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=tokenizer.is_fast,
        return_tensors="np",
    )
    tokens = {name: np.asarray(batch[name], dtype=np.int64) for name in ("input_ids", "attention_mask")}
    if tokenizer.is_fast:
        offsets = np.asarray(batch["offset_mapping"], dtype=np.int64).reshape(*tokens["input_ids"].shape, 2)
        last = np.maximum(offsets[..., 1] - 1, offsets[..., 0])  # (M, L)
        rows = [np.searchsorted(start, row, side="right") - 1 for start, row in zip(starts, last, strict=True)]
        sentence_ids = np.maximum(np.stack(rows), 0).astype(np.int64)
        sentence_ids[(np.asarray(batch["special_tokens_mask"]) == 1) | (tokens["attention_mask"] == 0)] = -1
        tokens["sentence_ids"] = sentence_ids
    return tokens


def _sentence_starts(text: str | Sequence[str]) -> tuple[str, NDArray[np.int64]]:
    """The text and the offsets (S,) at which its sentences begin; sentences of a list are joined by a space."""
    if isinstance(text, Sequence) and not isinstance(text, str | bytes):
        for sentence in text:
            check_text(sentence, "each sentence of text")
        lengths = [len(sentence) + 1 for sentence in text]
        return " ".join(text), np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    check_text(text)
    spans = split_sentences(text)
    return text, np.array([span.start for span in spans] or [0], dtype=np.int64)
