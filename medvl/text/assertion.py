"""Assertion status of the findings of one sentence: present, absent, uncertain or past, and the cue that decided it.

One pass reads the phrases that the vocabulary matched, from left to right, with one method for each kind of phrase:

1. A cue in front of findings ("no", "possible", "history of") opens a *scope*: the findings that follow get its
   assertion. (*Cues that open a scope.*)
2. A finding gets the assertion of the open scope, or is present. It remembers whether a comma or a conjunction joins it to
   the finding before. "a or b" outside a scope makes two different findings uncertain. (*Findings.*)
3. A cue behind findings ("is not seen", "is possible", "has resolved") decides the last finding of the clause, and those
   that commas and conjunctions join to it. (*Cues that look back.*)
4. A cue that ends its clause before any finding looks back instead: "pneumonia possible", "pneumothorax: no".
5. A scope ends at a word such as "but" and at a semicolon. At a comma or an "and" it ends if a statement of its own
   follows, which :class:`medvl.text.lookahead.LookAhead` decides; else it covers the list: "no effusion, edema or
   fracture". (*Boundaries.*)
6. A body part with a predicate ("heart size is normal") asserts the findings that the vocabulary lists for the pair, which
   :class:`medvl.text.structures.StructureTracker` finds. (*Body parts.*)
7. A side and a severity belong to the next finding of the clause, or to the last one where the clause ends: "edema is
   mild". (*Attributes.*)

Positions are indices of words (:data:`medvl.text.structures.WordSpan`). To add a kind of cue, add it to
:class:`medvl.text.vocabulary.PhraseKind` and give it a handler in ``_HANDLER_OF_KIND``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from medvl.text.lookahead import LookAhead
from medvl.text.phrases import PhraseMatch
from medvl.text.structures import StructureStatement, StructureTracker, WordSpan
from medvl.text.vocabulary import PhraseKind, Vocabulary

PRESENT, ABSENT, UNCERTAIN, PAST = "present", "absent", "uncertain", "past"
_COMMA, _CONJUNCTION = "comma", "conjunction"
_NOWHERE = -1


class AssertedFinding:
    """A finding in a sentence with its assertion.

    Attributes:
        name: the finding; None for a statement of a normal study and for disease outside the vocabulary.
        kind: the kind of phrase that named it.
        words: the words that named it.
        assertion: ``PRESENT``, ``ABSENT``, ``UNCERTAIN`` or ``PAST``.
        cue: the words that decided the assertion; None where the plain mention did.
        side: ``"left"``, ``"right"``, ``"bilateral"`` or None.
        severity: ``"trace"``, ``"mild"``, ``"moderate"``, ``"severe"`` or None.
        joined: what joins it to the finding before: ``"comma"``, ``"conjunction"`` or None.
        final: whether no later cue may change the assertion.
    """

    __slots__ = ("assertion", "cue", "final", "joined", "kind", "name", "severity", "side", "words")

    def __init__(
        self, name: str | None, kind: PhraseKind, words: WordSpan, assertion: str, cue: WordSpan | None
    ) -> None:
        self.name, self.kind, self.words, self.assertion, self.cue = name, kind, words, assertion, cue
        self.side: str | None = None
        self.severity: str | None = None
        self.joined: str | None = None
        self.final = False


def classify_assertions(matches: list[PhraseMatch], num_words: int, vocabulary: Vocabulary) -> list[AssertedFinding]:
    """Find the assertion of every finding of one sentence.

    Args:
        matches: phrases of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.match` returns them.
        num_words: number of words of the sentence.
        vocabulary: the vocabulary of the phrases.

    Returns:
        The findings in the order of the sentence.
    """
    return _SentenceReader(matches, num_words, vocabulary).read() if matches else []


class _SentenceReader:
    """The state of one pass over a sentence."""

    __slots__ = (  # a report has many sentences
        "_look_ahead",
        "alternative",
        "clause_start",
        "colon_end",
        "comma_end",
        "cue",
        "cue_after_comma",
        "findings",
        "matches",
        "next_joined",
        "next_severity",
        "next_side",
        "num_words",
        "part_start",
        "scope",
        "scope_is_former",
        "scope_used",
        "statement_closed",
        "structures",
        "verb_end",
        "vocabulary",
    )

    def __init__(self, matches: list[PhraseMatch], num_words: int, vocabulary: Vocabulary) -> None:
        self.matches, self.num_words, self.vocabulary = matches, num_words, vocabulary
        self.findings: list[AssertedFinding] = []
        self.structures = StructureTracker()
        self._look_ahead: LookAhead | None = None
        # The open scope: its assertion, its cue, whether a finding was in it, whether it is that of a word like "prior".
        self.scope: str | None = None
        self.cue: WordSpan | None = None
        self.scope_used = self.scope_is_former = False
        # Whether the last finding has had a verb or a cue behind it, so that its statement may be complete.
        self.statement_closed = False
        # Indices into ``findings`` where the clause, and its part since the last comma or "and", begin.
        self.clause_start = self.part_start = 0
        # Where the last colon, comma and verb ended; where a cue right after a comma began.
        self.colon_end = self.comma_end = self.verb_end = self.cue_after_comma = _NOWHERE
        # What the next finding gets: how it is joined, an "or" before it, its side and severity.
        self.next_joined: str | None = None
        self.alternative: WordSpan | None = None
        self.next_side: str | None = None
        self.next_severity: str | None = None

    def read(self) -> list[AssertedFinding]:
        handlers = _HANDLERS
        for index, (meanings, start, end) in enumerate(self.matches):
            for kind, value in meanings:
                handler = handlers[kind]
                if handler is not None:
                    handler(self, index, (start, end), value)
        self._look_back_with_unused_cue(len(self.matches))
        self._describe_last_finding()
        return self.findings

    @property
    def look_ahead(self) -> LookAhead:
        """The look-ahead of the sentence, made when it is first asked."""
        if self._look_ahead is None:
            self._look_ahead = LookAhead(self.matches)
        return self._look_ahead

    def _last_finding(self, since: int) -> AssertedFinding | None:
        """The last finding, if its index is at least ``since``."""
        return self.findings[-1] if len(self.findings) > since else None

    # Cues that open a scope.

    def _open_scope(self, assertion: str, cue: WordSpan) -> None:
        self.scope, self.cue, self.scope_used, self.statement_closed = assertion, cue, False, False

    def _close_scope(self) -> None:
        self.scope = self.cue = None

    def _on_negation(self, index: int, words: WordSpan, value: Any) -> None:
        continues_cue = (
            self.scope == ABSENT and not self.scope_used and self.cue is not None and self.cue[1] == words[0]
        )
        if not continues_cue:
            self._open_scope(ABSENT, words)
        self.alternative = None

    def _on_uncertainty(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope == ABSENT and not (self.scope_used and self.statement_closed):
            return  # "no definite effusion" stays absent
        self._open_scope(UNCERTAIN, words)

    def _on_versus(self, index: int, words: WordSpan, value: Any) -> None:
        """``a versus b`` leaves both open, whatever b is."""
        last = self._last_finding(self.clause_start)
        if last is not None and last.assertion == PRESENT and not last.final:
            last.assertion, last.cue = UNCERTAIN, words
        self._on_uncertainty(index, words, value)

    def _on_history(self, index: int, words: WordSpan, value: Any) -> None:
        self._open_scope(PAST, words)
        self.scope_is_former = False

    def _on_former(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope == ABSENT and not self.scope_used:
            return  # "no prior effusion" stays absent
        self._open_scope(PAST, words)
        self.scope_is_former = True

    def _on_negation_both(self, index: int, words: WordSpan, value: Any) -> None:
        if len(self.findings) > self.part_start:
            self._look_back(ABSENT, words)
        else:
            self._open_scope(ABSENT, words)
            self.cue_after_comma = words[0] if words[0] == self.comma_end else _NOWHERE

    # Cues that look back.

    def _on_negation_after(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back(ABSENT, words)

    def _on_uncertainty_after(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back(UNCERTAIN, words)

    def _on_history_after(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back(PAST, words)

    def _look_back(self, assertion: str, cue: WordSpan) -> None:
        """Decide the last finding of the clause, and those that a conjunction, or commas of such a list, join to it."""
        in_list = self.next_joined == _CONJUNCTION
        for position in range(len(self.findings) - 1, self.clause_start - 1, -1):
            finding = self.findings[position]
            if finding.kind == PhraseKind.STRUCTURE:
                continue
            if finding.final:
                break
            finding.final = True
            if not (assertion == ABSENT and finding.assertion == ABSENT):
                finding.assertion, finding.cue = assertion, cue
            in_list = in_list or finding.joined == _CONJUNCTION
            if finding.joined is None or (finding.joined == _COMMA and not in_list):
                break
        self.next_joined = None
        self.statement_closed = True

    def _look_back_with_unused_cue(self, index: int) -> None:
        """Where a clause ends at phrase ``index``, let a cue without a finding in its scope look back.

        An uncertain cue does ("pneumonia possible"), and a negation after a colon, a verb or a comma ("pneumothorax: no",
        "effusion is not", "edema, now resolved").
        """
        if self.cue is None or self.scope_used:
            return
        start, end = self.cue
        clause_end = self.matches[index][1] if index < len(self.matches) else self.num_words
        ends_clause = end == clause_end
        last = self._last_finding(self.clause_start)
        after_comma = ends_clause and start == self.cue_after_comma and last is not None and last.assertion == PRESENT
        if len(self.findings) == self.part_start and not after_comma:
            return
        answers = start == self.colon_end or (ends_clause and start == self.verb_end)
        denies = self.scope == ABSENT and (after_comma or answers)
        ends_last_phrase = end == self.matches[index - 1][2]
        if (self.scope == UNCERTAIN or denies) and ends_last_phrase:
            self._look_back(self.scope or ABSENT, self.cue)

    # Boundaries.

    def _on_stop(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back_with_unused_cue(index)
        self._close_scope()
        self.structures.predicate = None
        self.alternative = self.next_joined = None
        self._describe_last_finding()
        self.clause_start = self.part_start = len(self.findings)
        self.structures.comma_seen = True

    def _on_comma(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back_with_unused_cue(index)
        if self.scope is not None and self.scope_used and self._comma_closes_scope(index):
            self._close_scope()
        self._describe_last_finding()
        self.part_start = len(self.findings)
        self.next_joined = self.next_joined or _COMMA
        self.comma_end = words[1]
        self.alternative = None
        self.structures.comma_seen = True

    def _comma_closes_scope(self, index: int) -> bool:
        opener, structure_follows = self.look_ahead.next_statement(index)
        if structure_follows or opener == PhraseKind.CONTINUING:
            return True
        return (self.statement_closed or opener is not None) and not self.look_ahead.alternative_follows(index)

    def _on_colon(self, index: int, words: WordSpan, value: Any) -> None:
        opens_list = self.cue is not None and self.cue[1] == words[0] and len(self.findings) == self.part_start
        if not opens_list:
            self._close_scope()
        self._describe_last_finding()
        self.structures.predicate = None
        self.colon_end = words[1]

    def _on_linker(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope is not None and self.scope_used:
            opener, structure_follows = self.look_ahead.next_statement(index)
            if opener is not None or structure_follows or self.statement_closed:
                self._close_scope()
        shared_side = self.next_side if self._side_precedes(index, words) else None
        self._describe_last_finding()
        self.next_side = shared_side
        self.part_start = len(self.findings)
        self.next_joined = _CONJUNCTION
        self.alternative = None

    def _on_verb(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope_used:
            self.statement_closed = True
        self.verb_end = words[1]
        self.structures.verb_seen = True
        self.next_joined = self.alternative = None

    def _on_alternative(self, index: int, words: WordSpan, value: Any) -> None:
        self.next_joined = _CONJUNCTION
        self.next_side = None
        if self.scope is None:
            self.alternative = words

    # Findings.

    def _on_only_absent(self, index: int, words: WordSpan, value: str) -> None:
        self._on_term(index, words, value, PhraseKind.ONLY_ABSENT)

    def _on_normal_statement(self, index: int, words: WordSpan, value: None) -> None:
        self._on_term(index, words, value, PhraseKind.NORMAL_STATEMENT)

    def _on_disease(self, index: int, words: WordSpan, value: None) -> None:
        self._on_term(index, words, value, PhraseKind.DISEASE)

    def _on_blocker(self, index: int, words: WordSpan, value: None) -> None:
        self._on_term(index, words, value, PhraseKind.BLOCKER)

    def _on_term(self, index: int, words: WordSpan, value: str | None, kind: PhraseKind = PhraseKind.TERM) -> None:
        assertion, cue = self.scope or PRESENT, self.cue
        if assertion == PAST and self.scope_is_former and value in self.vocabulary.chronic:
            assertion, cue = PRESENT, None
        finding = AssertedFinding(value, kind, words, assertion, cue)
        last = self.findings[-1] if len(self.findings) > self.clause_start else None
        # A finding with a verb of its own is a complete statement, which nothing joins to the next.
        if last is not None and last.words[1] > self.verb_end:
            finding.joined = self.next_joined
        if assertion == PRESENT and self.alternative is not None:
            self._leave_alternatives_open(last, finding, self.alternative)
        finding.side, finding.severity = self.next_side, self.next_severity
        self.next_side = self.next_severity = self.next_joined = self.alternative = None
        self.structures.predicate = None
        self.scope_used, self.statement_closed = True, False
        self.findings.append(finding)

    @staticmethod
    def _leave_alternatives_open(first: AssertedFinding | None, second: AssertedFinding, cue: WordSpan) -> None:
        """``a or b`` makes two different findings uncertain; "atelectasis or scar" is atelectasis."""
        if first is None or first.name is None or second.name is None or first.name == second.name or first.final:
            return
        if first.assertion == PRESENT and first.kind == second.kind == PhraseKind.TERM:
            first.assertion = second.assertion = UNCERTAIN
            first.cue = second.cue = cue

    # Attributes.

    def _describe_last_finding(self) -> None:
        """Give a side and a severity that no finding followed to the last finding of the clause."""
        if self.next_side is None and self.next_severity is None:
            return
        last = self._last_finding(self.clause_start) if self.next_joined != _CONJUNCTION else None
        if last is not None and last.kind == PhraseKind.TERM:
            last.side = last.side or self.next_side
            last.severity = last.severity or self.next_severity
        self.next_side = self.next_severity = None

    def _side_precedes(self, index: int, words: WordSpan) -> bool:
        """Whether a side stands right before phrase ``index``: "right and left effusions"."""
        meanings, _, end = self.matches[index - 1] if index else ([], 0, _NOWHERE)
        return end == words[0] and any(kind == PhraseKind.SIDE for kind, _ in meanings)

    def _on_side(self, index: int, words: WordSpan, value: str) -> None:
        last = self._last_finding(self.part_start)
        if last is not None and last.side is None and last.words[1] <= words[0] and self.next_joined is None:
            last.side = value
        else:
            self.next_side = "bilateral" if self.next_side not in (None, value) else value

    def _on_severity(self, index: int, words: WordSpan, value: str) -> None:
        self.next_severity = value

    # Body parts.

    def _on_structure(self, index: int, words: WordSpan, value: int) -> None:
        for statement in self.structures.add_structure(value, words, self.next_joined == _CONJUNCTION):
            self._add_implied_findings(statement)

    def _on_predicate(self, index: int, words: WordSpan, value: str) -> None:
        for statement in self.structures.add_predicate(value, words):
            self._add_implied_findings(statement)

    def _add_implied_findings(self, statement: StructureStatement) -> None:
        """Add the findings that a statement about a body part implies, as far as the scope allows."""
        first, second = statement.structure_words, statement.predicate_words
        words = (min(first[0], second[0]), max(first[1], second[1]))
        implied = self.vocabulary.structures[statement.structure].get(statement.predicate, {})
        for name, assertion in implied.items():
            cue: WordSpan | None = second
            if self.scope == ABSENT:
                if assertion == ABSENT:
                    continue  # "not normal" does not say what it is
                assertion, cue = ABSENT, self.cue
            elif self.scope in (UNCERTAIN, PAST) and assertion != ABSENT:
                assertion, cue = self.scope or assertion, self.cue
            finding = AssertedFinding(name, PhraseKind.STRUCTURE, words, assertion, cue)
            finding.severity = self.next_severity if assertion != ABSENT else None
            finding.final = True
            self.findings.append(finding)
        if self.scope is not None:
            self.scope_used = True
        self.next_severity = None


_Handler: TypeAlias = Callable[[_SentenceReader, int, WordSpan, Any], None]
_HANDLER_OF_KIND: dict[PhraseKind, _Handler] = {
    PhraseKind.TERM: _SentenceReader._on_term,
    PhraseKind.ONLY_ABSENT: _SentenceReader._on_only_absent,
    PhraseKind.NORMAL_STATEMENT: _SentenceReader._on_normal_statement,
    PhraseKind.DISEASE: _SentenceReader._on_disease,
    PhraseKind.BLOCKER: _SentenceReader._on_blocker,
    PhraseKind.STRUCTURE: _SentenceReader._on_structure,
    PhraseKind.PREDICATE: _SentenceReader._on_predicate,
    PhraseKind.NEGATION: _SentenceReader._on_negation,
    PhraseKind.NEGATION_BOTH: _SentenceReader._on_negation_both,
    PhraseKind.NEGATION_AFTER: _SentenceReader._on_negation_after,
    PhraseKind.UNCERTAINTY: _SentenceReader._on_uncertainty,
    PhraseKind.UNCERTAINTY_AFTER: _SentenceReader._on_uncertainty_after,
    PhraseKind.HISTORY: _SentenceReader._on_history,
    PhraseKind.FORMER: _SentenceReader._on_former,
    PhraseKind.VERSUS: _SentenceReader._on_versus,
    PhraseKind.HISTORY_AFTER: _SentenceReader._on_history_after,
    PhraseKind.STOP: _SentenceReader._on_stop,
    PhraseKind.VERB: _SentenceReader._on_verb,
    PhraseKind.LINKER: _SentenceReader._on_linker,
    PhraseKind.ALTERNATIVE: _SentenceReader._on_alternative,
    PhraseKind.SEVERITY: _SentenceReader._on_severity,
    PhraseKind.SIDE: _SentenceReader._on_side,
    PhraseKind.COMMA: _SentenceReader._on_comma,
    PhraseKind.COLON: _SentenceReader._on_colon,
}
# The other kinds only hide the cues inside them (PSEUDO, IGNORE) or are looked ahead to (MODIFIER, CONTINUING).
_HANDLERS: list[_Handler | None] = [_HANDLER_OF_KIND.get(kind) for kind in PhraseKind]
