"""Intervals over seeds, and the rule of a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evidence.statistics import Interval, combine, every_seed, prediction_half_width, t_interval, verdict


def test_interval_is_that_of_a_t_test():
    values = [0.031, 0.012, 0.055, 0.02, 0.047]
    interval = t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.number == 5


def test_interval_of_few_seeds():
    assert t_interval([]).number == 0
    assert math.isnan(t_interval([]).mean)
    one = t_interval([0.3])
    assert one.mean == 0.3
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_interval_covers_the_mean_at_its_level():
    draws = np.random.default_rng(0).normal(0.1, 0.05, (2000, 5))
    inside = [interval.low <= 0.1 <= interval.high for interval in map(t_interval, draws.tolist())]
    assert 0.935 < np.mean(inside) < 0.965


@pytest.mark.parametrize("number", [1, 3])
def test_prediction_holds_the_mean_of_further_values_at_its_level(number):
    draws = np.random.default_rng(0).normal(0.1, 0.05, (4000, 5 + number))
    inside = [
        abs(np.mean(row[5:]) - np.mean(row[:5])) <= prediction_half_width(row[:5].tolist(), number) for row in draws
    ]
    assert 0.94 < np.mean(inside) < 0.96
    assert math.isnan(prediction_half_width([0.1], number))


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (0.001, 0.02, 0.0, "reproduced"),
        (0.0, 0.02, 0.0, "undecided"),  # 0 itself is not above 0
        (-0.01, 0.02, 0.0, "undecided"),
        (-0.02, 0.0, 0.0, "undecided"),
        (-0.02, -0.001, 0.0, "not reproduced"),
        (-0.009, 0.02, 0.01, "reproduced"),
        (-0.02, 0.02, 0.01, "undecided"),
        (-0.03, -0.011, 0.01, "not reproduced"),
        (-0.03, -0.009, 0.01, "undecided"),
        (math.nan, math.nan, 0.0, "undecided"),  # one seed
    ],
)
def test_verdict_of_a_comparison(low, high, margin, expected):
    assert verdict(Interval((low + high) / 2, low, high, 5), margin) == expected


def test_verdict_of_each_seed():
    assert every_seed([0.01, 0.0, 0.02]) == "reproduced"
    assert every_seed([0.01, -0.001, 0.02]) == "not reproduced"
    assert every_seed([0.01, -0.001, 0.02], margin=0.005) == "reproduced"
    assert every_seed([]) == "no results"


@pytest.mark.parametrize(
    ("verdicts", "needed", "expected"),
    [
        (["reproduced"] * 3, None, "reproduced"),
        (["reproduced", "undecided"], None, "undecided"),
        (["reproduced", "undecided", "not reproduced"], None, "not reproduced"),
        (["reproduced"] * 4 + ["not reproduced"], 4, "reproduced"),
        (["reproduced"] * 3 + ["undecided", "not reproduced"], 4, "undecided"),
        (["reproduced"] * 3 + ["not reproduced"] * 2, 4, "not reproduced"),
        (["reproduced", "no results"], None, "no results"),
        ([], None, "no results"),
    ],
)
def test_verdict_of_a_claim(verdicts, needed, expected):
    assert combine(verdicts, needed) == expected
