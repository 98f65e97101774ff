"""Assertion of the findings of one sentence: present, absent, uncertain or past, and the cue that decided it.

1. :class:`~medvl.text.assertion.clauses.Sentence` groups the phrases that the vocabulary matched into clauses, and names what
   they speak of.
2. To each clause, from left to right, the rules of :data:`RULES` are applied in their order. Each is a function of its own
   with an example in its docstring.

The rules are in :mod:`~medvl.text.assertion.scopes` (cues in front of findings), :mod:`~medvl.text.assertion.cues_behind`,
:mod:`~medvl.text.assertion.alternatives` and :mod:`~medvl.text.assertion.attributes`. To add one, write a function of a
sentence and a clause, and name it in :data:`RULES` with the kinds of phrases that a clause must have for it to matter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from medvl.text.assertion.alternatives import leave_alternatives_open, leave_versus_open
from medvl.text.assertion.attributes import (
    call_parts_normal,
    complete_before_denial,
    complete_ellipsis,
    describe_findings,
)
from medvl.text.assertion.clauses import LOOKING_BACK_KINDS, NAMING_KINDS, Sentence
from medvl.text.assertion.cues_behind import deny_by_pronoun, look_back, restore_former
from medvl.text.assertion.parts import ABSENT, NO_PART, PAST, PRESENT, UNCERTAIN, AssertedFinding, Clause, counts
from medvl.text.assertion.scopes import OPENING_KINDS, SCOPE_ENDS, Scope, assert_by_scopes
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COLON,
    DISEASE,
    NEGATION_AFTER,
    NEGATION_BOTH,
    NEUTRAL,
    NORMAL_STATEMENT,
    PERSISTENCE,
    PREDICATE,
    SEVERITY,
    SIDE,
    STRUCTURE,
    UNUSED_CUE,
    VERSUS,
    WITH_PLACE,
    Kind,
    kinds_in,
)
from medvl.text.phrases import PhraseMatch
from medvl.text.vocabulary import Vocabulary

__all__ = [
    "ABSENT",
    "DECIDED",
    "DISEASED",
    "NAMED",
    "NORMAL",
    "NOT_UNDERSTOOD",
    "PAST",
    "PRESENT",
    "REASONS",
    "RULES",
    "STATES",
    "UNCERTAIN",
    "AssertedFinding",
    "Rule",
    "Sentence",
    "SentenceReading",
    "assert_findings",
    "classify_assertions",
    "read_clauses",
    "state_code",
]


class Rule(NamedTuple):
    """A rule, and the kinds of phrases of which a clause must have one for the rule to matter.

    A rule of ``details`` decides no assertion, and is not applied where only states are asked for.
    """

    apply: Callable[[Sentence, Clause], None]
    kinds: int
    details: bool = False


RULES: tuple[Rule, ...] = (
    Rule(look_back, LOOKING_BACK_KINDS | UNUSED_CUE),
    Rule(deny_by_pronoun, NEGATION_AFTER),
    Rule(restore_former, PERSISTENCE),
    Rule(leave_alternatives_open, ALTERNATIVE),
    Rule(leave_versus_open, VERSUS),
    Rule(complete_before_denial, SIDE),
    Rule(call_parts_normal, DISEASE),
    Rule(complete_ellipsis, SIDE),
    Rule(describe_findings, SIDE | SEVERITY, details=True),
)
"""The rules that follow the scopes of cues in front, in the order in which they are applied to a clause."""


@cache
def _rules_for(kinds: int, details: bool) -> tuple[Callable[[Sentence, Clause], None], ...]:
    """The rules that matter to a clause with phrases of these kinds, in their order."""
    return tuple(rule.apply for rule in RULES if rule.kinds & kinds and (details or not rule.details))


_RULE_KINDS = 0
for _rule in RULES:
    _RULE_KINDS |= _rule.kinds

REASONS: dict[str, str] = {
    **{
        rule.__name__: (rule.__doc__ or "").strip().partition("\n")[0]
        for rule in (*(r.apply for r in RULES), *SCOPE_ENDS)
    },
    "scope": "It is in the scope of the cue.",
    "structure": "It follows from what is said of a body part.",
    "chronic": "A former finding of its kind is still there.",
    "clause_ends": "The clause ends.",
    "another_cue": "Another cue follows.",
}
"""The rules that decide an assertion or end a scope, by name, each in a sentence."""


class SentenceReading(NamedTuple):
    """What a sentence says.

    Attributes:
        states: for each state of a finding its :func:`state_code`.
        flags: the bits ``NOT_UNDERSTOOD``, ``NORMAL``, ``DISEASED``, ``NAMED`` and ``DECIDED`` that are true of it.
        list_scope: the assertion that a sentence such as "No evidence of:" gives to the list behind it, or None.
    """

    states: tuple[int, ...]
    flags: int
    list_scope: str | None


NOT_UNDERSTOOD = 1  # it says nothing of a finding or a body part, and is not known to be neutral
NORMAL = 2  # it calls the study normal
DISEASED = 4  # it names disease that is not among the findings, and does not deny it
NAMED = 8  # it names a finding, disease or a normal study, whatever it says of it
DECIDED = 16  # it says of one of these that it is present or absent

STATES = (float("nan"), 0.0, -1.0, 1.0)
"""States by their rank: not mentioned, absent, uncertain, present. Of several mentions the highest counts."""
_RANKS = {ABSENT: 1, UNCERTAIN: 2, PRESENT: 3}


def state_code(finding: int, rank: int) -> int:
    """One number for a finding, by its index in the vocabulary, and the rank of its state in :data:`STATES`."""
    return 4 * finding + rank


_NEUTRAL, _NOT_UNDERSTOOD = SentenceReading((), 0, None), SentenceReading((), NOT_UNDERSTOOD, None)
# Of these kinds a sentence must have a phrase to name something or to open a list, if it describes no body part.
_NAMING_KINDS = NAMING_KINDS | COLON
_BARE_KINDS = NEGATION_BOTH | PREDICATE  # which call the study normal where they stand alone
# Without a phrase of these kinds everything that a sentence names is present.
_DECIDING_KINDS = OPENING_KINDS | LOOKING_BACK_KINDS | ALTERNATIVE | VERSUS | WITH_PLACE | COLON


def classify_assertions(
    matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, scope: str | None = None
) -> SentenceReading:
    """Find what one sentence says: states, and what the reader of the report needs to know.

    Args:
        matches: phrases of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.match` returns them.
        words: words of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.normalize_words` returns them.
        vocabulary: the vocabulary of the phrases.
        scope: the assertion of an item of a list that a sentence before opened; None otherwise.

    Returns:
        What the sentence says.
    """
    if not matches:
        return _NOT_UNDERSTOOD if words else _NEUTRAL
    kinds = kinds_in(matches)
    describes = kinds & STRUCTURE and kinds & PREDICATE
    if not (kinds & _NAMING_KINDS or describes or (len(matches) == 1 and kinds & _BARE_KINDS)):
        return _NEUTRAL if kinds & NEUTRAL else _NOT_UNDERSTOOD  # nothing is named
    if scope is None and kinds & NAMING_KINDS and not (kinds & _DECIDING_KINDS or describes):
        return _sum_up(_plain_mentions(matches), NAMED, None, vocabulary)
    sentence, last_scope = read_clauses(matches, words, vocabulary, scope, kinds=kinds)
    findings = _findings_of(sentence)
    list_scope = None
    if last_scope is not None and last_scope.cue is not None and last_scope.in_list:
        list_scope = last_scope.assertion
    flags = NAMED if findings else 0 if sentence.understood else NOT_UNDERSTOOD
    return _sum_up([(f.kind, f.name, f.assertion) for f in findings], flags, list_scope, vocabulary)


def _plain_mentions(matches: list[PhraseMatch]) -> list[tuple[Kind, str | None, str]]:
    """What a sentence names that has no cue, so that all of it is present: kinds, findings and assertions."""
    named = [meanings for meanings, _, _ in matches if meanings.kinds & NAMING_KINDS]
    return [(kind, name, PRESENT) for meanings in named for kind, name in meanings if kind & NAMING_KINDS]


def _sum_up(
    found: list[tuple[Kind, str | None, str]], flags: int, list_scope: str | None, vocabulary: Vocabulary
) -> SentenceReading:
    """What a sentence says that names these kinds of phrases, each with its finding and assertion."""
    states: list[int] = []
    for kind, name, assertion in found:
        if assertion == PAST:
            continue
        if assertion != UNCERTAIN:
            flags |= DECIDED
        if kind & (DISEASE | BLOCKER):
            if assertion != ABSENT:
                flags |= DISEASED
            elif kind == DISEASE:
                flags |= NORMAL
        elif kind == NORMAL_STATEMENT:
            if assertion == PRESENT:
                flags |= NORMAL
        elif name is not None and counts(kind, assertion):
            states.append(state_code(vocabulary.indices[name], _RANKS[assertion]))
    return SentenceReading(tuple(states), flags, list_scope)


def assert_findings(
    matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, scope: str | None = None
) -> list[AssertedFinding]:
    """Find the findings of one sentence with their assertions, cues, sides and severities, in the order of the sentence.

    The arguments are those of :func:`classify_assertions`.
    """
    findings = _findings_of(read_clauses(matches, words, vocabulary, scope, details=True)[0]) if matches else []
    for finding in findings:
        finding.part = NO_PART  # findings are remembered, their sentence is not
    return findings


def _findings_of(sentence: Sentence) -> list[AssertedFinding]:
    """The findings of a sentence whose clauses were read."""
    clauses = sentence.clauses
    findings = clauses[0].findings if len(clauses) == 1 else [f for clause in clauses for f in clause.findings]
    if not findings and (statement := _bare_normal_statement(sentence)) is not None:
        return [statement]
    return findings


def read_clauses(
    matches: list[PhraseMatch],
    words: list[str | None],
    vocabulary: Vocabulary,
    scope: str | None = None,
    details: bool = False,
    kinds: int | None = None,
) -> tuple[Sentence, Scope | None]:
    """Apply the rules to the clauses of a sentence, and return it with the scope that is open at its end.

    The arguments are those of :func:`classify_assertions`; ``details`` also finds sides and severities, and
    ``kinds`` are those of the phrases, where they are known.
    """
    sentence = Sentence(matches, words, vocabulary, kinds)
    open_scope = None if scope is None else Scope(scope)
    for position, clause in enumerate(sentence.clauses):
        if not clause.parts:
            continue  # it went on the one before
        open_scope = assert_by_scopes(sentence, position, open_scope)
        if clause.kinds & _RULE_KINDS and (clause.findings or sentence.last_finding):
            for apply in _rules_for(clause.kinds & _RULE_KINDS, details):
                apply(sentence, clause)
        if clause.findings:
            sentence.last_finding = clause.findings[-1]
    return sentence, open_scope


def _bare_normal_statement(sentence: Sentence) -> AssertedFinding | None:
    """The statement of a normal study that a sentence of nothing but "normal", or "nil acute", makes."""
    if sentence.phrases[0].kinds & NEGATION_BOTH and len(sentence.phrases) == 1:
        start, end = sentence.phrases[0].words
        denied = sentence.words[end:]
        if start == 0 and denied and sentence.vocabulary.words["remarks"].issuperset(denied):
            part = sentence.clauses[0].parts[0]
            return AssertedFinding(None, NORMAL_STATEMENT, (0, len(sentence.words)), part, None)
    if sentence.predicate is None or sentence.predicate != ("normal", (0, len(sentence.words))):
        return None
    return AssertedFinding(None, NORMAL_STATEMENT, sentence.predicate[1], sentence.clauses[0].parts[0], None)
