"""The clauses of a sentence: its phrases, what they name, and what joins the findings.

:class:`Sentence` reads the phrases once, from left to right, and looks at no assertion. A clause ends at a word such as "but"
or at a semicolon; a part of a clause ends at a comma or an "and". The rules that decide on assertions are in the other modules
of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvl.text.lookahead import LookAhead
from medvl.text.phrases import PhraseMatch
from medvl.text.structures import StructureStatement, StructureTracker, WordSpan
from medvl.text.vocabulary import Meaning, PhraseKind, Vocabulary, kind_bits, kinds_of

if TYPE_CHECKING:
    from medvl.text.assertion.scopes import Scope

PRESENT, ABSENT, UNCERTAIN, PAST = "present", "absent", "uncertain", "past"
COMMA, CONJUNCTION = "comma", "conjunction"
NOWHERE = -1
NAMING_KINDS = kind_bits(
    PhraseKind.TERM,
    PhraseKind.ONLY_ABSENT,
    PhraseKind.NORMAL_STATEMENT,
    PhraseKind.DISEASE,
    PhraseKind.BLOCKER,
    PhraseKind.WITH_PLACE,
)
# Cues that look back, or ahead where the place says so; and what they are where they look ahead, and back.
_TURNED = {
    PhraseKind.NEGATION_BOTH: PhraseKind.NEGATION_AFTER,
    PhraseKind.NEGATION_AFTER: PhraseKind.NEGATION_BOTH,
    PhraseKind.UNCERTAINTY_AFTER: PhraseKind.UNCERTAINTY,
}
_TURNING_KINDS = kind_bits(*_TURNED)
LOOKING_BACK = {
    PhraseKind.NEGATION_AFTER: ABSENT,
    PhraseKind.UNCERTAINTY_AFTER: UNCERTAIN,
    PhraseKind.HISTORY_AFTER: PAST,
}
LOOKING_BACK_KINDS = kind_bits(*LOOKING_BACK)
VERB_KINDS = kind_bits(PhraseKind.VERB, PhraseKind.PERSISTENCE)
_STRUCTURE_KINDS = kind_bits(PhraseKind.STRUCTURE, PhraseKind.PREDICATE)
_PART_ENDS = kind_bits(PhraseKind.COMMA, PhraseKind.LINKER)
_ALTERNATIVE, _COLON, _STOP = (kind_bits(kind) for kind in (PhraseKind.ALTERNATIVE, PhraseKind.COLON, PhraseKind.STOP))
# A phrase of no such kind changes nothing for those behind it.
_READ_KINDS = (
    _TURNING_KINDS
    | (NAMING_KINDS | _STRUCTURE_KINDS | LOOKING_BACK_KINDS | VERB_KINDS)
    | (_ALTERNATIVE | _COLON | _PART_ENDS | _STOP)
)
# Kinds of phrases between an adjective and the finding that it describes: "is probable mild left effusion".
_DESCRIBING_KINDS = kind_bits(PhraseKind.SEVERITY, PhraseKind.SIDE, PhraseKind.MODIFIER, PhraseKind.CONTINUING)
_MAX_ADJECTIVES = 5
_NEEDING_KINDS = (PhraseKind.ONLY_ABSENT, PhraseKind.WITH_PLACE)


class AssertedFinding:
    """A finding in a sentence with its assertion.

    Attributes:
        name: the finding; None for a statement of a normal study and for disease outside the vocabulary.
        kind: the kind of phrase that named it; ``STRUCTURE`` where a statement about a body part implies it.
        words: the words that named it.
        assertion: ``PRESENT``, ``ABSENT``, ``UNCERTAIN`` or ``PAST``.
        cue: the words that decided the assertion; None where the plain mention did.
        side: ``"left"``, ``"right"``, ``"bilateral"`` or None.
        severity: ``"trace"``, ``"mild"``, ``"moderate"``, ``"severe"`` or None.
        joined: what joins it to the finding before: ``COMMA``, ``CONJUNCTION`` or None.
        final: whether no later cue may change the assertion.
        former: whether a word such as "prior" made it past; it is present if the sentence says that it is still there.
        dropped: whether it does not count after all.
        part: the part of the clause that it is in.
        rule: the name of the rule that decided the assertion; None where the plain mention did.
    """

    __slots__ = (
        *("assertion", "cue", "dropped", "final", "former", "joined", "kind", "name"),
        *("part", "rule", "severity", "side", "words"),
    )

    def __init__(self, name: str | None, kind: PhraseKind, words: WordSpan, part: Part, joined: str | None) -> None:
        self.name, self.kind, self.words, self.part, self.joined = name, kind, words, part, joined
        self.assertion = PRESENT
        self.cue: WordSpan | None = None
        self.side: str | None = None
        self.severity: str | None = None
        self.final = self.former = self.dropped = False
        self.rule: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the words name the finding in this assertion, and with a body part where they need one."""
        if self.kind == PhraseKind.ONLY_ABSENT:
            return self.assertion == ABSENT
        return self.kind != PhraseKind.WITH_PLACE

    def decide(self, assertion: str, cue: WordSpan | None, rule: str) -> None:
        """Set the assertion, the words that decided it, and the rule that said so."""
        self.assertion, self.cue, self.rule = assertion, cue, rule


class Phrase:
    """A phrase of a sentence, and how it stands to the findings before it.

    Attributes:
        meanings: kinds and values; a cue that may look back or ahead has the kind of the direction in which it looks.
        kinds: the kinds of the meanings, as bits.
        start: the first word.
        end: one past the last word.
        join: what joins the phrase to the finding before: ``COMMA``, ``CONJUNCTION`` or None.
        verb_end: where the last verb before the phrase ended; ``NOWHERE`` if there is none.
        last: the last finding before it in its clause, or None.
        part: its part of the clause.
        findings: the findings that it names.
        statements: the statements about body parts that it completes, each with the findings that are implied.
    """

    __slots__ = ("end", "findings", "join", "kinds", "last", "meanings", "part", "start", "statements", "verb_end")

    def __init__(
        self,
        match: PhraseMatch,
        kinds: int,
        join: str | None,
        verb_end: int,
        last: AssertedFinding | None,
        part: Part,
    ) -> None:
        self.meanings: list[Meaning]
        self.meanings, self.start, self.end = match
        self.kinds, self.join, self.verb_end, self.last, self.part = kinds, join, verb_end, last, part
        self.findings: Sequence[AssertedFinding] = ()
        self.statements: Sequence[tuple[StructureStatement, list[AssertedFinding]]] = ()

    @property
    def words(self) -> WordSpan:
        """First word and one past the last."""
        return self.start, self.end

    @property
    def follows_finding(self) -> bool:
        """Whether its part of the clause names a finding before it."""
        return self.last is not None and self.last.part is self.part

    def has(self, kind: PhraseKind) -> bool:
        """Whether the phrase has a meaning of a kind."""
        return self.kinds >> kind & 1 == 1


class Part:
    """A part of a clause: phrases ``first`` up to the comma, "and" or end of the clause at phrase ``stop``.

    ``unused`` is a scope that is open at the end of the part and has named no finding.
    """

    __slots__ = ("first", "stop", "unused")

    def __init__(self, first: int) -> None:
        self.first, self.stop = first, NOWHERE
        self.unused: Scope | None = None


NO_PART = Part(NOWHERE)


class Clause:
    """Phrases up to a word that ends the clause: its parts, the findings that they name, and the kinds of its phrases."""

    __slots__ = ("findings", "has_statements", "kinds", "parts")

    def __init__(self, first: int) -> None:
        self.parts = [Part(first)]
        self.findings: list[AssertedFinding] = []
        self.kinds = 0
        self.has_statements = False

    def absorb(self, other: Clause) -> None:
        """Take the parts and findings of the clause that follows."""
        self.parts += other.parts
        if other.findings and other.findings[0].joined is None:
            other.findings[0].joined = COMMA
        self.findings += other.findings
        self.kinds |= other.kinds
        self.has_statements = self.has_statements or other.has_statements
        other.parts, other.findings = [], []


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

    def __init__(self, matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary) -> None:
        self.matches, self.words, self.vocabulary = matches, words, vocabulary
        self._look_ahead: LookAhead | None = None
        self.phrases: list[Phrase] = []
        self.scopes: list[Scope] = []
        self.understood = False
        self.last_finding: AssertedFinding | None = None
        self.clauses = [Clause(0)]
        self._structures = StructureTracker()
        self._join: str | None = None
        self._verb_end = NOWHERE
        clause = self.clauses[0]
        part, last = clause.parts[0], None
        for index, match in enumerate(matches):
            kinds = match[0].kinds or kinds_of(match[0])
            phrase = Phrase(match, kinds, self._join, self._verb_end, last, part)
            self.phrases.append(phrase)
            if kinds & _READ_KINDS:
                self._read(index, phrase)
                clause = self.clauses[-1]
                part, last = clause.parts[-1], clause.findings[-1] if clause.findings else None
            else:
                clause.kinds |= kinds
        self.last_join = self._join
        self.clauses[-1].parts[-1].stop = len(matches)
        self.predicate = self._structures.predicate

    @property
    def look_ahead(self) -> LookAhead:
        """What follows a phrase."""
        if self._look_ahead is None:
            self._look_ahead = LookAhead(self.matches)
        return self._look_ahead

    def _read(self, index: int, phrase: Phrase) -> None:
        """Read the phrase at ``index``: name its findings, and note what it joins, ends or completes."""
        clause = self.clauses[-1]
        kinds = phrase.kinds
        if kinds & _TURNING_KINDS:
            turned = [(self._turned(index, phrase, kind), value) for kind, value in phrase.meanings]
            if turned != phrase.meanings:
                phrase.meanings = turned
                kinds = phrase.kinds = kind_bits(*(kind for kind, _ in turned))
        clause.kinds |= kinds
        if kinds & (NAMING_KINDS | _STRUCTURE_KINDS):
            self._read_names(phrase)
        if kinds & (LOOKING_BACK_KINDS | VERB_KINDS):
            self._join = None
            if kinds & VERB_KINDS:
                self._verb_end = phrase.end
                self._structures.verb_seen = True
        if kinds & _ALTERNATIVE:
            self._join = CONJUNCTION
        if kinds & _COLON and phrase.start:
            self._structures.predicate = None
        if kinds & _PART_ENDS:
            self._end_part(index, phrase)
        if kinds & _STOP:
            self._end_clause(index)

    def _read_names(self, phrase: Phrase) -> None:
        """Name what a phrase stands for: findings, and those that its statements about body parts imply."""
        for kind, value in phrase.meanings:
            if kind == PhraseKind.STRUCTURE:
                self._complete_place(value)
                after_conjunction = self._join == CONJUNCTION
                for statement in self._structures.add_structure(value, phrase.words, after_conjunction):
                    self._imply(phrase, statement)
            elif kind == PhraseKind.PREDICATE:
                if self._structures.comma_seen and self._is_apposition(len(self.phrases) - 1):
                    self._structures.comma_seen = False
                for statement in self._structures.add_predicate(value, phrase.words):
                    self._imply(phrase, statement)
            elif NAMING_KINDS >> kind & 1:
                self._name(phrase, value, kind)

    def _complete_place(self, structure: int) -> None:
        """Let a finding such as "fluid" before its body part count: "fluid may be present in the left pleural space"."""
        clause = self.clauses[-1]
        for finding in reversed(clause.findings):
            if finding.part is not clause.parts[-1] or finding.kind not in _NEEDING_KINDS:
                break
            implied = self.vocabulary.structures[structure].values()
            if finding.kind == PhraseKind.WITH_PLACE and any(finding.name in states for states in implied):
                finding.kind = PhraseKind.TERM

    def _name(self, phrase: Phrase, name: str | None, kind: PhraseKind) -> None:
        clause = self.clauses[-1]
        # A finding with a verb of its own is a complete statement, which nothing joins to the next.
        is_complete = not clause.findings or clause.findings[-1].words[1] <= self._verb_end
        finding = AssertedFinding(name, kind, phrase.words, clause.parts[-1], None if is_complete else self._join)
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
            finding = AssertedFinding(name, PhraseKind.STRUCTURE, words, clause.parts[-1], None)
            finding.decide(assertion, second, "structure")
            finding.final = True
            findings.append(finding)
        clause.findings += findings
        clause.has_statements = True
        phrase.statements = [*phrase.statements, (statement, findings)]

    def _end_part(self, index: int, phrase: Phrase) -> None:
        parts = self.clauses[-1].parts
        parts[-1].stop = index
        parts.append(Part(index + 1))
        if phrase.has(PhraseKind.COMMA):
            self._join = self._join or COMMA
            self._structures.comma_seen = True
        else:
            self._join = CONJUNCTION

    def _end_clause(self, index: int) -> None:
        self.clauses[-1].parts[-1].stop = index
        self.clauses.append(Clause(index + 1))
        self._join = None
        self._structures.predicate = None
        self._structures.comma_seen = True

    def _turned(self, index: int, phrase: Phrase, kind: PhraseKind) -> PhraseKind:
        """The kind of a cue that may look back or ahead at phrase ``index``, where it stands."""
        if kind == PhraseKind.NEGATION_BOTH:
            looks_back = phrase.follows_finding
        elif kind == PhraseKind.NEGATION_AFTER:  # "not found: effusion, pneumothorax"
            looks_back = phrase.last is not None or not self._colon_follows(index)
        elif kind == PhraseKind.UNCERTAINTY_AFTER:
            looks_back = not self._describes_next(index)
        else:
            return kind
        return _TURNED[kind] if looks_back == (kind == PhraseKind.NEGATION_BOTH) else kind

    def _colon_follows(self, index: int) -> bool:
        """Whether a colon follows phrase ``index`` without a word between."""
        if index + 1 >= len(self.matches) or self.matches[index + 1][1] != self.matches[index][2]:
            return False
        return kinds_of(self.matches[index + 1][0]) & _COLON != 0

    def _describes_next(self, index: int) -> bool:
        """Whether phrase ``index`` stands before a finding as an adjective: "is probable left atelectasis"."""
        end = self.matches[index][2]
        for meanings, start, next_end in self.matches[index + 1 : index + 1 + _MAX_ADJECTIVES]:
            if start - end > 1 or (start > end and self.words[end] in self.vocabulary.words["prepositions"]):
                return False
            kinds = kinds_of(meanings)
            if kinds >> PhraseKind.TERM & 1:
                return True
            if not kinds & _DESCRIBING_KINDS:
                return False
            end = next_end
        return False

    def _is_apposition(self, index: int) -> bool:
        """Whether the predicate at phrase ``index`` speaks of the body part before its comma: "lymph nodes, not enlarged"."""
        phrases = self.phrases
        if (
            index < 2
            or not phrases[index - 1].has(PhraseKind.COMMA)
            or not phrases[index - 2].has(PhraseKind.STRUCTURE)
        ):
            return False
        if phrases[index - 2].end != phrases[index - 1].start or phrases[index - 1].end != phrases[index].start:
            return False
        for meanings, _, _ in self.matches[index + 1 :]:
            kinds = kinds_of(meanings)
            if kinds & (_PART_ENDS | _STOP):
                break
            if kinds & (NAMING_KINDS | _STRUCTURE_KINDS):
                return False
        return True

    def join_at(self, index: int) -> str | None:
        """What joins phrase ``index``, or the end of the sentence, to the finding before."""
        if index >= len(self.phrases):
            return self.last_join
        return None if self.phrases[index].has(PhraseKind.STOP) else self.phrases[index].join

    def verb_follows(self, finding: AssertedFinding, index: int) -> bool:
        """Whether a verb stands between a finding and phrase ``index``."""
        verb_end = self.phrases[index].verb_end if index < len(self.phrases) else self._verb_end
        return finding.words[1] <= verb_end

    def start_of(self, index: int) -> int:
        """The first word of phrase ``index``, or the number of words behind the last one."""
        return self.phrases[index].start if index < len(self.phrases) else len(self.words)
