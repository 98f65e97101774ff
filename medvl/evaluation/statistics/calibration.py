"""Do probabilities mean what they say: reliability curve, expected calibration error, F1 and where to cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ReliabilityCurve:
    """Observed share of positives against the predicted probability, by bins of equal width.

    Args:
        predicted: mean probability of each bin's cases (B,); NaN in an empty bin.
        observed: share of positive cases in each bin (B,); NaN in an empty bin.
        counts: cases in each bin (B,).
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between observed and predicted, bins weighed by cases; NaN without a case."""
        if not self.counts.sum():
            return float("nan")
        gaps = np.abs(self.observed - self.predicted)
        return float((gaps[self.counts > 0] * self.counts[self.counts > 0]).sum() / self.counts.sum())

    def to_dict(self) -> dict[str, Any]:
        """The bins that hold a case, as plain lists."""
        kept = self.counts > 0
        return {
            "predicted": self.predicted[kept].tolist(),
            "observed": self.observed[kept].tolist(),
            "counts": self.counts[kept].tolist(),
        }


def reliability_curve(probabilities: np.ndarray, targets: np.ndarray, bins: int = 10) -> ReliabilityCurve:
    """Bins of probabilities, each with what was predicted and what came true (DeGroot and Fienberg, 1983).

    Args:
        probabilities: of the finding (N,), from 0 to 1.
        targets: (N,), boolean or 0 and 1.
        bins: how many, of equal width; a probability on an edge goes to the upper bin, 1 to the last.

    Returns:
        The curve; its ``error`` is the expected calibration error (Guo et al., 2017, of the finding's probability).

    Raises:
        ValueError: if a probability is not from 0 to 1, or there is no bin.

    Example:
        >>> curve = reliability_curve(np.array([0.1, 0.2, 0.8, 1.0]), np.array([0, 1, 1, 1]), bins=2)
        >>> print(curve.predicted.round(2), curve.observed, curve.counts, round(curve.error, 4))
        [0.15 0.9 ] [0.5 1. ] [2 2] 0.225
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; received {bins}")
    probabilities, targets = np.asarray(probabilities, float), np.asarray(targets, float)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must be from 0 to 1, without NaN")
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, probabilities, minlength=bins) / counts
        observed = np.bincount(place, targets, minlength=bins) / counts
    return ReliabilityCurve(predicted, observed, counts)


def best_f1_threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    """The threshold with the largest F1, where a case is called positive at or above it.

    It lies halfway between two neighbouring scores, so that it does not cling to one of these cases; below the lowest score
    it is that score. Of several best thresholds it is the highest. Choose it on validation cases, never on the cases that
    are then scored with it.

    Args:
        scores: (N,).
        targets: (N,), boolean.

    Returns:
        The threshold; NaN where no case is positive.

    Raises:
        ValueError: if a score is NaN.

    Example:
        >>> best_f1_threshold(np.array([0.1, 0.4, 0.6, 0.8]), np.array([False, False, True, True]))
        0.5
    """
    scores, targets = np.asarray(scores, float), np.asarray(targets, bool)
    if np.isnan(scores).any():
        raise ValueError(f"scores holds {int(np.isnan(scores).sum())} NaN among {len(scores)} cases")
    if not targets.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
    f1 = 2 * np.cumsum(targets[order])[ends] / (ends + 1 + targets.sum())
    best = ends[int(f1.argmax())]
    return float(ordered[best] if best + 1 == len(ordered) else (ordered[best] + ordered[best + 1]) / 2)


def weighted_f1(called: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (called + positive) for each row of weights (B, N); NaN where no positive case has weight.

    Args:
        called: cases called positive (N,), boolean.
        targets: (N,), boolean.
        weights: (B, N), not negative.

    Returns:
        F1 (B,), float64.

    Example:
        >>> weighted_f1(np.array([True, True, False]), np.array([True, False, True]), np.ones((1, 3)))
        array([0.5])
    """
    positive = weights @ targets.astype(float)
    with np.errstate(invalid="ignore"):
        f1 = 2 * (weights @ (called & targets).astype(float)) / (weights @ called.astype(float) + positive)
    return np.where(positive > 0, f1, np.nan)
