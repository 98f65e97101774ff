"""The clauses of a sentence: its phrases, what they name, and what joins the findings.

:class:`Sentence` reads the phrases once, from left to right, and looks at no assertion. A clause ends at a word such as "but"
or at a semicolon; a part of a clause ends at a comma or an "and". The rules that decide on assertions are in the other modules
of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvl.text.assertion.parts import (
    ABSENT,
    BY_COMMA,
    BY_CONJUNCTION,
    NOWHERE,
    PAST,
    UNCERTAIN,
    AssertedFinding,
    Clause,
    Part,
    Phrase,
)
from medvl.text.lookahead import LookAhead
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COLON,
    COMMA,
    CONTINUING,
    DISEASE,
    HISTORY_AFTER,
    LINKER,
    MODIFIER,
    NEGATION_AFTER,
    NEGATION_BOTH,
    NORMAL_STATEMENT,
    ONLY_ABSENT,
    PERSISTENCE,
    PREDICATE,
    SEVERITY,
    SIDE,
    STOP,
    STRUCTURE,
    TERM,
    UNCERTAINTY,
    UNCERTAINTY_AFTER,
    VERB,
    WITH_PLACE,
    Kind,
    kinds_in,
    kinds_of,
)
from medvl.text.phrases import PhraseMatch
from medvl.text.structures import StructureStatement, StructureTracker
from medvl.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from medvl.text.assertion.scopes import Scope

NAMING_KINDS = TERM | ONLY_ABSENT | NORMAL_STATEMENT | DISEASE | BLOCKER | WITH_PLACE
# Cues that look back, or ahead where the place says so; and what they are where they look ahead, and back.
_TURNED = {
    NEGATION_BOTH: NEGATION_AFTER,
    NEGATION_AFTER: NEGATION_BOTH,
    UNCERTAINTY_AFTER: UNCERTAINTY,
}
_TURNING_KINDS = NEGATION_BOTH | NEGATION_AFTER | UNCERTAINTY_AFTER
LOOKING_BACK = {NEGATION_AFTER: ABSENT, UNCERTAINTY_AFTER: UNCERTAIN, HISTORY_AFTER: PAST}
LOOKING_BACK_KINDS = NEGATION_AFTER | UNCERTAINTY_AFTER | HISTORY_AFTER
VERB_KINDS = VERB | PERSISTENCE
_NAMED_KINDS = NAMING_KINDS | STRUCTURE | PREDICATE
_JOINING_KINDS = LOOKING_BACK_KINDS | VERB_KINDS | ALTERNATIVE | COLON | COMMA | LINKER | STOP
# A phrase of no such kind changes nothing for those behind it.
_READ_KINDS = _TURNING_KINDS | _NAMED_KINDS | _JOINING_KINDS
_READ_KINDS_WITHOUT_PARTS = _READ_KINDS & ~STRUCTURE
# Kinds of phrases between an adjective and the finding that it describes: "is probable mild left effusion".
_DESCRIBING_KINDS = SEVERITY | SIDE | MODIFIER | CONTINUING
_MAX_ADJECTIVES = 5


class Sentence:
    """The phrases of a sentence in clauses.

    Attributes:
        matches: phrases, as :meth:`medvl.text.phrases.PhraseMatcher.match` returns them.
        words: words, as :meth:`medvl.text.phrases.PhraseMatcher.normalize_words` returns them.
        vocabulary: the vocabulary of the phrases.
        phrases: the phrases.
        clauses: the clauses.
        scopes: the scopes of cues in front of findings, once they are known.
        understood: whether something but a finding says what the sentence is about.
        last_finding: the last finding of the clauses that were decided.
        predicate: a predicate that no body part followed, with its words, or None.
    """

    __slots__ = (
        *("_join", "_look_ahead", "_structures", "_verb_end", "clauses", "last_finding", "last_join", "matches"),
        *("phrases", "predicate", "scopes", "understood", "vocabulary", "words"),
    )

    def __init__(
        self, matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, kinds: int | None = None
    ) -> None:
        self.matches, self.words, self.vocabulary = matches, words, vocabulary
        self._look_ahead: LookAhead | None = None
        self.phrases: list[Phrase] = []
        self.scopes: list[Scope] = []
        self.understood = False
        self.last_finding: AssertedFinding | None = None
        self._structures = StructureTracker()
        self._join: str | None = None
        self._verb_end = NOWHERE
        clause = Clause(0)
        self.clauses = [clause]
        part, last = clause.parts[0], None
        is_said = (kinds_in(matches) if kinds is None else kinds) & (PREDICATE | WITH_PLACE)
        read_kinds = _READ_KINDS if is_said else _READ_KINDS_WITHOUT_PARTS  # body parts of which nothing is said
        for index, (meanings, start, end) in enumerate(matches):
            kinds = meanings.kinds or kinds_of(meanings)
            phrase = Phrase(meanings, start, end, kinds, self._join, self._verb_end, last, part)
            self.phrases.append(phrase)
            if kinds & read_kinds:
                self._read(index, phrase, clause)
                clause = self.clauses[-1]
                part, last = clause.parts[-1], clause.findings[-1] if clause.findings else None
            else:
                clause.kinds |= kinds
        self.last_join = self._join
        part.stop = len(matches)
        self.predicate = self._structures.predicate

    @property
    def look_ahead(self) -> LookAhead:
        """What follows a phrase."""
        if self._look_ahead is None:
            self._look_ahead = LookAhead(self.matches)
        return self._look_ahead

    def _read(self, index: int, phrase: Phrase, clause: Clause) -> None:
        """Read the phrase at ``index``: name its findings, and note what it joins, ends or completes."""
        kinds = phrase.kinds
        if kinds & _TURNING_KINDS:
            turned = [(self._turned(index, phrase, kind), value) for kind, value in phrase.meanings]
            if turned != phrase.meanings:
                phrase.meanings = turned
                kinds = 0
                for kind, _ in turned:
                    kinds |= kind
                phrase.kinds = kinds
        clause.kinds |= kinds
        if kinds & _NAMED_KINDS:
            self._read_names(phrase, clause)
        if not kinds & _JOINING_KINDS:
            return
        if kinds & (LOOKING_BACK_KINDS | VERB_KINDS):
            self._join = None
            if kinds & VERB_KINDS:
                self._verb_end = phrase.end
                self._structures.verb_seen = True
        if kinds & ALTERNATIVE:
            self._join = BY_CONJUNCTION
        if kinds & COLON and phrase.start:
            self._structures.predicate = None
        if kinds & (COMMA | LINKER):
            self._end_part(index, phrase, clause)
        if kinds & STOP:
            self._end_clause(index, clause)

    def _read_names(self, phrase: Phrase, clause: Clause) -> None:
        """Name what a phrase stands for: findings, and those that its statements about body parts imply."""
        for kind, value in phrase.meanings:
            if kind & NAMING_KINDS:
                self._name(phrase, clause, value, kind)
            elif kind == STRUCTURE:
                self._complete_place(value)
                after_conjunction = self._join == BY_CONJUNCTION
                for statement in self._structures.add_structure(value, phrase.words, after_conjunction):
                    self._imply(phrase, statement)
            elif kind == PREDICATE:
                if self._structures.comma_seen and self._is_apposition(len(self.phrases) - 1):
                    self._structures.comma_seen = False
                for statement in self._structures.add_predicate(value, phrase.words):
                    self._imply(phrase, statement)

    def _complete_place(self, structure: int) -> None:
        """Let a finding such as "fluid" before its body part count: "fluid may be present in the left pleural space"."""
        clause = self.clauses[-1]
        for finding in reversed(clause.findings):
            if finding.part is not clause.parts[-1] or not finding.kind & (ONLY_ABSENT | WITH_PLACE):
                break
            implied = self.vocabulary.structures[structure].values()
            if finding.kind == WITH_PLACE and any(finding.name in states for states in implied):
                finding.kind = TERM

    def _name(self, phrase: Phrase, clause: Clause, name: str | None, kind: Kind) -> None:
        # A finding with a verb of its own is a complete statement, which nothing joins to the next.
        is_complete = not clause.findings or clause.findings[-1].words[1] <= self._verb_end
        part = clause.parts[-1]
        finding = AssertedFinding(name, kind, (phrase.start, phrase.end), part, None if is_complete else self._join)
        self._join = None
        self._structures.predicate = None
        phrase.findings = [*phrase.findings, finding]
        clause.findings.append(finding)

    def _imply(self, phrase: Phrase, statement: StructureStatement) -> None:
        """Name the findings that a statement about a body part implies."""
        implied = self.vocabulary.structures[statement.structure].get(statement.predicate)
        if implied is None:
            return
        clause = self.clauses[-1]
        first, second = statement.structure_words, statement.predicate_words
        words = (min(first[0], second[0]), max(first[1], second[1]))
        findings = []
        for name, assertion in implied.items():
            finding = AssertedFinding(name, STRUCTURE, words, clause.parts[-1], None)
            finding.decide(assertion, second, "structure")
            finding.final = True
            findings.append(finding)
        clause.findings += findings
        clause.has_statements = True
        phrase.statements = [*phrase.statements, (statement, findings)]

    def _end_part(self, index: int, phrase: Phrase, clause: Clause) -> None:
        clause.parts[-1].stop = index
        clause.parts.append(Part(index + 1))
        if phrase.kinds & COMMA:
            self._join = self._join or BY_COMMA
            self._structures.comma_seen = True
        elif self.words[phrase.start] in self.vocabulary.words["occasion"]:
            self._join = None  # "effusion after drain removal": the removal is not that of the effusion
        else:
            self._join = BY_CONJUNCTION

    def _end_clause(self, index: int, clause: Clause) -> None:
        clause.parts[-1].stop = index
        self.clauses.append(Clause(index + 1))
        self._join = None
        self._structures.predicate = None
        self._structures.comma_seen = True

    def _turned(self, index: int, phrase: Phrase, kind: Kind) -> Kind:
        """The kind of a cue that may look back or ahead at phrase ``index``, where it stands."""
        if kind == NEGATION_BOTH:
            looks_back = phrase.follows_finding
        elif kind == NEGATION_AFTER:  # "not found: effusion, pneumothorax"
            looks_back = phrase.last is not None or not self._colon_follows(index)
        elif kind == UNCERTAINTY_AFTER:
            looks_back = not self._describes_next(index)
        else:
            return kind
        return _TURNED[kind] if looks_back == (kind == NEGATION_BOTH) else kind

    def _colon_follows(self, index: int) -> bool:
        """Whether a colon follows phrase ``index`` without a word between."""
        if index + 1 >= len(self.matches) or self.matches[index + 1][1] != self.matches[index][2]:
            return False
        return kinds_of(self.matches[index + 1][0]) & COLON != 0

    def _describes_next(self, index: int) -> bool:
        """Whether phrase ``index`` stands before a finding as an adjective: "is probable left atelectasis"."""
        end = self.matches[index][2]
        for meanings, start, next_end in self.matches[index + 1 : index + 1 + _MAX_ADJECTIVES]:
            if start - end > 1 or (start > end and self.words[end] in self.vocabulary.words["prepositions"]):
                return False
            kinds = kinds_of(meanings)
            if kinds & TERM:
                return True
            if not kinds & _DESCRIBING_KINDS:
                return False
            end = next_end
        return False

    def _is_apposition(self, index: int) -> bool:
        """Whether the predicate at phrase ``index`` speaks of the body part before its comma: "lymph nodes, not enlarged"."""
        phrases = self.phrases
        if index < 2 or not phrases[index - 1].kinds & COMMA or not phrases[index - 2].kinds & STRUCTURE:
            return False
        if phrases[index - 2].end != phrases[index - 1].start or phrases[index - 1].end != phrases[index].start:
            return False
        for meanings, _, _ in self.matches[index + 1 :]:
            kinds = kinds_of(meanings)
            if kinds & (COMMA | LINKER | STOP):
                break
            if kinds & _NAMED_KINDS:
                return False
        return True

    def join_at(self, index: int) -> str | None:
        """What joins phrase ``index``, or the end of the sentence, to the finding before."""
        if index >= len(self.phrases):
            return self.last_join
        return None if self.phrases[index].kinds & STOP else self.phrases[index].join

    def verb_follows(self, finding: AssertedFinding, index: int) -> bool:
        """Whether a verb stands between a finding and phrase ``index``."""
        verb_end = self.phrases[index].verb_end if index < len(self.phrases) else self._verb_end
        return finding.words[1] <= verb_end

    def start_of(self, index: int) -> int:
        """The first word of phrase ``index``, or the number of words behind the last one."""
        return self.phrases[index].start if index < len(self.phrases) else len(self.words)
