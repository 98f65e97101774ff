"""Reading of a report, sentence by sentence: which sentences count, and what each says.

1. Sections without observations, such as the indication, and sentences in another language are skipped.
2. The words of a sentence are matched by :class:`medvl.text.phrases.PhraseMatcher`.
3. :func:`medvl.text.assertion.classify_assertions` says what the phrases assert. The scope of a sentence such as "No evidence
   of:" extends over the list behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medvl.text.assertion import ABSENT, PRESENT, SentenceReading, classify_assertions
from medvl.text.headers import Headers
from medvl.text.phrases import find_words
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span
from medvl.text.vocabulary import Vocabulary

# These sections hold the question, the past and the technique, not what this examination shows.
SKIPPED_SECTIONS = frozenset({"indication", "history", "comparison", "technique", "examination"})
_LIST_ITEM = re.compile(r"[-*+\u2022\u2023\u25aa\u00b7\u2013\u2014]\s|\(?\d{1,2}[.)]\s?|[a-z][.)]\s")
# Words of the question and of the patient's past, which a section without observations may go on with.
_QUESTION = re.compile(
    r"""\? | \b(?: years? | yo | y/o | known | history | hx | h/o | evaluat\w* | eval | assess\w* | rule[ ]out | r/o | please
    | query | status[ ]post | s/p | patient | pt | he | she )\b""",
    re.VERBOSE,
)


_SECTION, _LANGUAGE = "section", "language"
# How many sentences of at most how many characters a vocabulary remembers.
_MAX_REMEMBERED, _MAX_REMEMBERED_LENGTH = 1 << 15, 200


def read_sentences(
    text: str,
    lower: str,
    vocabulary: Vocabulary,
    spans: list[Span] | None = None,
    list_scopes: dict[Span, str] | None = None,
) -> Iterator[tuple[Span, SentenceReading | str]]:
    """Read the sentences of a report, except for its headers.

    A section without observations ends at the next header, or at a blank line after its text. Where no header of findings
    follows, it also ends behind its first sentence, at one that states a finding: "COMPARISON: None. The heart is enlarged."
    The scope of a sentence such as "No evidence of:" extends over the list behind it.

    ``list_scopes`` is filled with the sentences of such a list and their assertion, where it is given.

    Yields:
        The span of a sentence and what it says; or why it is skipped, ``"section"`` or ``"language"``.
    """
    spans = split_sentences(text, vocabulary.conventions) if spans is None else spans
    headers, readings = vocabulary.conventions.headers, vocabulary.readings
    skipping, skipped_end, last_findings = False, -1, None
    list_scope, list_end = None, -1
    for index, span in enumerate(spans):
        start, end = span
        if text[end - 1] not in ".!?" and (name := headers.name(text[start:end])) is not None:
            skipping, skipped_end, list_scope = name in SKIPPED_SECTIONS, -1, None
            continue
        if skipping and skipped_end < 0:
            skipped_end = end
            yield span, _SECTION
            continue
        if skipping and text.count("\n", skipped_end, start) < 2:
            skipped_end = end
            if last_findings is None:
                last_findings = _last_header(text, spans, "findings", headers)
            if index < last_findings or _QUESTION.search(lower, start, end):
                yield span, _SECTION
                continue
        if list_scope is not None and not (
            text.count("\n", list_end, start) == 1 and (_LIST_ITEM.match(text, start) or text[end - 1] not in ".!?")
        ):
            list_scope = None
        if list_scope is not None and list_scopes is not None:
            list_scopes[span] = list_scope
        known = readings.get(lower[start:end]) if list_scope is None else None
        reading = _read_sentence(lower[start:end], vocabulary, list_scope) if known is None else known
        if isinstance(reading, str):
            yield span, reading
            continue
        if skipping:
            if all(found.assertion not in (PRESENT, ABSENT) for found in reading.findings):
                yield span, _SECTION
                continue
            skipping = False
        list_scope, list_end = reading.list_scope or list_scope, end
        yield span, reading


def _read_sentence(lower: str, vocabulary: Vocabulary, list_scope: str | None) -> SentenceReading | str:
    """What a sentence in lower case says, or ``"language"``; remembered, since half of all sentences have been read before."""
    readings = vocabulary.readings
    words = find_words(lower)
    reading: SentenceReading | str = _LANGUAGE
    if not vocabulary.is_other_language(words):
        matcher = vocabulary.matcher
        normalized = matcher.normalize_words(words)
        reading = classify_assertions(matcher.match(normalized), normalized, vocabulary, list_scope)
    if list_scope is None and len(lower) <= _MAX_REMEMBERED_LENGTH:
        if len(readings) >= _MAX_REMEMBERED:
            readings.clear()
        readings[lower] = reading
    return reading


def _last_header(text: str, spans: list[Span], name: str, headers: Headers) -> int:
    """The index of the last sentence that is the header of a section, or -1."""
    for index in range(len(spans) - 1, -1, -1):
        start, end = spans[index]
        if text[end - 1] not in ".!?" and headers.name(text[start:end]) == name:
            return index
    return -1
