"""Means over cases of which some are undefined, with confidence intervals clustered by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from medvl.evaluation.statistics.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Estimate,
    bootstrap_distribution,
    percentile_interval,
)


def mean_estimates(
    values: np.ndarray, patient_ids: Sequence[str], bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
) -> list[Estimate]:
    """Mean of each column of values (N, K) over the cases, ignoring NaN, with an interval: K estimates.

    Args:
        values: (N, K).
        patient_ids: of the N cases.
        bootstrap: of the intervals.

    Example:
        >>> values = np.array([[1.0, math.nan], [0.0, math.nan]])
        >>> [estimate.value for estimate in mean_estimates(values, ["a", "b"], BootstrapConfig(n_resamples=5))]
        [0.5, nan]
    """
    drawn = bootstrap_distribution(weighted_means(values), patient_ids, bootstrap)
    low, high = percentile_interval(drawn, bootstrap.confidence_level)
    return [Estimate(nan_mean(column), float(a), float(b)) for column, a, b in zip(values.T, low, high, strict=True)]


def mean_of_means(
    values: np.ndarray, patient_ids: Sequence[str], bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
) -> Estimate:
    """Mean over columns of the mean over cases of values (N, K), ignoring NaN and columns of NaN alone.

    Args:
        values: (N, K).
        patient_ids: of the N cases.
        bootstrap: of the interval.

    Example:
        >>> values = np.array([[1.0, math.nan], [0.0, 0.2]])
        >>> round(mean_of_means(values, ["a", "b"], BootstrapConfig(n_resamples=5)).value, 4)
        0.35
    """
    if np.isnan(values).all():
        return Estimate(math.nan)
    mean = weighted_mean_of_means(values)
    drawn = bootstrap_distribution(mean, patient_ids, bootstrap)
    low, high = percentile_interval(drawn, bootstrap.confidence_level)
    return Estimate(float(mean(np.ones((1, len(values))))[0]), float(low), float(high))


def weighted_mean_of_means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function from weights (B, N) to the mean (B,) over columns of the means of values (N, K), ignoring NaN."""
    means = weighted_means(values)

    def mean(weights: np.ndarray) -> np.ndarray:
        columns = means(weights)
        # A resample may hold no case of some column.
        known = ~np.isnan(columns)
        with np.errstate(invalid="ignore"):
            return np.where(known, columns, 0.0).sum(axis=1) / known.sum(axis=1)

    return mean


def weighted_means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function from weights (B, N) to means (B, K) of values (N, K), ignoring NaN; NaN where nothing is left."""
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
