"""Sentences that say something: neither headers nor numbers and marks alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medvl.text.headers import is_header
from medvl.text.sentences import split_sentences
from medvl.utils.checks import check_text, error_message

_WORD = re.compile(r"[^\W\d_]{2,}")


def count_words(sentence: str) -> int:
    """Number of words of two letters or more in a sentence; 0 for a header, as "FINDINGS:".

    Example:
        >>> count_words("No effusion."), count_words("FINDINGS:"), count_words("1.")
        (2, 0, 0)
    """
    return 0 if is_header(sentence) else len(_WORD.findall(sentence))


def content_sentences(report: str | Sequence[str], min_words: int = 1) -> list[str]:
    """The sentences of a report that have words, without headers ("FINDINGS:"), numbers ("1.") and marks ("___").

    A word has two letters or more; a header has none.

    Args:
        report: a text, split by :func:`split_sentences`, or the list of its sentences, of which blank ones are left out.
        min_words: minimum number of words, at least 1. "No effusion." has two.

    Returns:
        The sentences with at least ``min_words`` words. Where none has as many, those with the most words: all sentences
        where none has a word. An empty list for a report without text.

    Raises:
        TypeError: If ``report`` is neither a string nor a sequence of strings.

    Example:
        >>> content_sentences("FINDINGS: No effusion. Heart is normal. ___")
        ['No effusion.', 'Heart is normal.']
        >>> content_sentences("FINDINGS: No effusion. Heart is normal. ___", min_words=3)
        ['Heart is normal.']
    """
    if isinstance(report, str):
        sentences = [report[start:end] for start, end in split_sentences(report)]
    elif not isinstance(report, Sequence) or isinstance(report, bytes):
        raise TypeError(error_message("report", "be a string or a list of strings", type(report).__name__))
    else:
        for sentence in report:
            check_text(sentence, "each sentence of report")
        sentences = [sentence for sentence in report if sentence.strip()]
    counts = [count_words(sentence) for sentence in sentences]
    threshold = min(min_words, max(counts, default=0))
    return [sentence for sentence, count in zip(sentences, counts, strict=True) if count >= threshold]
