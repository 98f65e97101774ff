"""Kinds of phrases: the roles that the phrases of a vocabulary have in a sentence.

A kind is a number of one bit, and a set of kinds is the sum of its bits, so that a rule asks with one operation whether a
phrase, a clause or a sentence has one of several kinds: ``phrase.kinds & (COMMA | LINKER)``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from medvl.text.phrases import Meanings, PhraseMatch

Kind: TypeAlias = int
"""A kind of phrase."""
Meaning: TypeAlias = "tuple[Kind, Any]"
"""What a phrase stands for: its kind, and the finding, body part, predicate, side or severity that goes with it."""

# What is asserted.
TERM = 1 << 0  # names a finding
ONLY_ABSENT = 1 << 1  # names a finding, but counts only when negated: "bony abnormality"
NORMAL_STATEMENT = 1 << 2  # calls the study normal: "normal chest"
DISEASE = 1 << 3  # disease of any kind; negated, it calls the study normal
BLOCKER = 1 << 4  # disease outside the vocabulary: the study is not normal
WITH_PLACE = 1 << 5  # names a finding if a body part follows that implies it: "fluid may be in the pleural space"
STRUCTURE = 1 << 6  # a body part: "heart"
PREDICATE = 1 << 7  # what is said of a body part: "enlarged"
# Cues. Without a suffix they apply to what follows, with AFTER to what precedes, with BOTH to either side.
NEGATION = 1 << 8
NEGATION_BOTH = 1 << 9
NEGATION_AFTER = 1 << 10
UNCERTAINTY = 1 << 11
UNCERTAINTY_AFTER = 1 << 12
HISTORY = 1 << 13
HISTORY_AFTER = 1 << 14
FORMER = 1 << 15  # history, but of a finding that may be chronic: "prior"
VERSUS = 1 << 16
# Words that bound or extend the scope of a cue.
STOP = 1 << 17  # ends the clause: "but", ";"
VERB = 1 << 18
LINKER = 1 << 19  # "and", "with"
ALTERNATIVE = 1 << 20  # "or"
CONTINUING = 1 << 21  # opens a statement of its own: "remains"
MODIFIER = 1 << 22  # may precede a finding in a list: "new"
PERSISTENCE = 1 << 23  # says that a finding is still there: "has not changed"
NEUTRAL = 1 << 24  # what a normal report may say beside its findings: "two views"
# Attributes of a finding.
SEVERITY = 1 << 25
SIDE = 1 << 26
# Punctuation.
COMMA = 1 << 27
COLON = 1 << 28
# Phrases that only hide others.
PSEUDO = 1 << 30  # contains the words of a cue but is none: "no change in"
IGNORE = 1 << 31  # hides the shorter phrases inside it

KIND_NAMES: dict[Kind, str] = {
    value: name.lower() for name, value in list(globals().items()) if name.isupper() and type(value) is int
}
"""The kinds with their names in lower case."""
UNUSED_CUE: Kind = 1 << 29
"""No phrase has it, but a clause in which a cue in front names no finding: "pneumonia possible"."""


def kinds_of(meanings: Meanings) -> int:
    """The kinds of the meanings of a phrase."""
    if not meanings.kinds:
        for kind, _ in meanings:
            meanings.kinds |= kind
    return meanings.kinds


def kinds_in(matches: list[PhraseMatch]) -> int:
    """The kinds of the phrases of a sentence."""
    kinds = 0
    for meanings, _, _ in matches:
        kinds |= meanings.kinds or kinds_of(meanings)
    return kinds
