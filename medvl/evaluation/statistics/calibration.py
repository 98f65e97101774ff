"""Reliability curve, expected calibration error, and the threshold that maximizes F1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl.evaluation.statistics.curves import as_binary, check_pairs
from medvl.utils.checks import check_integer, error_message


@dataclass(frozen=True)
class ReliabilityCurve:
    """Observed frequency of positives against the mean predicted probability, in bins of equal width.

    Args:
        predicted: mean probability of each bin's cases (B,); NaN in an empty bin.
        observed: fraction of positive cases in each bin (B,); NaN in an empty bin.
        counts: cases in each bin (B,).
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, the mean gap of observed and predicted, weighted by cases; NaN without a case."""
        if not self.counts.sum():
            return math.nan
        gaps = np.abs(self.observed - self.predicted)
        return float((gaps[self.counts > 0] * self.counts[self.counts > 0]).sum() / self.counts.sum())

    def to_dict(self) -> dict[str, Any]:
        """The bins that are not empty, as lists."""
        kept = self.counts > 0
        return {
            "predicted": self.predicted[kept].tolist(),
            "observed": self.observed[kept].tolist(),
            "counts": self.counts[kept].tolist(),
        }


def reliability_curve(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 10) -> ReliabilityCurve:
    """Predicted probability and observed frequency in bins of the probability (DeGroot and Fienberg, 1983).

    Args:
        probabilities: of the positive class (N,), from 0 to 1.
        targets: (N,), boolean or 0 and 1.
        n_bins: number of bins of equal width; a probability on an edge belongs to the upper bin, 1 to the last.

    Returns:
        The curve; its ``error`` is the expected calibration error (Guo et al., 2017) of the positive class's probability.

    Raises:
        TypeError: If ``n_bins`` is not an integer.
        ValueError: If a probability is outside [0, 1] or NaN, a target is neither 0 nor 1, their numbers differ, or ``n_bins``
            is below 1.

    Example:
        >>> curve = reliability_curve(np.array([0.1, 0.2, 0.8, 1.0]), np.array([0, 1, 1, 1]), n_bins=2)
        >>> print(curve.predicted.round(2), curve.observed, curve.counts, round(curve.error, 4))
        [0.15 0.9 ] [0.5 1. ] [2 2] 0.225
    """
    check_integer(n_bins, "n_bins", minimum=1)
    probabilities = np.asarray(probabilities, float)
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        raise ValueError(error_message("probabilities", "be between 0 and 1", probabilities[wrong][0]))
    targets = as_binary(targets)
    check_pairs(probabilities, targets)
    bins = np.minimum((probabilities * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(bins, probabilities, minlength=n_bins) / counts
        observed = np.bincount(bins, targets, minlength=n_bins) / counts
    return ReliabilityCurve(predicted, observed, counts)


def best_f1_threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    """The threshold that maximizes F1, where a case is predicted positive at or above it.

    It lies halfway between two neighboring scores, at the upper one where no number is between, or at the lowest score. Of
    several best thresholds it is the highest. Choose it on validation cases, not on the cases that are then evaluated with
    it.

    Args:
        scores: (N,).
        targets: (N,), boolean or 0 and 1.

    Returns:
        The threshold; NaN where no case is positive.

    Raises:
        ValueError: If a score is NaN, a target is neither 0 nor 1, or their numbers differ.

    Example:
        >>> best_f1_threshold(np.array([0.1, 0.4, 0.6, 0.8]), np.array([False, False, True, True]))
        0.5
    """
    scores, targets = np.asarray(scores, float), as_binary(targets)
    check_pairs(scores, targets)
    if not targets.any():
        return math.nan
    order = np.argsort(-scores)
    ordered = scores[order]
    ends = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
    f1 = 2 * np.cumsum(targets[order])[ends] / (ends + 1 + targets.sum())
    best = ends[int(f1.argmax())]
    upper, lower = float(ordered[best]), float(ordered[min(best + 1, len(ordered) - 1)])
    halfway = upper / 2 + lower / 2  # halves first: the sum may overflow
    # Nothing lies between neighboring numbers, and the middle of an infinite and a finite one is infinite.
    return halfway if lower < halfway < upper else upper


def weighted_f1(predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN) for each row of weights (B, N); NaN where no positive case has weight.

    Args:
        predictions: cases predicted positive (N,), boolean.
        targets: (N,), boolean.
        weights: (B, N), not negative.

    Returns:
        F1 (B,), float64.

    Example:
        >>> weighted_f1(np.array([True, True, False]), np.array([True, False, True]), np.ones((1, 3)))
        array([0.5])
    """
    positive = weights @ targets.astype(float)
    true_positive = weights @ (predictions & targets).astype(float)
    with np.errstate(invalid="ignore"):
        f1 = 2 * true_positive / (weights @ predictions.astype(float) + positive)
    return np.where(positive > 0, f1, np.nan)
