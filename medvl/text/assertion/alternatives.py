"""Explanations that leave each other open: "edema or pneumonia", "edema versus pneumonia"."""

from __future__ import annotations

from medvl.text.assertion.clauses import Sentence
from medvl.text.assertion.parts import PRESENT, UNCERTAIN, AssertedFinding, Clause
from medvl.text.phrase_kinds import ALTERNATIVE, COMMA, LINKER, PERSISTENCE, TERM, VERB, VERSUS
from medvl.text.structures import WordSpan

# What stands between "or" and a finding that is no alternative.
_SEPARATING_KINDS = COMMA | LINKER | VERB | PERSISTENCE


def leave_alternatives_open(sentence: Sentence, clause: Clause) -> None:
    """An "or" makes two different findings uncertain: "edema or pneumonia"; "atelectasis or scar" is atelectasis."""
    cue: WordSpan | None = None
    for part in clause.parts:
        for phrase in sentence.phrases[part.first : part.stop + 1]:
            if phrase.kinds & ALTERNATIVE:
                cue = phrase.words
            elif phrase.kinds & _SEPARATING_KINDS:
                cue = None
            if phrase.findings:
                if cue is not None and phrase.last is not None:
                    _leave_open(phrase.last, phrase.findings[0], cue)
                cue = None


def _leave_open(first: AssertedFinding, second: AssertedFinding, cue: WordSpan) -> None:
    if first.name == second.name or first.final or second.final or second.rule is not None:
        return
    if first.assertion == PRESENT and first.kind == second.kind == TERM:
        first.decide(UNCERTAIN, cue, "leave_alternatives_open")
        second.decide(UNCERTAIN, cue, "leave_alternatives_open")


def leave_versus_open(sentence: Sentence, clause: Clause) -> None:
    """A "versus" leaves the first open, and its scope the second, whatever that is: "edema versus scar"."""
    for part in clause.parts:
        for phrase in sentence.phrases[part.first : part.stop + 1]:
            last = phrase.last
            if last is not None and last.assertion == PRESENT and not last.final and phrase.kinds & VERSUS:
                last.decide(UNCERTAIN, phrase.words, "leave_versus_open")
