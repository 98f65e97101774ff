"""Look-ahead: what follows a phrase in its sentence."""

from __future__ import annotations

import pytest

from medvl.text.lookahead import LookAhead
from medvl.text.vocabulary import PhraseKind as Kind


def look_ahead(*kinds):
    return LookAhead(
        [
            ([(k, None) for k in (kind if isinstance(kind, tuple) else (kind,))], i, i + 1)
            for i, kind in enumerate(kinds)
        ]
    )


def test_alternatives_are_seen_up_to_the_end_of_the_clause():
    sentence = look_ahead(Kind.TERM, Kind.ALTERNATIVE, Kind.TERM, Kind.STOP, Kind.TERM, Kind.ALTERNATIVE)
    assert [sentence.alternative_follows(i) for i in range(6)] == [True, False, False, True, True, False]
    assert [sentence.alternative_follows(i) for i in range(6)] == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("following", "expected"),
    [
        ([], (None, False)),
        ([Kind.TERM], (None, False)),
        ([Kind.SIDE, Kind.TERM], (None, False)),
        ([Kind.STRUCTURE], (None, True)),
        ([Kind.SEVERITY, Kind.STRUCTURE], (Kind.MODIFIER, True)),
        ([Kind.MODIFIER, Kind.TERM], (Kind.MODIFIER, False)),
        ([Kind.SEVERITY, Kind.TERM], (Kind.MODIFIER, False)),
        ([Kind.UNCERTAINTY, Kind.TERM], (Kind.MODIFIER, False)),
        ([Kind.CONTINUING, Kind.MODIFIER, Kind.TERM], (Kind.CONTINUING, False)),
        ([Kind.MODIFIER, Kind.CONTINUING, Kind.TERM], (Kind.CONTINUING, False)),
        ([Kind.TERM, Kind.VERB, Kind.CONTINUING], (Kind.CONTINUING, False)),
        ([Kind.TERM, Kind.VERB, Kind.SEVERITY], (Kind.CONTINUING, False)),
        ([Kind.TERM, Kind.VERB, Kind.SIDE], (None, False)),
        ([Kind.TERM, Kind.SIDE, Kind.CONTINUING], (None, False)),
        ([Kind.TERM, Kind.VERB], (None, False)),
        ([Kind.PSEUDO] * 7 + [Kind.STRUCTURE], (None, True)),
        ([Kind.PSEUDO] * 8 + [Kind.STRUCTURE], (None, False)),
        ([(Kind.SEVERITY, Kind.STRUCTURE)], (Kind.MODIFIER, True)),
    ],
)
def test_next_statement(following, expected):
    assert look_ahead(Kind.COMMA, *following).next_statement(0) == expected


TERMINAL = [
    Kind.TERM,
    Kind.ONLY_ABSENT,
    Kind.WITH_PLACE,
    Kind.NORMAL_STATEMENT,
    Kind.DISEASE,
    Kind.BLOCKER,
    Kind.COMMA,
    Kind.STOP,
]
TERMINAL += [Kind.LINKER, Kind.ALTERNATIVE, Kind.NEGATION, Kind.HISTORY, Kind.FORMER, Kind.VERSUS, Kind.VERB]


@pytest.mark.parametrize("kind", Kind)
def test_the_search_ends_at_findings_boundaries_and_cues(kind):
    found = look_ahead(Kind.LINKER, kind, Kind.STRUCTURE).next_statement(0)
    assert found[1] == (kind not in TERMINAL)


@pytest.mark.parametrize(
    ("following", "count"),
    [
        ([Kind.TERM], 1),
        ([Kind.TERM, Kind.STOP, Kind.TERM], 2),
        ([Kind.TERM, Kind.STOP, Kind.ALTERNATIVE, Kind.TERM], 2),
        ([Kind.TERM, Kind.STOP, Kind.ALTERNATIVE, Kind.TERM, Kind.VERB], 2),
        ([Kind.TERM, Kind.STOP, Kind.TERM, Kind.VERB], 1),
        ([Kind.SEVERITY, Kind.TERM], 0),
        ([Kind.STRUCTURE, Kind.PREDICATE], 0),
        ([], 0),
    ],
)
def test_items_of_a_list_that_name_findings_and_nothing_else(following, count):
    assert look_ahead(Kind.STOP, *following).bare_items(0, 2) == count
