"""Reading of a report, sentence by sentence: which sentences count, and what each says.

1. Sections without observations, such as the indication, and sentences in another language are skipped.
2. The words of a sentence are matched by :class:`medvl.text.phrases.PhraseMatcher`.
3. :func:`medvl.text.assertion.classify_assertions` says what the phrases assert. The scope of a sentence such as "No evidence
   of:" extends over the list behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from medvl.text.assertion import DECIDED, AssertedFinding, SentenceReading, assert_findings, classify_assertions
from medvl.text.assertion.clauses import NAMING_KINDS
from medvl.text.headers import Headers
from medvl.text.phrase_kinds import ALTERNATIVE, COLON, COMMA, LINKER, NORMAL_STATEMENT, STRUCTURE, kinds_in
from medvl.text.phrases import find_words
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span
from medvl.text.vocabulary import Vocabulary

# These sections hold the question, the past and the technique, not what this examination shows.
SKIPPED_SECTIONS = frozenset({"indication", "history", "comparison", "technique", "examination"})
_LIST_ITEM = re.compile(r"[-*+\u2022\u2023\u25aa\u00b7\u2013\u2014]\s|\(?\d{1,2}[.)]\s?|[a-z][.)]\s")
# The heading of a list that a sentence may hold with the first item: "No evidence of:", "Absent:".
_LIST_HEADING = re.compile(r":\s*(?:\n|\Z)")
# Words of the question and of the patient's past, which a section without observations may go on with.
_QUESTION = re.compile(
    r"""\? | \b(?: years? | yo | y/o | known | history | hx | h/o | evaluat\w* | eval | assess\w* | rule[ ]out | r/o | please
    | query | status[ ]post | s/p | patient | pt | he | she )\b""",
    re.VERBOSE,
)

# What a heading may consist of: "Lungs and pleura:", "Pneumothorax:".
_HEADING_KINDS = (NAMING_KINDS & ~NORMAL_STATEMENT) | STRUCTURE | COLON | COMMA | LINKER | ALTERNATIVE

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
    The scope of a sentence such as "No evidence of:" extends over the list behind it. A heading without a text or a list
    behind it, such as "Pneumothorax:" in a form that was left empty, is passed over like a header.

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
        if skipping:
            if skipped_end < 0:
                skipped_end = end
                yield span, _SECTION
                continue
            if text.count("\n", skipped_end, start) < 2:
                skipped_end = end
                if last_findings is None:
                    last_findings = _last_header(text, spans, "findings", headers)
                if index < last_findings or _QUESTION.search(lower, start, end):
                    yield span, _SECTION
                    continue
        if list_scope is not None:
            if text.count("\n", list_end, start) != 1 or not (
                _LIST_ITEM.match(text, start) or not (text[end - 1] in ".!?" or ":" in text[start:end])
            ):
                list_scope = None
            elif list_scopes is not None:
                list_scopes[span] = list_scope
        sentence = lower[start:end]
        reading = readings.get(sentence) if list_scope is None else None
        if reading is None:
            reading = _read_sentence(sentence, vocabulary, list_scope)
        if isinstance(reading, str):
            yield span, reading
            continue
        if text[end - 1] == ":" and _is_empty_heading(text, lower, spans, index, vocabulary):
            continue
        if skipping:
            if not reading.flags & DECIDED:
                yield span, _SECTION
                continue
            skipping = False
        if reading.list_scope is not None and text[end - 1] not in ".!?" and _LIST_HEADING.search(text, start, end):
            list_scope = reading.list_scope
        list_end = end
        yield span, reading


def _is_empty_heading(text: str, lower: str, spans: list[Span], index: int, vocabulary: Vocabulary) -> bool:
    """Whether a sentence that ends in a colon only names findings or body parts, and no list follows: "Lungs and pleura:"."""
    if index + 1 < len(spans) and _LIST_ITEM.match(text, spans[index + 1].start):
        return False
    start, end = spans[index]
    words = vocabulary.matcher.normalize_words(find_words(lower[start:end]))
    matches = vocabulary.matcher.match(words)
    named = sum(stop - first for _, first, stop in matches)
    return named == len(words) and not kinds_in(matches) & ~_HEADING_KINDS


def _read_sentence(lower: str, vocabulary: Vocabulary, list_scope: str | None) -> SentenceReading | str:
    """What a sentence in lower case says, or ``"language"``; remembered, since half of all sentences have been read before."""
    words = find_words(lower)
    reading: SentenceReading | str = _LANGUAGE
    if not vocabulary.is_other_language(words):
        matcher = vocabulary.matcher
        normalized = matcher.normalize_words(words)
        reading = classify_assertions(matcher.match(normalized), normalized, vocabulary, list_scope)
    if list_scope is None:
        _remember(vocabulary.readings, lower, reading)
    return reading


def read_findings(lower: str, vocabulary: Vocabulary, list_scope: str | None) -> list[AssertedFinding]:
    """The findings of a sentence in lower case with their assertions, sides and severities; remembered as readings are."""
    found = vocabulary.findings.get(lower) if list_scope is None else None
    if found is None:
        words = vocabulary.matcher.normalize_words(find_words(lower))
        found = assert_findings(vocabulary.matcher.match(words), words, vocabulary, list_scope)
        if list_scope is None:
            _remember(vocabulary.findings, lower, found)
    return found


def _remember(memory: dict[str, Any], lower: str, what: Any) -> None:
    if len(lower) <= _MAX_REMEMBERED_LENGTH:
        if len(memory) >= _MAX_REMEMBERED:
            memory.clear()
        memory[lower] = what


def _last_header(text: str, spans: list[Span], name: str, headers: Headers) -> int:
    """The index of the last sentence that is the header of a section, or -1."""
    for index in range(len(spans) - 1, -1, -1):
        start, end = spans[index]
        if text[end - 1] not in ".!?" and headers.name(text[start:end]) == name:
            return index
    return -1
