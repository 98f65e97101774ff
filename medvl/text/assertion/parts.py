"""What a clause consists of: phrases, parts between commas, and the findings that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvl.text.phrase_kinds import ONLY_ABSENT, WITH_PLACE, Kind, Meaning
from medvl.text.phrases import Meanings
from medvl.text.structures import StructureStatement, WordSpan

if TYPE_CHECKING:
    from medvl.text.assertion.scopes import Scope

PRESENT, ABSENT, UNCERTAIN, PAST = "present", "absent", "uncertain", "past"
BY_COMMA, BY_CONJUNCTION = "comma", "conjunction"
NOWHERE = -1


def counts(kind: Kind, assertion: str) -> bool:
    """Whether a phrase of a kind names its finding in an assertion, and with a body part where it needs one."""
    return assertion == ABSENT if kind == ONLY_ABSENT else kind != WITH_PLACE


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
        joined: what joins it to the finding before: ``BY_COMMA``, ``BY_CONJUNCTION`` or None.
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

    def __init__(self, name: str | None, kind: Kind, words: WordSpan, part: Part, joined: str | None) -> None:
        self.name, self.kind, self.words, self.part, self.joined = name, kind, words, part, joined
        self.assertion = PRESENT
        self.cue: WordSpan | None = None
        self.side: str | None = None
        self.severity: str | None = None
        self.final = self.former = self.dropped = False
        self.rule: str | None = None

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
        join: what joins the phrase to the finding before: ``BY_COMMA``, ``BY_CONJUNCTION`` or None.
        verb_end: where the last verb before the phrase ended; ``NOWHERE`` if there is none.
        last: the last finding before it in its clause, or None.
        part: its part of the clause.
        findings: the findings that it names.
        statements: the statements about body parts that it completes, each with the findings that are implied.
    """

    __slots__ = ("end", "findings", "join", "kinds", "last", "meanings", "part", "start", "statements", "verb_end")

    def __init__(
        self,
        meanings: Meanings,
        start: int,
        end: int,
        kinds: int,
        join: str | None,
        verb_end: int,
        last: AssertedFinding | None,
        part: Part,
    ) -> None:
        self.meanings: Sequence[Meaning] = meanings
        self.start, self.end = start, end
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

    __slots__ = ("findings", "has_statements", "is_described", "kinds", "parts")

    def __init__(self, first: int) -> None:
        self.parts = [Part(first)]
        self.findings: list[AssertedFinding] = []
        self.kinds = 0
        self.has_statements = self.is_described = False

    def absorb(self, other: Clause) -> None:
        """Take the parts and findings of the clause that follows."""
        self.parts += other.parts
        if other.findings and other.findings[0].joined is None:
            other.findings[0].joined = BY_COMMA
        self.findings += other.findings
        self.kinds |= other.kinds
        self.has_statements = self.has_statements or other.has_statements
        other.parts, other.findings = [], []
