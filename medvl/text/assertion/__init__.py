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
from typing import NamedTuple

from medvl.text.assertion.alternatives import leave_alternatives_open, leave_versus_open
from medvl.text.assertion.attributes import call_parts_normal, complete_before_denial, describe_findings
from medvl.text.assertion.clauses import (
    ABSENT,
    LOOKING_BACK_KINDS,
    NO_PART,
    PAST,
    PRESENT,
    UNCERTAIN,
    AssertedFinding,
    Clause,
    Sentence,
)
from medvl.text.assertion.cues_behind import deny_by_pronoun, look_back, restore_former
from medvl.text.assertion.scopes import OPENING_KINDS, SCOPE_ENDS, Scope, assert_by_scopes
from medvl.text.phrases import PhraseMatch
from medvl.text.vocabulary import PhraseKind, Vocabulary, kind_bits

__all__ = [
    "ABSENT",
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
    "classify_assertions",
    "read_clauses",
]


class Rule(NamedTuple):
    """A rule, and the kinds of phrases (as bits) of which a clause must have one for the rule to matter."""

    apply: Callable[[Sentence, Clause], None]
    kinds: int


RULES: tuple[Rule, ...] = (
    Rule(look_back, LOOKING_BACK_KINDS | OPENING_KINDS),
    Rule(deny_by_pronoun, kind_bits(PhraseKind.NEGATION_AFTER)),
    Rule(restore_former, kind_bits(PhraseKind.PERSISTENCE)),
    Rule(leave_alternatives_open, kind_bits(PhraseKind.ALTERNATIVE)),
    Rule(leave_versus_open, kind_bits(PhraseKind.VERSUS)),
    Rule(complete_before_denial, kind_bits(PhraseKind.SIDE)),
    Rule(call_parts_normal, kind_bits(PhraseKind.DISEASE)),
    Rule(describe_findings, kind_bits(PhraseKind.SIDE, PhraseKind.SEVERITY)),
)
"""The rules that follow the scopes of cues in front, in the order in which they are applied to a clause."""


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
    "complete_ellipsis": "A part of the sentence leaves the finding out, and speaks of another side.",
    "clause_ends": "The clause ends.",
    "another_cue": "Another cue follows.",
}
"""The rules that decide an assertion or end a scope, by name, each in a sentence."""


class SentenceReading(NamedTuple):
    """What a sentence says.

    Attributes:
        findings: the findings in the order of the sentence.
        list_scope: the assertion that a sentence such as "No evidence of:" gives to the list behind it, or None.
        understood: whether the sentence says something about a finding or a body part, or is known to be neutral.
        states: the names of findings with their states, as far as they have one.
        normal: whether it calls the study normal.
        diseased: whether it names disease that is not among the findings, and does not deny it.
    """

    findings: list[AssertedFinding]
    list_scope: str | None
    understood: bool
    states: tuple[tuple[str, float], ...] = ()
    normal: bool = False
    diseased: bool = False


_NOT_UNDERSTOOD, _WITHOUT_WORDS = SentenceReading([], None, False), SentenceReading([], None, True)
STATES = {PRESENT: 1.0, ABSENT: 0.0, UNCERTAIN: -1.0}
_DISEASE_KINDS = kind_bits(PhraseKind.DISEASE, PhraseKind.BLOCKER)


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
        return _NOT_UNDERSTOOD if words else _WITHOUT_WORDS
    sentence, last_scope = read_clauses(matches, words, vocabulary, scope)
    findings = [finding for clause in sentence.clauses for finding in clause.findings]
    if not findings and (statement := _bare_normal_statement(sentence)) is not None:
        findings.append(statement)
    for finding in findings:
        finding.part = NO_PART  # a reading is remembered, its sentence is not
    is_open = last_scope is not None and last_scope.cue is not None and not last_scope.is_named
    opens_list = is_open and sentence.phrases[-1].has(PhraseKind.COLON)
    list_scope = last_scope.assertion if opens_list and last_scope is not None else None
    return SentenceReading(findings, list_scope, sentence.understood or bool(findings), *_sum_up(findings))


def _sum_up(findings: list[AssertedFinding]) -> tuple[tuple[tuple[str, float], ...], bool, bool]:
    """The states, whether the study is called normal, and whether it has disease that is not among the findings."""
    states: list[tuple[str, float]] = []
    normal = diseased = False
    for finding in findings:
        state = STATES.get(finding.assertion)
        if state is None:
            continue
        if _DISEASE_KINDS >> finding.kind & 1:
            diseased = diseased or state != 0
            normal = normal or (state == 0 and finding.kind == PhraseKind.DISEASE)
        elif finding.kind == PhraseKind.NORMAL_STATEMENT:
            normal = normal or state == 1
        elif finding.name is not None and finding.counts:
            states.append((finding.name, state))
    return tuple(states), normal, diseased


def read_clauses(
    matches: list[PhraseMatch], words: list[str | None], vocabulary: Vocabulary, scope: str | None = None
) -> tuple[Sentence, Scope | None]:
    """Apply the rules to the clauses of a sentence, and return it with the scope that is open at its end.

    The arguments are those of :func:`classify_assertions`.
    """
    sentence = Sentence(matches, words, vocabulary)
    open_scope = None if scope is None else Scope(scope)
    for position, clause in enumerate(sentence.clauses):
        if not clause.parts:
            continue  # it went on the one before
        open_scope = assert_by_scopes(sentence, position, open_scope)
        if clause.kinds & _RULE_KINDS and (clause.findings or sentence.last_finding):
            for apply, kinds in RULES:
                if kinds & clause.kinds:
                    apply(sentence, clause)
        if clause.findings:
            sentence.last_finding = clause.findings[-1]
    return sentence, open_scope


def _bare_normal_statement(sentence: Sentence) -> AssertedFinding | None:
    """The statement of a normal study that a sentence of nothing but "normal", or "nil acute", makes."""
    if sentence.phrases[0].has(PhraseKind.NEGATION_BOTH) and len(sentence.phrases) == 1:
        start, end = sentence.phrases[0].words
        denied = sentence.words[end:]
        if start == 0 and denied and sentence.vocabulary.words["remarks"].issuperset(denied):
            part = sentence.clauses[0].parts[0]
            return AssertedFinding(None, PhraseKind.NORMAL_STATEMENT, (0, len(sentence.words)), part, None)
    if sentence.predicate is None or sentence.predicate != ("normal", (0, len(sentence.words))):
        return None
    return AssertedFinding(None, PhraseKind.NORMAL_STATEMENT, sentence.predicate[1], sentence.clauses[0].parts[0], None)
