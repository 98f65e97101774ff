"""Findings of a report: every mention with its assertion, and one state for each finding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.text.assertion import (
    ABSENT,
    DISEASED,
    NAMED,
    NORMAL,
    NOT_UNDERSTOOD,
    PRESENT,
    STATES,
    AssertedFinding,
    SentenceReading,
)
from medvl.text.assertion.parts import counts
from medvl.text.characters import lower_case, original_span, plain_characters
from medvl.text.phrase_kinds import DISEASE, NORMAL_STATEMENT
from medvl.text.phrases import word_spans
from medvl.text.reading import read_findings, read_sentences
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span
from medvl.text.vocabulary import Vocabulary, load_vocabulary
from medvl.utils.checks import check_text


class Mention(NamedTuple):
    """A mention of a finding in a report.

    Attributes:
        finding: name of the finding.
        span: span of the mention.
        assertion: ``"present"``, ``"absent"``, ``"uncertain"``, or ``"past"`` for history, which gives no state.
        side: ``"left"``, ``"right"``, ``"bilateral"`` or None.
        severity: ``"trace"``, ``"mild"``, ``"moderate"``, ``"severe"`` or None.
        cue: span of the words that decided the assertion; None where the plain mention did.
        sentence: span of the sentence.
    """

    finding: str
    span: Span
    assertion: str
    side: str | None
    severity: str | None
    cue: Span | None
    sentence: Span


def find_findings(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> list[Mention]:
    """Find the mentions of findings in a report, each with its assertion, side and severity.

    Negation, uncertainty and history extend to the end of their clause and through lists; a cue may follow its finding
    ("pneumothorax is not seen"); a statement of normality implies findings ("heart size is normal": Cardiomegaly absent).
    Sections without observations (indication, history, comparison, technique, examination) are left out. Plurals and words
    with one wrong letter are matched. Time is linear in the length of the text.

    Args:
        text: the report.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        Mentions in the order of the text.

    Raises:
        TypeError: If ``text`` is not a string.
        FileNotFoundError: If ``vocabulary`` is neither a built-in vocabulary nor a file.

    Example:
        >>> text = "Small left effusion. No edema or pneumothorax."
        >>> for m in find_findings(text):
        ...     print(m.finding, m.assertion, m.side, m.severity, m.cue and text[m.cue.start : m.cue.end])
        Pleural Effusion present left mild None
        Edema absent None None No
        Pneumothorax absent None None No
    """
    check_text(text)
    vocabulary = load_vocabulary(vocabulary)
    clean, origin = plain_characters(text)
    lower = lower_case(clean)

    mentions = []
    list_scopes: dict[Span, str] = {}
    for sentence, reading in read_sentences(clean, lower, vocabulary, list_scopes=list_scopes):
        if isinstance(reading, str) or not reading.flags & NAMED:
            continue
        places = word_spans(lower[sentence.start : sentence.end])

        def words_span(first: int, stop: int, places: list[tuple[int, int]] = places, at: int = sentence.start) -> Span:
            return original_span((at + places[first][0], at + places[stop - 1][1]), origin)

        for found in read_findings(lower[sentence.start : sentence.end], vocabulary, list_scopes.get(sentence)):
            span = words_span(*found.words)
            cue = words_span(*found.cue) if found.cue else None
            for name, assertion in _implied_findings(found, vocabulary):
                mentions.append(
                    Mention(name, span, assertion, found.side, found.severity, cue, original_span(sentence, origin))
                )
    return sorted(mentions, key=lambda mention: mention.span)


def skipped_sentences(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> list[tuple[Span, str]]:
    """Find the sentences of a report that give no state, whatever they say.

    Args:
        text: the report.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        Spans, each with the reason: ``"section"`` for a section without observations, such as the indication, and
        ``"language"`` for a sentence that is mostly in another language than the vocabulary's.

    Raises:
        TypeError: If ``text`` is not a string.
        FileNotFoundError: If ``vocabulary`` is neither a built-in vocabulary nor a file.

    Example:
        >>> text = "INDICATION: Pneumonia. FINDINGS: No effusion. Kein Pneumothorax."
        >>> [(text[a:b], reason) for (a, b), reason in skipped_sentences(text)]
        [('Pneumonia.', 'section'), ('Kein Pneumothorax.', 'language')]
    """
    check_text(text)
    clean, origin = plain_characters(text)
    readings = read_sentences(clean, lower_case(clean), load_vocabulary(vocabulary))
    return [(original_span(span, origin), reading) for span, reading in readings if isinstance(reading, str)]


def _implied_findings(found: AssertedFinding, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """(finding, assertion) that a phrase implies: statements of a normal study stand for the derived findings."""
    if found.name is not None:
        return [(found.name, found.assertion)] if counts(found.kind, found.assertion) else []
    if (found.kind, found.assertion) in ((NORMAL_STATEMENT, PRESENT), (DISEASE, ABSENT)):
        return [(name, PRESENT) for name in vocabulary.derived]
    return []


def label_report(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> NDArray[np.float32]:
    """Label a report with one state for each finding of a vocabulary.

    Of several mentions, present takes precedence over uncertain, and uncertain over absent. A derived finding ("No Finding")
    is present if no other finding is present or uncertain, no disease outside the vocabulary is named, and the report calls
    the study normal, or every sentence is understood and one negates a finding. It is never absent, and a text without a
    match is not called normal.

    Args:
        text: the report, or a sentence of it.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        (K,) float32 in the order of ``vocabulary.names``: 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        TypeError: If ``text`` is not a string.
        FileNotFoundError: If ``vocabulary`` is neither a built-in vocabulary nor a file.

    Example:
        >>> states = label_report("Heart size is normal. Possible pneumonia.")
        >>> names = load_vocabulary("chexpert14").names
        >>> {name: int(state) for name, state in zip(names, states) if state == state}
        {'Cardiomegaly': 0, 'Pneumonia': -1}
    """
    check_text(text)
    vocabulary = load_vocabulary(vocabulary)
    clean, _ = plain_characters(text)
    lower = lower_case(clean)
    return combine_states(read_sentences(clean, lower, vocabulary), vocabulary)


def label_sentences(
    report: str | Sequence[str], vocabulary: str | Path | Vocabulary = "chexpert14"
) -> tuple[list[str], NDArray[np.float32]]:
    """Label each sentence of a report with one state for each finding.

    A sentence is read in its report: one of a skipped section, such as the indication, has no state, and an item of a list
    has the state that the sentence before the list gives it.

    Args:
        report: the report, split by :func:`split_sentences`, or the list of its sentences.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        The S sentences, and (S, K) float32 states as :func:`label_report` returns them.

    Raises:
        TypeError: If ``report`` is neither a string nor a sequence of strings.
        FileNotFoundError: If ``vocabulary`` is neither a built-in vocabulary nor a file.

    Example:
        >>> sentences, states = label_sentences("INDICATION: Pneumonia. FINDINGS: No pneumonia.")
        >>> [(sentence, float(row[7])) for sentence, row in zip(sentences, states)]
        [('INDICATION:', nan), ('Pneumonia.', nan), ('FINDINGS:', nan), ('No pneumonia.', 0.0)]
    """
    vocabulary = load_vocabulary(vocabulary)
    if isinstance(report, str):
        sentences = [report[start:end] for start, end in split_sentences(report, vocabulary.conventions)]
    else:
        for sentence in report:
            check_text(sentence, "each sentence of report")
        sentences = list(report)
    cleaned = [plain_characters(sentence)[0].strip() for sentence in sentences]
    spans, end = [], 0
    for clean in cleaned:
        spans.append(Span(end, end + len(clean)))
        end += len(clean) + 1
    text = "\n".join(cleaned)
    states = np.full((len(sentences), len(vocabulary.names)), np.nan, dtype=np.float32)
    rows = {span: row for row, span in enumerate(spans)}
    filled = [span for span in spans if span.end > span.start]
    for span, reading in read_sentences(text, lower_case(text), vocabulary, filled):
        states[rows[span]] = combine_states([(span, reading)], vocabulary)
    return sentences, states


def combine_states(
    readings: Iterable[tuple[Span, SentenceReading | str]], vocabulary: Vocabulary
) -> NDArray[np.float32]:
    """One state (K,) for each finding from what the sentences say that are not skipped."""
    codes: set[int] = set()
    flags = 0
    for _, reading in readings:
        if not isinstance(reading, str):
            states_of_sentence, its_flags, _ = reading
            codes.update(states_of_sentence)
            flags |= its_flags
    states = [STATES[0]] * len(vocabulary.names)
    for code in sorted(codes):  # the codes of a finding rise with the rank of its state
        states[code >> 2] = STATES[code & 3]
    if not flags & DISEASED and (flags & NORMAL or not flags & NOT_UNDERSTOOD):
        for name in _derived_findings(states, bool(flags & NORMAL), vocabulary):
            states[vocabulary.indices[name]] = 1.0
    return np.array(states, dtype=np.float32)


def _derived_findings(states: list[float], normal: bool, vocabulary: Vocabulary) -> list[str]:
    """The derived findings that are present: nothing else is present or uncertain, and something is absent or normal."""
    derived = []
    for name, compatible in vocabulary.derived.items():
        others = [
            state
            for other, state in zip(vocabulary.names, states, strict=True)
            if state == state and other not in compatible and other not in vocabulary.derived
        ]
        if not any(others) and (normal or others):
            derived.append(name)
    return derived
