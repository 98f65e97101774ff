"""Look-ahead: what follows a phrase in its sentence."""

from __future__ import annotations

import pytest

from medvl.text.lookahead import LookAhead
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COMMA,
    CONTINUING,
    DISEASE,
    FORMER,
    HISTORY,
    KIND_NAMES,
    LINKER,
    MODIFIER,
    NEGATION,
    NORMAL_STATEMENT,
    ONLY_ABSENT,
    PREDICATE,
    PSEUDO,
    SEVERITY,
    SIDE,
    STOP,
    STRUCTURE,
    TERM,
    UNCERTAINTY,
    VERB,
    VERSUS,
    WITH_PLACE,
)
from medvl.text.phrases import Meanings


def look_ahead(*kinds):
    matches = []
    for index, kind in enumerate(kinds):
        meanings = Meanings()
        meanings.extend((k, None) for k in (kind if isinstance(kind, tuple) else (kind,)))
        matches.append((meanings, index, index + 1))
    return LookAhead(matches)


def test_alternatives_are_seen_up_to_the_end_of_the_clause():
    sentence = look_ahead(TERM, ALTERNATIVE, TERM, STOP, TERM, ALTERNATIVE)
    assert [sentence.alternative_follows(i) for i in range(6)] == [True, False, False, True, True, False]
    assert [sentence.alternative_follows(i) for i in range(6)] == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("following", "expected"),
    [
        ([], (None, False)),
        ([TERM], (None, False)),
        ([SIDE, TERM], (None, False)),
        ([STRUCTURE], (None, True)),
        ([SEVERITY, STRUCTURE], (MODIFIER, True)),
        ([MODIFIER, TERM], (MODIFIER, False)),
        ([SEVERITY, TERM], (MODIFIER, False)),
        ([UNCERTAINTY, TERM], (MODIFIER, False)),
        ([CONTINUING, MODIFIER, TERM], (CONTINUING, False)),
        ([MODIFIER, CONTINUING, TERM], (CONTINUING, False)),
        ([TERM, VERB, CONTINUING], (CONTINUING, False)),
        ([TERM, VERB, SEVERITY], (CONTINUING, False)),
        ([TERM, VERB, SIDE], (None, False)),
        ([TERM, SIDE, CONTINUING], (None, False)),
        ([TERM, VERB], (None, False)),
        ([PSEUDO] * 7 + [STRUCTURE], (None, True)),
        ([PSEUDO] * 8 + [STRUCTURE], (None, False)),
        ([(SEVERITY, STRUCTURE)], (MODIFIER, True)),
    ],
)
def test_next_statement(following, expected):
    assert look_ahead(COMMA, *following).next_statement(0) == expected


def test_a_finding_named_twice_without_a_word_between_is_a_statement():
    """ "NG tube tip in stomach" names a device and where it ends."""
    assert look_ahead(COMMA, TERM, TERM).next_statement(0) == (CONTINUING, False)
    sentence = look_ahead(COMMA, TERM, TERM)
    sentence.matches[2] = (sentence.matches[2][0], 3, 4)
    assert sentence.next_statement(0) == (None, False)


TERMINAL = [
    TERM,
    ONLY_ABSENT,
    WITH_PLACE,
    NORMAL_STATEMENT,
    DISEASE,
    BLOCKER,
    COMMA,
    STOP,
]
TERMINAL += [LINKER, ALTERNATIVE, NEGATION, HISTORY, FORMER, VERSUS, VERB]


@pytest.mark.parametrize("kind", KIND_NAMES, ids=KIND_NAMES.get)
def test_the_search_ends_at_findings_boundaries_and_cues(kind):
    found = look_ahead(LINKER, kind, STRUCTURE).next_statement(0)
    assert found[1] == (kind not in TERMINAL)


@pytest.mark.parametrize(
    ("following", "count"),
    [
        ([TERM], 1),
        ([TERM, STOP, TERM], 2),
        ([TERM, STOP, ALTERNATIVE, TERM], 2),
        ([TERM, STOP, ALTERNATIVE, TERM, VERB], 2),
        ([TERM, STOP, TERM, VERB], 1),
        ([SEVERITY, TERM], 0),
        ([STRUCTURE, PREDICATE], 0),
        ([], 0),
    ],
)
def test_items_of_a_list_that_name_findings_and_nothing_else(following, count):
    assert look_ahead(STOP, *following).bare_items(0, 2) == count
