"""Means over cases that are not all defined, with intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from medvl.evaluation.statistics.bootstrap import Estimate, bootstrap, interval


def mean_estimates(
    values: np.ndarray, patients: Sequence[str], *, resamples: int, level: float, seed: int
) -> list[Estimate]:
    """Mean of each column of values (N, K) over the cases, NaN left out, with an interval by patient: K estimates.

    Example:
        >>> values = np.array([[1.0, math.nan], [0.0, math.nan]])
        >>> [estimate.value for estimate in mean_estimates(values, ["a", "b"], resamples=5, level=0.95, seed=0)]
        [0.5, nan]
    """
    low, high = interval(bootstrap(weighted_means(values), patients, resamples=resamples, seed=seed), level)
    return [Estimate(nan_mean(column), float(a), float(b)) for column, a, b in zip(values.T, low, high, strict=True)]


def mean_of_means(values: np.ndarray, patients: Sequence[str], *, resamples: int, level: float, seed: int) -> Estimate:
    """Mean over columns of the mean over cases of values (N, K); NaN cells and columns of nothing but NaN left out."""
    if np.isnan(values).all():
        return Estimate(math.nan)
    mean = weighted_mean_of_means(values)
    low, high = interval(bootstrap(mean, patients, resamples=resamples, seed=seed), level)
    return Estimate(float(mean(np.ones((1, len(values))))[0]), float(low), float(high))


def weighted_mean_of_means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function from weights (B, N) to the mean (B,) over columns of the means of values (N, K), NaN left out."""
    means = weighted_means(values)

    def mean(weights: np.ndarray) -> np.ndarray:
        columns = means(weights)
        # A resample may hold no case of some column.
        known = ~np.isnan(columns)
        with np.errstate(invalid="ignore"):
            return np.where(known, columns, 0.0).sum(axis=1) / known.sum(axis=1)

    return mean


def weighted_means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function from weights (B, N) to means (B, F) of values (N, F), NaN left out; NaN where nothing is left."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def means(weights: np.ndarray) -> np.ndarray:
        weights = weights.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return (weights @ filled) / (weights @ known)

    return means


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN, without a warning, where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
