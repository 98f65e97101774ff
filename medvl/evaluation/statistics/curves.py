"""ROC curve, its area and average precision, for many weightings of the cases at once."""

from __future__ import annotations

import numpy as np

from medvl.utils.checks import error_message


def auroc_and_average_precision(
    scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of one finding, one value for each row of weights.

    With w the weights and thresholds t running down the distinct scores::

        AUROC = sum_{i positive, j negative} w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum_{i, j} w_i w_j,
        AP = sum_t (recall_t - recall_{t-1}) precision_t,

    as scikit-learn's ``roc_auc_score`` and ``average_precision_score`` have them.

    Args:
        scores: (N,), higher for the positive class.
        targets: (N,), boolean or 0 and 1.
        weights: (B, N), not negative; None for one row of ones.

    Returns:
        AUROC (B,) and average precision (B,), float64; NaN where the weights leave one class only.

    Raises:
        ValueError: If a score is NaN, a target is neither 0 nor 1, or their numbers differ.

    Example:
        >>> auroc, precision = auroc_and_average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) == 1)
        >>> print(auroc, precision.round(4))
        [0.75] [0.8333]
    """
    # Unsigned integers and booleans cannot be negated to sort in descending order.
    scores, targets = np.asarray(scores, float), as_binary(targets)
    check_pairs(scores, targets)
    if weights is None:
        weights = np.ones((1, len(scores)), np.float32)
    if not len(scores):
        undefined = np.full(len(weights), np.nan)
        return undefined, undefined.copy()
    order = np.argsort(-scores)
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    weights = weights[:, order]
    positive = weights * targets[order].astype(weights.dtype)
    total = weights
    if len(starts) < len(scores):
        positive = np.add.reduceat(positive, starts, axis=1)
        total = np.add.reduceat(total, starts, axis=1)
    true_positives = np.cumsum(positive, axis=1)
    predicted_positives = np.cumsum(total, axis=1)
    false_positives = predicted_positives - true_positives
    num_positive, num_negative = true_positives[:, -1].astype(float), false_positives[:, -1].astype(float)
    # Negatives ranked above each threshold's positives; those that tie with them count half.
    ahead = false_positives - (total - positive) / 2
    precision = true_positives / np.where(predicted_positives > 0, predicted_positives, 1)
    # Without positives or negatives 0 / 0 gives NaN; without negatives alone, the average precision would be 1.
    with np.errstate(invalid="ignore"):
        lost = np.einsum("bn,bn->b", positive, ahead, dtype=float) / (num_positive * num_negative)
        average = np.einsum("bn,bn->b", positive, precision, dtype=float) / num_positive
    return 1 - lost, np.where(num_negative > 0, average, np.nan)


def roc_curve(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct score, from (0, 0) to (1, 1).

    Args:
        scores: (N,).
        targets: (N,), boolean or 0 and 1, both classes present.

    Returns:
        False positive rates and true positive rates, both (K,) for K thresholds.

    Raises:
        ValueError: If a score is NaN, a target is neither 0 nor 1, their numbers differ, or the targets are of one class.

    Example:
        >>> false_rate, true_rate = roc_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) == 1)
        >>> print(false_rate, true_rate)
        [0.  0.  0.5 0.5 1. ] [0.  0.5 0.5 1.  1. ]
    """
    scores, targets = np.asarray(scores, float), as_binary(targets)
    check_pairs(scores, targets)
    if targets.all() or not targets.any():
        received = f"{int(targets.sum())} positive of {len(targets)}"
        raise ValueError(error_message("targets", "hold both classes", received))
    order = np.argsort(-scores)
    ends = np.flatnonzero(np.concatenate([scores[order][1:] != scores[order][:-1], [True]]))
    true_positives = np.cumsum(targets[order])[ends]
    false_positives = ends + 1 - true_positives
    return (
        np.concatenate([[0.0], false_positives / false_positives[-1]]),
        np.concatenate([[0.0], true_positives / true_positives[-1]]),
    )


def check_pairs(scores: np.ndarray, targets: np.ndarray) -> None:
    """Raise ``ValueError`` where a score is NaN, or there is not one target for each score."""
    if targets.shape != scores.shape:
        raise ValueError(error_message("targets", f"have the shape of the scores, {scores.shape}", targets.shape))
    check_scores(scores)


def check_scores(scores: np.ndarray) -> None:
    """Raise ``ValueError`` where a score is NaN."""
    missing = int(np.isnan(scores).sum())
    if missing:
        raise ValueError(error_message("scores", "hold no NaN", f"{missing} among {scores.size}"))


def as_binary(targets: np.ndarray) -> np.ndarray:
    """Targets as booleans; ``ValueError`` where one is neither 0 nor 1, such as -1 for absent."""
    targets = np.asarray(targets)
    if targets.dtype != bool:
        wrong = ~np.isin(targets, (0, 1))
        if wrong.any():
            raise ValueError(error_message("targets", "be 0 or 1", targets[wrong][0]))
    return targets == 1
