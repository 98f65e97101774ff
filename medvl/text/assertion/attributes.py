"""Sides and severities of findings, and findings that a part of a sentence leaves out: "small on the left"."""

from __future__ import annotations

from itertools import pairwise

from medvl.text.assertion.clauses import NAMING_KINDS, Sentence
from medvl.text.assertion.parts import ABSENT, BY_CONJUNCTION, PRESENT, AssertedFinding, Clause, Part
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    COLON,
    CONTINUING,
    DISEASE,
    LINKER,
    MODIFIER,
    NEGATION,
    NEGATION_BOTH,
    ONLY_ABSENT,
    PERSISTENCE,
    PREDICATE,
    SEVERITY,
    SIDE,
    STOP,
    STRUCTURE,
    TERM,
    VERB,
)

_ELLIPSIS_KINDS = SEVERITY | SIDE | PERSISTENCE | VERB | CONTINUING


_PLACE_KINDS = NAMING_KINDS | (PREDICATE | STOP)
_DENYING_KINDS = NEGATION | NEGATION_BOTH


def complete_before_denial(sentence: Sentence, clause: Clause) -> None:
    """A side before an "and" and a denial of the other side stands for the finding: "small right and no left effusion"."""
    for part, following in pairwise(list(clause.parts)):
        if not sentence.phrases[part.stop].kinds & LINKER or following.first >= len(sentence.phrases):
            continue
        described = sentence.phrases[part.first : part.stop]
        is_denied = sentence.phrases[following.first].kinds & _DENYING_KINDS
        if not is_denied or any(not phrase.kinds & _ELLIPSIS_KINDS for phrase in described):
            continue
        denied = next((finding for finding in clause.findings if finding.part is following), None)
        sides = [value for phrase in described for kind, value in phrase.meanings if kind == SIDE]
        if sides and denied is not None and denied.kind == TERM and denied.assertion == ABSENT:
            finding = AssertedFinding(denied.name, denied.kind, (described[0].start, described[-1].end), part, None)
            finding.decide(PRESENT, None, "complete_before_denial")
            finding.side = sides[-1]
            clause.findings.insert(0, finding)


def complete_ellipsis(sentence: Sentence, clause: Clause) -> None:
    """A part with a side stands for a finding denied on the other side: "no effusion on the right, small on the left"."""
    last = sentence.last_finding
    denied = [f for f in clause.findings if f.assertion == ABSENT and f.kind == TERM]
    if denied or (last is not None and last.assertion == ABSENT and last.kind == TERM):
        describe_findings(sentence, clause)


def describe_findings(sentence: Sentence, clause: Clause) -> None:
    """A side and a severity belong to the next finding of the clause, or to the last one where a part ends: "edema is mild"."""
    if not clause.is_described:
        clause.is_described = True
        _Description(sentence, clause).describe()


class _Description:
    """Sides and severities that wait for a finding, while the phrases of a clause are read."""

    __slots__ = ("clause", "last", "sentence", "severity", "side")

    def __init__(self, sentence: Sentence, clause: Clause) -> None:
        self.sentence, self.clause = sentence, clause
        self.side: str | None = None
        self.severity: str | None = None
        self.last: AssertedFinding | None = None

    def describe(self) -> None:
        phrases = self.sentence.phrases
        for part in list(self.clause.parts):
            for index in range(part.first, min(part.stop + 1, len(phrases))):
                for kind, value in phrases[index].meanings:
                    if kind == SEVERITY:
                        self.severity = value
                    elif kind == SIDE:
                        self._read_side(index, value)
                    elif kind == ALTERNATIVE:
                        self.side = None
                    elif kind == COLON:
                        self._describe_last(index)
                    elif kind == LINKER:
                        self._read_linker(part, index)
                for _, findings in phrases[index].statements:
                    for finding in findings:
                        finding.severity = self.severity if finding.assertion != ABSENT else None
                        if not finding.dropped:
                            self.last = finding
                    self.severity = None
                for finding in phrases[index].findings:
                    finding.side, finding.severity = self.side, self.severity
                    self.side = self.severity = None
                    self.last = finding
            if part.stop >= len(phrases) or not phrases[part.stop].kinds & LINKER:
                self._end_part(part)

    def _read_side(self, index: int, side: str) -> None:
        phrase = self.sentence.phrases[index]
        last = self.last
        is_behind = last is not None and last.part is phrase.part and last.kind != ONLY_ABSENT
        if last is not None and is_behind and last.side is None and phrase.join is None:
            last.side = side
        else:
            self.side = "bilateral" if self.side not in (None, side) else side

    def _read_linker(self, part: Part, index: int) -> None:
        """Keep a side right before an "and" for the finding behind: "right and left effusions"."""
        phrases = self.sentence.phrases
        side_precedes = index > 0 and phrases[index - 1].end == phrases[index].start
        if side_precedes and phrases[index - 1].kinds & SIDE:
            side, self.side = self.side, None
            self._describe_last(index)
            self.side = side
        else:
            self._end_part(part)

    def _end_part(self, part: Part) -> None:
        self._complete_ellipsis(part)
        self._describe_last(part.stop)

    def _describe_last(self, index: int) -> None:
        """Give what waits for a finding to the last one of the clause, unless a conjunction separates it."""
        if self.side is None and self.severity is None:
            return
        last = self.last
        if last is not None and last.kind == TERM and self.sentence.join_at(index) != BY_CONJUNCTION:
            last.side = last.side or self.side
            last.severity = last.severity or self.severity
        self.side = self.severity = None

    def _complete_ellipsis(self, part: Part) -> None:
        """Add the finding that a part such as "small on the left" or "left persists" leaves out, after a denied one."""
        sentence, last = self.sentence, self.last or self.sentence.last_finding
        if self.side is None or last is None or last.part is part:
            return
        if last.assertion != ABSENT or last.kind != TERM or last.side == self.side:
            return
        words = sentence.vocabulary.words
        opener = sentence.words[sentence.phrases[part.first - 1].start] if part.first else None
        is_exception = opener in words["exception"]
        says_present = is_exception or self.severity is not None
        start = place = sentence.start_of(part.first)
        for phrase in sentence.phrases[part.first : part.stop]:
            is_article = phrase.kinds & MODIFIER and words["ellipsis"].issuperset(
                sentence.words[phrase.start : phrase.end]
            )
            is_modifier = is_exception and phrase.kinds & MODIFIER
            goes_on = phrase.kinds & _ELLIPSIS_KINDS or is_article or is_modifier
            if not goes_on or not words["ellipsis"].issuperset(sentence.words[place : phrase.start]):
                return
            says_present = says_present or bool(phrase.kinds & PERSISTENCE)
            place = phrase.end
        if says_present and words["ellipsis"].issuperset(sentence.words[place : sentence.start_of(part.stop)]):
            finding = AssertedFinding(last.name, last.kind, (start, place), part, None)
            finding.decide(PRESENT, None, "complete_ellipsis")
            finding.side, finding.severity = self.side, self.severity
            self.side = self.severity = None
            self.clause.findings.append(finding)
            self.last = finding


def call_parts_normal(sentence: Sentence, clause: Clause) -> None:
    """A body part of which disease is denied is normal: "the bones show no acute abnormality"."""
    denied = next((f for f in clause.findings if f.kind == DISEASE and f.assertion == ABSENT), None)
    if denied is None or denied.cue is None:
        return
    found: list[AssertedFinding] = []
    for part in clause.parts:
        for phrase in sentence.phrases[part.first : part.stop]:
            if phrase.end > denied.cue[0]:
                clause.findings += found
                return
            if phrase.kinds & STRUCTURE and not phrase.statements:
                structure = next(value for kind, value in phrase.meanings if kind == STRUCTURE)
                for name, assertion in sentence.vocabulary.structures[structure].get("normal", {}).items():
                    finding = AssertedFinding(name, STRUCTURE, phrase.words, part, None)
                    finding.decide(assertion, denied.cue, "call_parts_normal")
                    finding.final = True
                    found.append(finding)
            elif phrase.kinds & _PLACE_KINDS:
                return  # "in the lungs, there is": a place, or a finding of its own
