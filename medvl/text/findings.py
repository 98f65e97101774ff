"""Findings of a report: every mention with its assertion, and one state for each finding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.text.assertion import ABSENT, PRESENT, UNCERTAIN, AssertedFinding, classify_assertions
from medvl.text.headers import section_name
from medvl.text.phrases import TOKEN_PATTERN
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span
from medvl.text.vocabulary import PhraseKind, Vocabulary, load_vocabulary
from medvl.utils.checks import check_text

# These sections hold the question, the past and the technique, not what this examination shows.
SKIPPED_SECTIONS = frozenset({"indication", "history", "comparison", "technique", "examination"})
STATES = {PRESENT: 1.0, ABSENT: 0.0, UNCERTAIN: -1.0}
# Of several mentions the state with the highest priority counts.
_PRIORITY = {1.0: 3, -1.0: 2, 0.0: 1}

_INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_LOOKALIKES = {
    **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb00": "ff",
    "\ufb03": "ffi",
    "\u00e6": "ae",
    "\u0153": "oe",
}
_DEIDENTIFICATION_MARK = re.compile(r"\[\*\*[^\[\]]{0,200}\]")


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
    clean, origin = _with_plain_characters(text)
    lower = _lower(clean)

    def original_span(start: int, end: int) -> Span:
        return Span(start, end) if origin is None else Span(origin[start], origin[end - 1] + 1)

    mentions = []
    for sentence in _observed_sentences(clean):
        tokens = list(TOKEN_PATTERN.finditer(lower, sentence.start, sentence.end))

        def words_span(first: int, stop: int, tokens: list[re.Match[str]] = tokens) -> Span:
            return original_span(tokens[first].start(), tokens[stop - 1].end())

        for found in _asserted_findings([token[0] for token in tokens], vocabulary):
            span = words_span(*found.words)
            cue = words_span(*found.cue) if found.cue else None
            for name, assertion in _implied_findings(found, vocabulary):
                mentions.append(
                    Mention(name, span, assertion, found.side, found.severity, cue, original_span(*sentence))
                )
    return sorted(mentions, key=lambda mention: mention.span)


def _asserted_findings(words: list[str], vocabulary: Vocabulary) -> list[AssertedFinding]:
    """Match the words of a sentence and classify what they assert."""
    matcher = vocabulary.matcher
    return classify_assertions(matcher.match(matcher.normalize_words(words)), len(words), vocabulary)


def _implied_findings(found: AssertedFinding, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """(finding, assertion) that a phrase implies: statements of a normal study stand for the derived findings."""
    if found.name is not None:
        counts = found.kind != PhraseKind.ONLY_ABSENT or found.assertion == ABSENT
        return [(found.name, found.assertion)] if counts else []
    if (found.kind, found.assertion) in ((PhraseKind.NORMAL_STATEMENT, PRESENT), (PhraseKind.DISEASE, ABSENT)):
        return [(name, PRESENT) for name in vocabulary.derived]
    return []


def _observed_sentences(text: str) -> list[Span]:
    """Sentences outside the skipped sections; such a section ends at the next header, or at a blank line after its text."""
    kept: list[Span] = []
    skipping, skipped_end = False, -1
    for sentence in split_sentences(text):
        start, end = sentence
        if text[end - 1] not in ".!?" and (name := section_name(text[start:end])) is not None:
            skipping, skipped_end = name in SKIPPED_SECTIONS, -1
            continue
        if skipping and (skipped_end < 0 or text.count("\n", skipped_end, start) < 2):
            skipped_end = end
            continue
        skipping = False
        kept.append(sentence)
    return kept


def _with_plain_characters(text: str) -> tuple[str, list[int] | None]:
    """Replace look-alike characters and remove invisible ones.

    Returns:
        The text, and the offset in the original of each of its characters; None where nothing moved.
    """
    if "[**" in text:
        text = _DEIDENTIFICATION_MARK.sub(lambda mark: " " * len(mark[0]), text)
    if text.isascii():
        return text, None
    characters: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if character in _INVISIBLE:
            continue
        for plain in _LOOKALIKES.get(character, character):
            characters.append(plain)
            origin.append(index)
    return "".join(characters), origin


def _lower(text: str) -> str:
    """The text in lower case, with every character at the same offset."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)


def label_report(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> NDArray[np.float32]:
    """Label a report with one state for each finding of a vocabulary.

    Of several mentions, present takes precedence over uncertain, and uncertain over absent. A derived finding ("No Finding")
    is present if no other finding is present or uncertain, no disease outside the vocabulary is named, and the report negates
    a finding or calls the study normal. It is never absent, and a text without a match is not called normal.

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
    clean, _ = _with_plain_characters(text)
    lower = _lower(clean)
    states: dict[str, float] = {}
    diseased = normal = False
    for start, end in _observed_sentences(clean):
        for found in _asserted_findings(TOKEN_PATTERN.findall(lower, start, end), vocabulary):
            state = STATES.get(found.assertion)
            if state is None:
                continue
            if found.kind in (PhraseKind.DISEASE, PhraseKind.BLOCKER):
                diseased = diseased or state != 0
                normal = normal or (state == 0 and found.kind == PhraseKind.DISEASE)
            elif found.kind == PhraseKind.NORMAL_STATEMENT:
                normal = normal or state == 1
            elif found.name is not None and (found.kind != PhraseKind.ONLY_ABSENT or state == 0):
                old = states.get(found.name)
                if old is None or _PRIORITY[state] > _PRIORITY[old]:
                    states[found.name] = state
    if not diseased:
        states.update(_derived_states(states, normal, vocabulary))
    return np.array([states.get(name, np.nan) for name in vocabulary.names], dtype=np.float32)


def _derived_states(states: dict[str, float], normal: bool, vocabulary: Vocabulary) -> dict[str, float]:
    """The derived findings that are present: nothing else is present or uncertain, and something is absent or normal."""
    derived = {}
    for name, compatible in vocabulary.derived.items():
        others = [s for other, s in states.items() if other not in compatible and other not in vocabulary.derived]
        if not any(others) and (normal or others):
            derived[name] = 1.0
    return derived
