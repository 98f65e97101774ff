"""Area under the ROC curve and average precision, for many weightings of the cases at once."""

from __future__ import annotations

import numpy as np


def auroc_and_average_precision(
    scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of one finding, one value for each row of weights.

    With w the weights and thresholds t running down the distinct scores,

        AUROC = sum_{i positive, j negative} w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum_{i, j} w_i w_j,
        AP = sum_t (recall_t - recall_{t-1}) precision_t,

    as scikit-learn's ``roc_auc_score`` and ``average_precision_score`` have them.

    Args:
        scores: (N,), higher speaks for the finding.
        targets: (N,), boolean.
        weights: (B, N), not negative; None for one row of ones.

    Returns:
        AUROC (B,) and average precision (B,), float64; NaN where the weights leave one class only.

    Raises:
        ValueError: if a score is NaN.

    Example:
        >>> auroc, precision = auroc_and_average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) == 1)
        >>> print(auroc, precision.round(4))
        [0.75] [0.8333]
    """
    if np.isnan(scores).any():
        raise ValueError(f"scores holds {int(np.isnan(scores).sum())} NaN among {len(scores)} cases")
    # Whole numbers without a sign, and truth values, have no order from the highest down by their negatives.
    scores = np.asarray(scores, float)
    if weights is None:
        weights = np.ones((1, len(scores)), np.float32)
    if not len(scores):
        nothing = np.full(len(weights), np.nan)
        return nothing, nothing.copy()
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    weights = weights[:, order]
    positive = weights * targets[order].astype(weights.dtype)
    total = weights
    if len(starts) < len(scores):
        positive = np.add.reduceat(positive, starts, axis=1)
        total = np.add.reduceat(total, starts, axis=1)
    hits = np.cumsum(positive, axis=1)
    called = np.cumsum(total, axis=1)
    alarms = called - hits
    num_positive, num_negative = hits[:, -1].astype(float), alarms[:, -1].astype(float)
    one_class = (num_positive == 0) | (num_negative == 0)
    # Negatives at or above each threshold, those at it counted half: what a positive there does not beat.
    ahead = alarms - (total - positive) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.einsum("bn,bn->b", positive, ahead, dtype=float) / (num_positive * num_negative)
        precision = np.divide(hits, called, out=np.zeros(hits.shape), where=called > 0)
        average = np.einsum("bn,bn->b", positive, precision, dtype=float) / num_positive
    return np.where(one_class, np.nan, 1 - lost), np.where(one_class, np.nan, average)


def roc_curve(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct score, from (0, 0) to (1, 1).

    Args:
        scores: (N,).
        targets: (N,), boolean, both classes present.

    Returns:
        False positive rates and true positive rates.

    Example:
        >>> false_rate, true_rate = roc_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) == 1)
        >>> print(false_rate, true_rate)
        [0.  0.  0.5 0.5 1. ] [0.  0.5 0.5 1.  1. ]
    """
    scores = np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.concatenate([scores[order][1:] != scores[order][:-1], [True]]))
    hits = np.cumsum(targets[order])[ends]
    alarms = ends + 1 - hits
    return np.concatenate([[0.0], alarms / alarms[-1]]), np.concatenate([[0.0], hits / hits[-1]])
