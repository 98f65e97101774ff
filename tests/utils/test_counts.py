"""Counts in messages."""

from __future__ import annotations

import pytest

from medvl.utils.counts import count_of


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, "row"), "1 row"),
        ((0, "row"), "0 rows"),
        ((21, "row"), "21 rows"),
        ((1, "study has", "studies have"), "1 study has"),
        ((2, "study has", "studies have"), "2 studies have"),
    ],
)
def test_a_count_agrees_with_its_words(arguments, expected):
    assert count_of(*arguments) == expected
