"""Scopes: how far a cue in front of findings ("no", "possible", "history of") reaches.

:func:`assert_by_scopes` walks over the phrases of a clause. A cue opens a scope unless a rule of ``_KEPT_SHUT`` keeps it
shut; the scope ends at a boundary where a rule of ``_ENDINGS`` for its kind says so. A finding in a scope gets its assertion.
To add a rule, write a function and name it in one of the two tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from medvl.text.assertion.clauses import LOOKING_BACK_KINDS, NAMING_KINDS, VERB_KINDS, Sentence
from medvl.text.assertion.parts import ABSENT, NOWHERE, PAST, UNCERTAIN, Clause, Part, Phrase
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COLON,
    COMMA,
    CONTINUING,
    FORMER,
    HISTORY,
    LINKER,
    NEGATION,
    NEGATION_BOTH,
    NEUTRAL,
    PREDICATE,
    SEVERITY,
    SIDE,
    STOP,
    STRUCTURE,
    UNCERTAINTY,
    UNUSED_CUE,
    VERSUS,
    Kind,
)
from medvl.text.structures import WordSpan
from medvl.text.vocabulary import Vocabulary

_OPENING = {
    NEGATION: ABSENT,
    NEGATION_BOTH: ABSENT,
    UNCERTAINTY: UNCERTAIN,
    VERSUS: UNCERTAIN,
    HISTORY: PAST,
    FORMER: PAST,
}
OPENING_KINDS = NEGATION | NEGATION_BOTH | UNCERTAINTY | VERSUS | HISTORY | FORMER
_STATING_KINDS = VERB_KINDS | LOOKING_BACK_KINDS
_STRUCTURE_KINDS = STRUCTURE | PREDICATE
_LISTING_KINDS = COMMA | LINKER | ALTERNATIVE
_ATTRIBUTE_KINDS = SIDE | SEVERITY
_ENDING_KINDS = COMMA | LINKER | COLON | STOP
# A phrase of no such kind changes nothing in an open scope.
_SCOPE_KINDS = OPENING_KINDS | NAMING_KINDS | _STATING_KINDS | _STRUCTURE_KINDS | _ENDING_KINDS


class Scope:
    """The open scope of a cue in front of findings.

    Attributes:
        assertion: what the findings in it get.
        cue: the words of the cue; None for a list that an earlier sentence opened.
        former: whether it is that of a word like "prior".
        is_named: whether a finding was in it.
        named_end: one past the last word of the last finding in it.
        is_stated: whether a verb or a cue followed its last finding, so that the statement may be complete.
        in_list: whether it is that of a denied list, which goes on over semicolons.
        kind: the kind of the cue.
        behind: the phrase right before the cue, or None.
        stop: index of the phrase at which it ended; ``NOWHERE`` where the sentence ends it.
        ended_by: the name of the rule that ended it; None where the sentence does.
    """

    __slots__ = (
        *("assertion", "behind", "cue", "ended_by", "former"),
        *("in_list", "is_named", "is_stated", "kind", "named_end", "stop"),
    )

    def __init__(self, assertion: str, cue: WordSpan | None = None, kind: Kind | None = None) -> None:
        self.assertion, self.cue, self.kind = assertion, cue, kind
        self.former = kind == FORMER
        self.behind: Phrase | None = None
        self.is_named = self.is_stated = self.in_list = False
        self.stop = self.named_end = NOWHERE
        self.ended_by: str | None = None

    def end(self, index: int, rule: str) -> None:
        """Note at which phrase it ended, and by which rule."""
        self.stop, self.ended_by = index, rule


# Cues inside the scope of another.


def _continues_denial(scope: Scope, phrase: Phrase) -> bool:
    """A negation right behind another is part of it: "no evidence of any"."""
    return scope.assertion == ABSENT and not scope.is_named and scope.cue is not None and scope.cue[1] == phrase.start


def _is_denied(scope: Scope, phrase: Phrase) -> bool:
    """A hedge inside a denial changes nothing, until the denied finding has its verb: "no definite effusion"."""
    return scope.assertion == ABSENT and not (scope.is_named and scope.is_stated)


def _is_denied_before_a_finding(scope: Scope, phrase: Phrase) -> bool:
    """A word like "prior" inside a denial changes nothing: "no prior effusion"."""
    return scope.assertion == ABSENT and not scope.is_named


_KeptShut: TypeAlias = Callable[[Scope, Phrase], bool]
_KEPT_SHUT: dict[Kind, tuple[_KeptShut, ...]] = {
    NEGATION: (_continues_denial,),
    UNCERTAINTY: (_is_denied,),
    VERSUS: (_is_denied,),
    FORMER: (_is_denied_before_a_finding,),
}


# Boundaries.


def _statement_follows_comma(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A comma ends a scope if a statement of its own follows: "no pneumothorax, stable effusion", "..., heart is large"."""
    if not scope.is_named:
        return False
    opener, structure_follows = sentence.look_ahead.next_statement(index)
    if structure_follows or opener == CONTINUING:
        return True
    return (scope.is_stated or opener is not None) and not sentence.look_ahead.alternative_follows(index)


def _comma_follows_former(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A comma ends the reach of a word like "prior" that named no finding: "status post surgery, small effusion"."""
    return scope.former and not scope.is_named


def _comma_follows_answer(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A comma ends the reach of a "no" that answers a heading: "pneumothorax: no, effusion: yes"."""
    if scope.is_named or scope.behind is None or scope.cue is None:
        return False
    is_answer = scope.behind.kinds & COLON and scope.behind.follows_finding
    return bool(is_answer) and scope.cue[1] == sentence.phrases[index].start


def _statement_follows_linker(scope: Scope, sentence: Sentence, index: int) -> bool:
    """An "and" ends a scope whose statement is complete, or if a statement of its own follows: "and the heart is large"."""
    if not scope.is_named:
        return False
    opener, structure_follows = sentence.look_ahead.next_statement(index)
    return opener is not None or structure_follows or scope.is_stated


def _with_follows_former(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A "with" ends the reach of a word like "prior": "status post biopsy with pneumothorax"."""
    return scope.former and sentence.words[sentence.phrases[index].start] in sentence.vocabulary.words["accompanying"]


def _occasion_follows(scope: Scope, sentence: Sentence, index: int) -> bool:
    """An "after" ends a denial: "no pneumothorax after line placement", but "no effusion or post-surgical collapse"."""
    linker, occasion = sentence.phrases[index], sentence.vocabulary.words["occasion"]
    if not scope.is_named or scope.assertion != ABSENT or sentence.words[linker.start] not in occasion:
        return False
    before = sentence.phrases[index - 1]
    return not (before.end == linker.start and before.kinds & _LISTING_KINDS)


def _colon_opens_no_list(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A colon ends a scope, unless it opens a list right behind the cue: "no evidence of:", "none of the following:"."""
    colon, cue = sentence.phrases[index], scope.cue
    if colon.start == 0:
        return False  # the mark of a list item
    scope.in_list = False
    if cue is not None and not colon.follows_finding:
        before = sentence.phrases[index - 1]
        scope.in_list = cue[1] == colon.start or (cue[1] == before.start and before.end == colon.start)
    return not scope.in_list


def _list_goes_on(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A denied list goes on over a semicolon if a colon opened it, or if nothing but findings follows."""
    phrase = sentence.phrases[index]
    if scope.assertion != ABSENT or not scope.is_named or sentence.words[phrase.start] != ";":
        return False
    needed = 1 if scope.in_list else 2
    scope.in_list = sentence.look_ahead.bare_items(index, needed) == needed
    return scope.in_list


def _cause_follows(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A hedge reaches over words such as "due to" right behind it: "possibly due to edema"."""
    phrase = sentence.phrases[index]
    if scope.assertion != UNCERTAIN or scope.is_named or scope.cue is None:
        return False
    return scope.cue[1] == phrase.start and sentence.words[phrase.end - 1] in sentence.vocabulary.words["cause"]


def _describes_anew(scope: Scope, phrase: Phrase) -> bool:
    """A body part and what is said of it end a denial that has named a finding: "no edema heart large"."""
    if scope.assertion != ABSENT or not scope.is_named:
        return False
    return any(
        scope.named_end <= statement.structure_words[0] and statement.structure_words < statement.predicate_words
        for statement, _ in phrase.statements
    )


def _stands_alone(scope: Scope, sentence: Sentence, index: int) -> bool:
    """A side or a small size behind a denied finding opens a statement of its own: "no edema no effusion left pacemaker"."""
    phrases = sentence.phrases
    if scope.assertion != ABSENT or not scope.is_named or phrases[index].join is not None:
        return False
    first = index
    while phrases[first - 1].kinds & _ATTRIBUTE_KINDS and phrases[first - 1].start >= scope.named_end:
        first -= 1
    attributes = [meaning for phrase in phrases[first:index] for meaning in phrase.meanings]
    if not any(kind & SIDE or (kind & SEVERITY and value != "severe") for kind, value in attributes):
        return False  # "no pneumothorax large effusion" lacks its comma
    gap = phrases[first].start - (phrases[first - 1].end if scope.is_stated else scope.named_end)
    return gap <= int(scope.is_stated) and not sentence.look_ahead.alternative_follows(index)


_Ending: TypeAlias = Callable[[Scope, Sentence, int], bool]
_ENDINGS: dict[Kind, tuple[_Ending, ...]] = {
    COMMA: (_statement_follows_comma, _comma_follows_former, _comma_follows_answer),
    LINKER: (_occasion_follows, _statement_follows_linker, _with_follows_former),
    COLON: (_colon_opens_no_list,),
}


SCOPE_ENDS = (*(ends for rules in _ENDINGS.values() for ends in rules), _describes_anew, _stands_alone)
"""The rules that end a scope at a comma, an "and" or a colon, at a body part, or at a finding."""


# The walk.


def assert_by_scopes(sentence: Sentence, position: int, scope: Scope | None) -> Scope | None:
    """Give the findings of a clause the assertions of the scopes that they are in.

    Args:
        sentence: the sentence.
        position: index of the clause. It goes on with the next clause where a denied list does.
        scope: the scope that is open where the clause begins, or None.

    Returns:
        The scope that is open where the clause ends, or None.
    """
    clause, phrases = sentence.clauses[position], sentence.phrases
    sentence.understood = sentence.understood or bool(clause.kinds & NEUTRAL)
    if scope is None and not clause.kinds & OPENING_KINDS:
        sentence.understood = sentence.understood or clause.has_statements
        return None
    for part in clause.parts:  # which grows where a list goes on
        for index in range(part.first, min(part.stop + 1, len(phrases))):
            phrase = phrases[index]
            if not phrase.kinds & (OPENING_KINDS if scope is None else _SCOPE_KINDS):
                if phrase.statements:
                    sentence.understood = True
                continue
            for kind, _ in phrase.meanings:
                if OPENING_KINDS & kind:
                    scope = _open(sentence, index, kind, scope)
                elif scope is None:
                    if phrase.statements:
                        sentence.understood = True
                elif NAMING_KINDS & kind:
                    if phrases[index - 1].kinds & _ATTRIBUTE_KINDS and _stands_alone(scope, sentence, index):
                        scope.end(index, "_stands_alone")
                        scope = None
                    else:
                        _assert_findings(scope, phrase, sentence.vocabulary)
                elif _STATING_KINDS & kind:
                    scope.is_stated = scope.is_named
                elif _STRUCTURE_KINDS & kind:
                    if _describes_anew(scope, phrase):
                        scope.end(index, "_describes_anew")
                        scope = None
                    else:
                        _assert_statements(scope, phrase)
                elif kind == STOP:
                    if _list_goes_on(scope, sentence, index):
                        position += 1
                        clause.absorb(sentence.clauses[position])
                    elif not _cause_follows(scope, sentence, index):
                        _note_unused(clause, part, scope)
                        scope.end(index, "clause_ends")
                        scope = None
                elif kind in _ENDINGS:
                    if kind == COMMA and not scope.is_named:
                        _note_unused(clause, part, scope)
                    scope = _scope_behind(scope, sentence, index, kind)
    if scope is not None and not scope.is_named and part.stop == len(phrases):
        _note_unused(clause, part, scope)
    if clause.has_statements and any(finding.dropped for finding in clause.findings):
        clause.findings = [finding for finding in clause.findings if not finding.dropped]
    return scope


def _note_unused(clause: Clause, part: Part, scope: Scope) -> None:
    """Note whether a scope at the end of a part has named no finding."""
    part.unused = None if scope.is_named else scope
    if not scope.is_named:
        clause.kinds |= UNUSED_CUE


def _open(sentence: Sentence, index: int, kind: Kind, scope: Scope | None) -> Scope:
    """The scope of a cue at phrase ``index``, or the open one where a rule keeps the new one shut."""
    phrase = sentence.phrases[index]
    if scope is not None:
        if any(keeps_shut(scope, phrase) for keeps_shut in _KEPT_SHUT.get(kind, ())):
            return scope
        scope.end(index, "another_cue")
    new = Scope(_OPENING[kind], phrase.words, kind)
    if index and sentence.phrases[index - 1].end == phrase.start:
        new.behind = sentence.phrases[index - 1]
    sentence.scopes.append(new)
    return new


def _scope_behind(scope: Scope, sentence: Sentence, index: int, kind: Kind) -> Scope | None:
    """The scope behind a boundary at phrase ``index``: the same, or None where a rule ends it."""
    for ends in _ENDINGS[kind]:
        if ends(scope, sentence, index):
            scope.end(index, ends.__name__)
            return None
    return scope


def _assert_findings(scope: Scope, phrase: Phrase, vocabulary: Vocabulary) -> None:
    """Give the findings that a phrase names the assertion of a scope."""
    scope.is_named, scope.is_stated, scope.named_end = True, False, phrase.end
    for finding in phrase.findings:
        is_chronic = finding.kind == BLOCKER or finding.name in vocabulary.chronic
        if scope.former and is_chronic:
            finding.rule = "chronic"  # "prior rib fractures" are still there
            continue
        finding.decide(scope.assertion, scope.cue, "scope")
        finding.former = scope.former


def _assert_statements(scope: Scope, phrase: Phrase) -> None:
    """Give the findings that statements about body parts imply the assertion of a scope."""
    for statement, findings in phrase.statements:
        scope.is_named = True
        scope.is_stated = scope.is_stated or statement.structure_words < statement.predicate_words
        for finding in findings:
            if scope.assertion == ABSENT and finding.assertion == ABSENT:
                finding.dropped = True  # "not normal" does not say what it is
            elif scope.assertion == ABSENT or finding.assertion != ABSENT:
                finding.decide(scope.assertion, scope.cue, "scope")
