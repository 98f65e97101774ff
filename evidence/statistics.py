"""Intervals over seeds, and the rule of a verdict.

A comparison is the difference of two arms' figures, seed by seed. Its interval is Student's t-interval of those differences:
with five seeds a bootstrap of the seeds has 126 distinct resamples and is too narrow, while differences of means over hundreds
of test studies are close to normal. It tells what another seed would give on the same test studies; that other test studies
would give other figures is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NO_RESULTS = "reproduced", "not reproduced", "undecided", "no results"
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval.

    Args:
        mean: over the seeds.
        low: lower end; NaN for fewer than two seeds.
        high: upper end.
        number: of seeds.
    """

    mean: float
    low: float
    high: float
    number: int


def t_interval(values: Sequence[float], confidence_level: float = CONFIDENCE_LEVEL) -> Interval:
    """Student's t-interval of the mean.

    Example:
        >>> interval = t_interval([0.1, 0.2, 0.3])
        >>> round(interval.mean, 3), round(interval.low, 3), round(interval.high, 3)
        (0.2, -0.048, 0.448)
    """
    number = len(values)
    mean = float(np.mean(values)) if number else math.nan
    half = math.nan if number < 2 else _quantile(number, confidence_level) * _deviation(values) / math.sqrt(number)
    return Interval(mean, mean - half, mean + half, number)


def prediction_half_width(values: Sequence[float], number: int, confidence_level: float = CONFIDENCE_LEVEL) -> float:
    r"""Half of Student's prediction interval for the mean of ``number`` further values.

    .. math:: t_{n-1} \, s \sqrt{1 / n + 1 / m}

    with the standard deviation :math:`s` of the :math:`n` values and :math:`m` further ones, which are taken for independent of
    them; NaN for fewer than two values.

    Example:
        >>> round(prediction_half_width([0.1, 0.2, 0.3], 3), 3)
        0.351
    """
    if len(values) < 2:
        return math.nan
    return _quantile(len(values), confidence_level) * _deviation(values) * math.sqrt(1 / len(values) + 1 / number)


def _quantile(number: int, confidence_level: float) -> float:
    return float(stats.t.ppf(0.5 + confidence_level / 2, number - 1))


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def verdict(difference: Interval, margin: float = 0.0) -> str:
    """The verdict of a comparison that claims a difference above ``-margin``.

    The whole interval above it is "reproduced", the whole interval below it "not reproduced", anything else "undecided".

    Args:
        difference: of the arm that is claimed to be better, minus the other.
        margin: how much worse it may be; 0 where it is claimed to be better, above 0 where it is claimed to be as good.

    Example:
        >>> [verdict(Interval(m, m - 0.02, m + 0.02, 5)) for m in (0.03, 0.01, -0.03)]
        ['reproduced', 'undecided', 'not reproduced']
    """
    if difference.low > -margin:
        return REPRODUCED
    return NOT_REPRODUCED if difference.high < -margin else UNDECIDED


def every_seed(differences: Sequence[float], margin: float = 0.0) -> str:
    """The verdict of a claim about each seed: reproduced if every difference is at least ``-margin``.

    One seed can contradict it and cannot confirm it.

    Example:
        >>> every_seed([0.0, 0.1]), every_seed([-0.1, 0.1]), every_seed([0.1])
        ('reproduced', 'not reproduced', 'undecided')
    """
    if not differences:
        return NO_RESULTS
    if min(differences) < -margin:
        return NOT_REPRODUCED
    return REPRODUCED if len(differences) > 1 else UNDECIDED


def combine(verdicts: Iterable[str], needed: int | None = None) -> str:
    """The verdict of a claim from those of its comparisons, of which ``needed`` must be reproduced; all by default.

    "Not reproduced" once so many cannot be reached any more, "undecided" while they can.

    Example:
        >>> combine(["reproduced", "undecided"]), combine(["reproduced", "undecided"], needed=1)
        ('undecided', 'reproduced')
        >>> combine(["reproduced", "not reproduced"])
        'not reproduced'
    """
    given = list(verdicts)
    needed = len(given) if needed is None else needed
    if not given or NO_RESULTS in given:
        return NO_RESULTS
    if given.count(REPRODUCED) >= needed:
        return REPRODUCED
    return NOT_REPRODUCED if len(given) - given.count(NOT_REPRODUCED) < needed else UNDECIDED
