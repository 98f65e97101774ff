"""Findings of a report: every mention with what is said of it, and one state per finding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.text.assertion import ABSENT, PRESENT, UNCERTAIN, Found, resolve
from medvl.text.headers import section_name
from medvl.text.phrases import TOKEN
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span, require_text
from medvl.text.vocabulary import Kind, Vocabulary, load_vocabulary

# What is asked, what was before and how it was done is no observation of this examination.
SKIPPED_SECTIONS = frozenset({"indication", "history", "comparison", "technique", "examination"})
STATES = {PRESENT: 1.0, ABSENT: 0.0, UNCERTAIN: -1.0}
_RANK = {1.0: 3, -1.0: 2, 0.0: 1}

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
_MARK = re.compile(r"\[\*\*[^\[\]]{0,200}\]")


class Mention(NamedTuple):
    """A finding at a place in a report.

    Attributes:
        finding: name of the finding.
        span: where it is named.
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
    """Find the findings that a report names, and what it says of each.

    Negation, uncertainty and history reach to the end of their clause and through lists; cues may stand behind
    ("pneumothorax is not seen"); statements of normality speak of their findings ("heart size is normal": Cardiomegaly
    absent). Sections that hold no observation (indication, history, comparison, technique) are left out. A word is
    found in the plural and with one letter wrong. Time is linear in the length of the text.

    Args:
        text: the report.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        Mentions in the order of the text.

    Raises:
        TypeError: if ``text`` is not a string.

    Example:
        >>> text = "Small left effusion. No edema or pneumothorax."
        >>> for m in find_findings(text):
        ...     print(m.finding, m.assertion, m.side, m.severity, m.cue and text[m.cue.start : m.cue.end])
        Pleural Effusion present left mild None
        Edema absent None None No
        Pneumothorax absent None None No
    """
    require_text(text)
    vocabulary = load_vocabulary(vocabulary)
    clean, origin = _readable(text)
    lower = _lower(clean)

    def place(start: int, end: int) -> Span:
        return Span(start, end) if origin is None else Span(origin[start], origin[end - 1] + 1)

    mentions = []
    for sentence in _observed_sentences(clean):
        tokens = list(TOKEN.finditer(lower, sentence.start, sentence.end))
        words = vocabulary.phrases.read([token[0] for token in tokens])
        for found in resolve(vocabulary.phrases.scan(words), len(words), vocabulary):
            span = place(tokens[found.words[0]].start(), tokens[found.words[1] - 1].end())
            cue = place(tokens[found.cue[0]].start(), tokens[found.cue[1] - 1].end()) if found.cue else None
            for name, assertion in _named(found, vocabulary):
                mentions.append(Mention(name, span, assertion, found.side, found.severity, cue, place(*sentence)))
    return sorted(mentions, key=lambda mention: mention.span)


def _named(found: Found, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Finding and assertion of what a sentence holds: statements of a normal study speak for the derived findings."""
    if found.name is not None:
        return [] if found.kind == Kind.ONLY_ABSENT and found.assertion != ABSENT else [(found.name, found.assertion)]
    if (found.kind, found.assertion) in ((Kind.NORMAL_STATEMENT, PRESENT), (Kind.DISEASE, ABSENT)):
        return [(name, PRESENT) for name in vocabulary.derived]
    return []


def _observed_sentences(text: str) -> list[Span]:
    """Sentences of the sections that report what is seen; a blank line after its text ends one that does not."""
    kept: list[Span] = []
    skipping, told = False, -1
    for sentence in split_sentences(text):
        start, end = sentence
        if text[end - 1] not in ".!?" and (name := section_name(text[start:end])) is not None:
            skipping, told = name in SKIPPED_SECTIONS, -1
            continue
        if skipping and (told < 0 or text.count("\n", told, start) < 2):
            told = end
            continue
        skipping = False
        kept.append(sentence)
    return kept


def _readable(text: str) -> tuple[str, list[int] | None]:
    """The text with plain signs, and where each character of it stood (None where nothing moved)."""
    if "[**" in text:
        text = _MARK.sub(lambda mark: " " * len(mark[0]), text)
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
    """The text in lower case, each character in its place."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)


def label_report(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> NDArray[np.float32]:
    """Give each finding of a vocabulary one state.

    Of several mentions, present counts before uncertain before absent. A derived finding ("No Finding") is present when
    no other finding is present or uncertain, no other disease is named, and the report denies something or calls the
    study normal; it is never absent: text of which nothing is understood is not called normal.

    Args:
        text: the report, or a sentence of it.
        vocabulary: name or path for :func:`load_vocabulary`, or a loaded vocabulary.

    Returns:
        (K,) float32 in the order of ``vocabulary.names``: 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        TypeError: if ``text`` is not a string.

    Example:
        >>> states = label_report("Heart size is normal. Possible pneumonia.")
        >>> names = load_vocabulary("chexpert14").names
        >>> {name: int(state) for name, state in zip(names, states) if state == state}
        {'Cardiomegaly': 0, 'Pneumonia': -1}
    """
    require_text(text)
    vocabulary = load_vocabulary(vocabulary)
    phrases, clean = vocabulary.phrases, _readable(text)[0]
    lower = _lower(clean)
    states: dict[str, float] = {}
    blocked = normal = False
    for start, end in _observed_sentences(clean):
        words = phrases.read(TOKEN.findall(lower, start, end))
        for found in resolve(phrases.scan(words), len(words), vocabulary):
            state = STATES.get(found.assertion)
            if state is None:
                continue
            if found.kind in (Kind.DISEASE, Kind.BLOCKER):
                blocked = blocked or (state != 0)
                normal = normal or (state == 0 and found.kind == Kind.DISEASE)
            elif found.kind == Kind.NORMAL_STATEMENT:
                normal = normal or state == 1
            elif found.name is not None and (found.kind != Kind.ONLY_ABSENT or state == 0):
                old = states.get(found.name)
                if old is None or _RANK[state] > _RANK[old]:
                    states[found.name] = state
    for name, besides in vocabulary.derived.items():
        counted = [state for other, state in states.items() if other not in besides and other not in vocabulary.derived]
        if not blocked and not any(counted) and (normal or counted):
            states[name] = 1.0
    return np.array([states.get(name, np.nan) for name in vocabulary.names], dtype=np.float32)
