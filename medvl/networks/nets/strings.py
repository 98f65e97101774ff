"""Strings on their way into a text tower: sentences worth encoding, and tokens that know their sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medvl.text import split_sentences
from medvl.text.headers import is_header

_WORD = re.compile(r"[^\W\d_]{2,}")


def telling_sentences(text: str) -> list[str]:
    """The sentences of a report that hold a word, without headers; all of its sentences where none does.

    Example:
        >>> telling_sentences("FINDINGS: No effusion. Heart is normal. ___")
        ['No effusion.', 'Heart is normal.']
    """
    sentences = [text[start:end] for start, end in split_sentences(text)]
    telling = [sentence for sentence in sentences if _WORD.search(sentence) and not is_header(sentence)]
    return telling or sentences


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``sentence_ids`` (M, L) of texts, cut at ``max_length`` and padded.

    A token's sentence is the one that its last character lies in; special and padding tokens have -1. Without a fast
    tokenizer, which knows the characters behind each token, there are no ``sentence_ids``.

    Raises:
        ValueError: where there is no text.
    """
    if not texts:
        raise ValueError("texts must hold at least one string, received none.")
    batch = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=max_length,
        return_special_tokens_mask=True,
        return_offsets_mapping=tokenizer.is_fast,
        return_tensors="np",
    )
    tokens = {name: torch.from_numpy(batch[name].astype(np.int64)) for name in ("input_ids", "attention_mask")}
    if tokenizer.is_fast:
        last = np.maximum(batch["offset_mapping"][..., 1] - 1, batch["offset_mapping"][..., 0])
        starts = [np.array([span.start for span in split_sentences(text)] or [0]) for text in texts]
        places = [np.searchsorted(start, row, side="right") - 1 for start, row in zip(starts, last, strict=True)]
        sentence = np.maximum(np.stack(places), 0)
        sentence[(batch["special_tokens_mask"] == 1) | (batch["attention_mask"] == 0)] = -1
        tokens["sentence_ids"] = torch.from_numpy(sentence.astype(np.int64))
    return tokens
