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
   A denied list goes on over semicolons if nothing but findings follows, and behind a colon.
6. "Small on the left" behind a denied finding is that finding, present. "The prior effusion is unchanged" is present too.
   (*Findings*, *Cues that open a scope*.)
7. A body part with a predicate ("heart size is normal") asserts the findings that the vocabulary lists for the pair, which
   :class:`medvl.text.structures.StructureTracker` finds. (*Body parts.*)
8. A side and a severity belong to the next finding of the clause, or to the last one where the clause ends: "edema is
   mild". (*Attributes.*)

Positions are indices of words (:data:`medvl.text.structures.WordSpan`). To add a kind of cue, add it to
:class:`medvl.text.vocabulary.PhraseKind` and give it a handler in ``_HANDLER_OF_KIND``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from medvl.text.lookahead import LookAhead
from medvl.text.phrases import PhraseMatch
from medvl.text.structures import StructureStatement, StructureTracker, WordSpan
from medvl.text.vocabulary import PhraseKind, Vocabulary

PRESENT, ABSENT, UNCERTAIN, PAST = "present", "absent", "uncertain", "past"
_COMMA, _CONJUNCTION = "comma", "conjunction"
_NOWHERE = -1
# A cue that ends in one of these names what follows it, and never looks back.
_FORWARD_WORDS = frozenset(["for", "of", "from", "with", "by", "about", "regarding", "that", "if", "whether", "as"])
_PREPOSITIONS = frozenset(
    ("in", "at", "on", "within", "over", "near", "along", "of", "for", "to", "from", "by", "with", "through")
)
# Words of a clause that names no finding of its own and goes on about the one before: "small on the left".
_ELLIPSIS_WORDS = frozenset(("on", "at", "in", "the", "a", "one", "side", "only", "still", "now"))
_ELLIPSIS_KINDS = frozenset(
    (
        PhraseKind.SEVERITY,
        PhraseKind.SIDE,
        PhraseKind.PERSISTENCE,
        PhraseKind.VERB,
        PhraseKind.CONTINUING,
    )
)
# Words that open an exception to what is denied before: "no consolidation except at the left base".
_EXCEPTION_WORDS = frozenset(("except", "excepting", "besides", "other", "aside", "apart"))
# Kinds of phrases that may follow the last cue of a clause: "is likely small".
_DESCRIPTION_KINDS = frozenset((PhraseKind.SEVERITY, PhraseKind.SIDE, PhraseKind.NEUTRAL))
# Kinds of phrases between an adjective and the finding that it describes: "is probable mild left effusion".
_DESCRIBING_KINDS = frozenset((PhraseKind.SEVERITY, PhraseKind.SIDE, PhraseKind.MODIFIER, PhraseKind.CONTINUING))


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
        former: whether a word such as "prior" made it past; it is present if the sentence says that it is still there.
    """

    __slots__ = ("assertion", "cue", "final", "former", "joined", "kind", "name", "severity", "side", "words")

    def __init__(
        self, name: str | None, kind: PhraseKind, words: WordSpan, assertion: str, cue: WordSpan | None
    ) -> None:
        self.name, self.kind, self.words, self.assertion, self.cue = name, kind, words, assertion, cue
        self.side: str | None = None
        self.severity: str | None = None
        self.joined: str | None = None
        self.final = self.former = False


class SentenceReading(NamedTuple):
    """What a sentence says.

    Attributes:
        findings: the findings in the order of the sentence.
        list_scope: the assertion that a sentence such as "No evidence of:" gives to the list behind it, or None.
        understood: whether the sentence says something about a finding or a body part, or is known to be neutral.
    """

    findings: list[AssertedFinding]
    list_scope: str | None
    understood: bool


_NOT_UNDERSTOOD, _WITHOUT_WORDS = SentenceReading([], None, False), SentenceReading([], None, True)


def classify_assertions(
    matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, scope: str | None = None
) -> SentenceReading:
    """Find the assertion of every finding of one sentence.

    Args:
        matches: phrases of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.match` returns them.
        words: words of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.normalize_words` returns them.
        vocabulary: the vocabulary of the phrases.
        scope: the assertion of an item of a list that a sentence before opened; None otherwise.

    Returns:
        The findings, and what the next sentences need to know.
    """
    if not matches:
        return _NOT_UNDERSTOOD if len(words) > 1 else _WITHOUT_WORDS
    reader = _SentenceReader(matches, words, vocabulary, scope)
    findings = reader.read()
    opens_list = reader.cue is not None and not reader.scope_used and matches[-1][0][0][0] == PhraseKind.COLON
    return SentenceReading(findings, reader.scope if opens_list else None, reader.understood or bool(findings))


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
        "in_list",
        "matches",
        "next_joined",
        "next_severity",
        "next_side",
        "part_first",
        "part_start",
        "scope",
        "scope_is_former",
        "scope_used",
        "statement_closed",
        "structures",
        "understood",
        "verb_end",
        "vocabulary",
        "words",
    )

    def __init__(
        self, matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, scope: str | None
    ) -> None:
        self.matches, self.words, self.vocabulary = matches, words, vocabulary
        self.findings: list[AssertedFinding] = []
        self.structures = StructureTracker()
        self._look_ahead: LookAhead | None = None
        # The open scope: its assertion, its cue, whether a finding was in it, whether it is that of a word like "prior".
        self.scope: str | None = scope
        self.cue: WordSpan | None = None
        self.scope_used = self.scope_is_former = False
        # Whether the last finding has had a verb or a cue behind it, so that its statement may be complete.
        self.statement_closed = False
        # Indices into ``findings`` where the clause, and its part since the last comma or "and", begin.
        self.clause_start = self.part_start = 0
        # Index into ``matches`` where that part begins.
        self.part_first = 0
        # Whether a denied list goes on over semicolons.
        self.in_list = False
        # Whether something but a finding says what the sentence is about.
        self.understood = False
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
        self._end_part(len(self.matches))
        self._describe_last_finding()
        if not self.findings:
            self._add_bare_normal_statement()
        return self.findings

    def _end_part(self, index: int) -> None:
        """End a clause, or its part before a comma or "and", at phrase ``index``."""
        self._look_back_with_unused_cue(index)
        if self.next_side is not None and self.findings and len(self.findings) == self.part_start:
            self._complete_ellipsis(index)

    def _start_of(self, index: int) -> int:
        """The first word of phrase ``index``, or the number of words behind the last one."""
        return self.matches[index][1] if index < len(self.matches) else len(self.words)

    def _is_next(self, index: int, kind: PhraseKind) -> bool:
        """Whether a phrase of a kind follows phrase ``index`` without a word between."""
        if index + 1 >= len(self.matches) or self.matches[index + 1][1] != self.matches[index][2]:
            return False
        return any(other == kind for other, _ in self.matches[index + 1][0])

    def _describes_next(self, index: int) -> bool:
        """Whether phrase ``index`` stands before a finding as an adjective: "is probable left atelectasis"."""
        end = self.matches[index][2]
        for meanings, start, next_end in self.matches[index + 1 : index + 6]:
            if start - end > 1 or (start > end and self.words[end] in _PREPOSITIONS):
                return False
            kinds = {kind for kind, _ in meanings}
            if PhraseKind.TERM in kinds:
                return True
            if kinds.isdisjoint(_DESCRIBING_KINDS):
                return False
            end = next_end
        return False

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

    def _on_persistence(self, index: int, words: WordSpan, value: Any) -> None:
        """A finding of the past that "has not changed" is still there."""
        last = self._last_finding(self.clause_start)
        if last is not None and last.former and last.assertion == PAST and not last.final:
            last.assertion, last.cue = PRESENT, None
        self._on_verb(index, words, value)

    def _on_neutral(self, index: int, words: WordSpan, value: Any) -> None:
        self.understood = True

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
        if len(self.findings) == self.clause_start and self._is_next(index, PhraseKind.COLON):
            self._open_scope(ABSENT, words)  # "not found: effusion, pneumothorax"
        else:
            self._look_back(ABSENT, words)

    def _on_uncertainty_after(self, index: int, words: WordSpan, value: Any) -> None:
        if self._describes_next(index):
            self._on_uncertainty(index, words, value)
        else:
            self._look_back(UNCERTAIN, words)

    def _on_history_after(self, index: int, words: WordSpan, value: Any) -> None:
        self._look_back(PAST, words)

    def _look_back(self, assertion: str, cue: WordSpan) -> None:
        """Decide the last finding of the clause, and those that a conjunction, or commas of such a list, join to it."""
        in_list = self.next_joined == _CONJUNCTION
        for position in range(len(self.findings) - 1, self.clause_start - 1, -1):
            finding = self.findings[position]
            if finding.kind == PhraseKind.STRUCTURE:
                if assertion == UNCERTAIN and finding.assertion == PRESENT and finding.words[1] <= self.verb_end:
                    finding.assertion, finding.cue = assertion, cue
                continue
            if finding.final:
                break
            finding.final = True
            if not (assertion == ABSENT and finding.assertion == ABSENT):
                finding.assertion, finding.cue = assertion, cue
            if position and self.findings[position - 1].words == finding.words:
                continue  # another meaning of the same words
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
        clause_end = self._start_of(index)
        ends_clause = end == clause_end
        last = self._last_finding(self.clause_start)
        after_comma = ends_clause and start == self.cue_after_comma and last is not None and last.assertion == PRESENT
        if len(self.findings) == self.part_start and not after_comma:
            return
        answers = start == self.colon_end or (ends_clause and start == self.verb_end)
        denies = self.scope == ABSENT and (after_comma or answers)
        ends_last_phrase = end == self.matches[index - 1][2]
        if (self.scope == UNCERTAIN and self._may_look_back(end, index)) or (denies and ends_last_phrase):
            self._look_back(self.scope or ABSENT, self.cue)

    def _may_look_back(self, end: int, index: int) -> bool:
        """Whether an uncertain cue that ends at word ``end`` closes its clause, save for a place: "possible on the left"."""
        if self.words[end - 1] in _FORWARD_WORDS:
            return False
        last = index - 1
        while self.matches[last][0][0][0] in _DESCRIPTION_KINDS:
            last -= 1
        if end == self.matches[last][2]:
            return True
        return end < len(self.words) and self.words[end] in _PREPOSITIONS

    # Boundaries.

    def _on_stop(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope == ABSENT and self._list_goes_on(index, words):
            self._on_list_mark(index)
            return
        is_cause = self.scope == UNCERTAIN and not self.scope_used and self.cue is not None and self.cue[1] == words[0]
        if not (is_cause and self.words[words[1] - 1] == "to"):  # "possibly due to edema"
            self._end_part(index)
            self._close_scope()
        self.structures.predicate = None
        self.alternative = self.next_joined = None
        self._describe_last_finding()
        self.clause_start = self.part_start = len(self.findings)
        self.part_first = index + 1
        self.in_list = False
        self.structures.comma_seen = True

    def _list_goes_on(self, index: int, words: WordSpan) -> bool:
        """Whether a denied list goes on over a semicolon: nothing but findings follows, or a colon opened the list."""
        if self.words[words[0]] != ";" or not self.scope_used:
            return False
        needed = 1 if self.in_list else 2
        self.in_list = self.look_ahead.bare_items(index, needed) == needed
        return self.in_list

    def _on_list_mark(self, index: int) -> None:
        self._describe_last_finding()
        self.part_start, self.part_first = len(self.findings), index + 1
        self.next_joined = self.next_joined or _COMMA
        self.alternative = None

    def _on_comma(self, index: int, words: WordSpan, value: Any) -> None:
        self._end_part(index)
        if self.scope is not None and (self._comma_closes_scope(index) if self.scope_used else self.scope_is_former):
            self._close_scope()
        self._on_list_mark(index)
        self.comma_end = words[1]
        self.structures.comma_seen = True

    def _comma_closes_scope(self, index: int) -> bool:
        opener, structure_follows = self.look_ahead.next_statement(index)
        if structure_follows or opener == PhraseKind.CONTINUING:
            return True
        return (self.statement_closed or opener is not None) and not self.look_ahead.alternative_follows(index)

    def _on_colon(self, index: int, words: WordSpan, value: Any) -> None:
        if words[0] == 0:
            return  # the mark of a list item
        last_start, last_end = self.matches[index - 1][1:] if index else (0, 0)
        opens_list = (
            self.cue is not None
            and len(self.findings) == self.part_start
            and (self.cue[1] == words[0] or (self.cue[1] == last_start and last_end == words[0]))  # "the following:"
        )
        if not opens_list:
            self._close_scope()
        self.in_list = opens_list
        self._describe_last_finding()
        self.structures.predicate = None
        self.colon_end = words[1]

    def _on_linker(self, index: int, words: WordSpan, value: Any) -> None:
        if self.scope is not None and self.scope_used:
            opener, structure_follows = self.look_ahead.next_statement(index)
            if opener is not None or structure_follows or self.statement_closed:
                self._close_scope()
        if self.scope == PAST and self.scope_is_former and self.words[words[0]] in ("with", "w"):
            self._close_scope()  # "status post biopsy with pneumothorax"
        shared_side = self.next_side if self._side_precedes(index, words) else None
        if shared_side is None and self.next_side is not None and self.findings:
            self._end_part(index)
        self._describe_last_finding()
        self.next_side = shared_side
        self.part_start, self.part_first = len(self.findings), index + 1
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
        is_chronic = kind == PhraseKind.BLOCKER or value in self.vocabulary.chronic
        if assertion == PAST and self.scope_is_former and is_chronic:
            assertion, cue = PRESENT, None
        finding = AssertedFinding(value, kind, words, assertion, cue)
        finding.former = assertion == PAST and self.scope_is_former
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

    def _complete_ellipsis(self, index: int) -> None:
        """Add the finding that a part such as "small on the left" or "left persists" leaves out, after a denied one."""
        last = self.findings[-1]
        if last.assertion != ABSENT or last.kind != PhraseKind.TERM or last.side == self.next_side:
            return
        place = self._start_of(self.part_first)
        is_exception = self.part_first > 0 and self.words[self.matches[self.part_first - 1][1]] in _EXCEPTION_WORDS
        says_present = is_exception or self.next_severity is not None
        for meanings, start, end in self.matches[self.part_first : index]:
            kinds = {kind for kind, _ in meanings}
            goes_on = not kinds.isdisjoint(_ELLIPSIS_KINDS) or (is_exception and PhraseKind.MODIFIER in kinds)
            if not goes_on or not _ELLIPSIS_WORDS.issuperset(self.words[place:start]):
                return
            says_present = says_present or PhraseKind.PERSISTENCE in kinds
            place = end
        if says_present and _ELLIPSIS_WORDS.issuperset(self.words[place : self._start_of(index)]):
            finding = AssertedFinding(last.name, last.kind, (self._start_of(self.part_first), place), PRESENT, None)
            finding.side, finding.severity = self.next_side, self.next_severity
            self.next_side = self.next_severity = None
            self.findings.append(finding)

    def _add_bare_normal_statement(self) -> None:
        """A sentence of nothing but "normal" calls the study normal."""
        predicate = self.structures.predicate
        if predicate is not None and predicate[0] == "normal" and predicate[1] == (0, len(self.words)):
            self.findings.append(AssertedFinding(None, PhraseKind.NORMAL_STATEMENT, predicate[1], PRESENT, None))

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
        implied = self.vocabulary.structures[statement.structure].get(statement.predicate)
        if implied is None:
            return
        self.understood = self.understood or self.scope is None
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
            self.statement_closed = self.statement_closed or first < second
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
    PhraseKind.PERSISTENCE: _SentenceReader._on_persistence,
    PhraseKind.NEUTRAL: _SentenceReader._on_neutral,
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
