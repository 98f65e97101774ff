"""The measure of the other tests tells linear time from quadratic time."""

from __future__ import annotations

import pytest
from linear_time import takes_linear_time


@pytest.mark.parametrize(
    ("function", "linear"),
    [
        (lambda text: sum(1 for _ in text), True),
        (lambda text: sum(1 for _ in text for _ in text), False),
    ],
    ids=["linear", "quadratic"],
)
def test_quadratic_time_is_noticed(function, linear):
    assert takes_linear_time(function, "a", 60, 1800) is linear
