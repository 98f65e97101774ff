"""Augmentation of reports that keeps the state of every finding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvl.text.findings import find_findings, label_report
from medvl.text.headers import is_header
from medvl.text.prompts import RandomSource
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span
from medvl.text.vocabulary import Vocabulary, load_vocabulary
from medvl.utils.checks import check_fraction, check_text

_LIST_ITEM = re.compile(r"\(?\d{1,2}[.)]\s|[-*\u2022]\s")
# A sentence that refers to the one before it is not moved, and the one before it is not dropped.
_REFERS_BACK = re.compile(
    r"(?:this|these|those|it|they|that|which|there is again|however|otherwise|also)\b", re.IGNORECASE
)


def augment_text(
    text: str,
    rng: RandomSource,
    vocabulary: str | Path | Vocabulary = "chexpert14",
    synonym_prob: float = 0.3,
    shuffle_prob: float = 0.5,
    drop_prob: float = 0.1,
) -> str:
    """Replace synonyms, shuffle and drop sentences of a report without changing its states.

    Mentions of a finding are replaced by synonyms, sentences within a section are shuffled, and sentences without a state are
    dropped. Cues of negation and uncertainty move with their sentence or not at all. A step is kept only if it changes no
    state of :func:`medvl.text.label_report`.

    Args:
        text: the report.
        rng: source of randomness with a ``random()`` method, such as MONAI's ``self.R``.
        vocabulary: name or path for :func:`medvl.text.load_vocabulary`, or a loaded vocabulary.
        synonym_prob: probability that a mention is replaced, in [0, 1].
        shuffle_prob: probability that the sentences are shuffled, in [0, 1].
        drop_prob: probability that a sentence without a state is dropped, in [0, 1].

    Returns:
        The augmented text, with the same states.

    Raises:
        TypeError: If ``text`` is not a string.
        ValueError: If a probability is outside [0, 1].

    Example:
        >>> import random
        >>> augment_text("No pleural effusion. Trachea is midline. Heart is normal.", random.Random(12))
        'Heart is normal. Trachea is midline. No effusion.'
    """
    check_text(text)
    check_fraction(synonym_prob, "synonym_prob")
    check_fraction(shuffle_prob, "shuffle_prob")
    check_fraction(drop_prob, "drop_prob")
    vocabulary = load_vocabulary(vocabulary)
    states = label_report(text, vocabulary)
    text = _if_same_states(_drop_sentences(text, rng, vocabulary, drop_prob), text, states, vocabulary)
    text = _if_same_states(_replace_synonyms(text, rng, vocabulary, synonym_prob), text, states, vocabulary)
    if rng.random() < shuffle_prob:
        text = _if_same_states(_shuffle_sentences(text, rng), text, states, vocabulary)
    return text


def _if_same_states(new: str, old: str, states: np.ndarray, vocabulary: Vocabulary) -> str:
    """``new`` if it has these states, else ``old``."""
    if new == old:
        return old
    return new if np.array_equal(label_report(new, vocabulary), states, equal_nan=True) else old


def _replace_synonyms(text: str, rng: RandomSource, vocabulary: Vocabulary, prob: float) -> str:
    """Replace mentions by synonyms, each only if its own sentence keeps its states."""
    parts, done = [], 0
    for mention in find_findings(text, vocabulary):
        start, end = mention.span
        others = vocabulary.synonyms_of(text[start:end])
        if start < done or not others or rng.random() >= prob:
            continue
        word = others[int(rng.random() * len(others))]
        if text[start:end].isupper():
            word = word.upper()
        elif text[start].isupper():
            word = word[0].upper() + word[1:]
        low, high = mention.sentence
        sentence = text[low:start] + word + text[end:high]
        if np.array_equal(label_report(sentence, vocabulary), label_report(text[low:high], vocabulary), equal_nan=True):
            parts += [text[done:start], word]
            done = end
    return "".join(parts) + text[done:]


def _drop_sentences(text: str, rng: RandomSource, vocabulary: Vocabulary, prob: float) -> str:
    """Drop sentences without a state, except for headers, list items and sentences that the next one refers to."""
    spans = split_sentences(text)
    parts, done = [], 0
    for index, (start, end) in enumerate(spans):
        sentence = text[start:end]
        following = text[spans[index + 1].start : spans[index + 1].end] if index + 1 < len(spans) else ""
        if rng.random() >= prob or is_header(sentence) or _LIST_ITEM.match(sentence) or _REFERS_BACK.match(following):
            continue
        if not np.isnan(label_report(sentence, vocabulary)).all():
            continue
        parts.append(text[done:start])
        done = spans[index + 1].start if index + 1 < len(spans) else end
    return ("".join(parts) + text[done:]) if done else text


def _shuffle_sentences(text: str, rng: RandomSource) -> str:
    """Shuffle whole sentences between headers; the white space between them stays in place."""
    spans = split_sentences(text)
    parts, done = [], 0
    run: list[Span] = []
    for span in [*spans, None]:
        if span is not None and _is_movable(text, span):
            run.append(span)
            continue
        for place, moved in zip(run, _permuted(run, rng), strict=True):
            parts += [text[done : place.start], text[moved.start : moved.end]]
            done = place.end
        run = []
    return "".join(parts) + text[done:]


def _is_movable(text: str, span: Span) -> bool:
    """Whether a sentence is complete and independent of its place."""
    sentence = text[span.start : span.end]
    whole = sentence[-1] in ".!" and not is_header(sentence)
    return whole and not _LIST_ITEM.match(sentence) and not _REFERS_BACK.match(sentence)


def _permuted(items: Sequence[Span], rng: RandomSource) -> list[Span]:
    """A Fisher-Yates shuffle with a source of numbers in [0, 1)."""
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items
