"""Multi-label classification metric that handles missing and uncertain labels."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from medvl.metrics.gathered import GatheredMetric
from medvl.utils.checks import check_option, error_message
from medvl.utils.tensors import wide_dtype

STATES = {"exclude": math.nan, "present": 1.0, "absent": 0.0}


class ZeroShotMetric(GatheredMetric):
    """Area under the ROC curve or average precision of findings, over all cases of an epoch, on all processes.

    Each finding is evaluated on the cases where its label is known: not mentioned (NaN) is always excluded, uncertain (-1)
    is handled by ``uncertain``. A finding with only one class is left out of the mean, with a warning. MONAI's
    ``ROCAUCMetric`` handles neither.

    Args:
        metric: ``"auroc"`` or ``"auprc"``, as scikit-learn computes them.
        reduction: ``"mean"`` over findings, or ``"none"``.
        uncertain: how a label of -1 counts: ``"exclude"``, ``"present"`` or ``"absent"``.

    Raises:
        ValueError: If an option is unknown.

    Example:
        >>> metric = ZeroShotMetric()
        >>> labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, torch.nan], [0.0, 1.0]])
        >>> _ = metric(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.1, 0.0], [0.0, 0.3]]), labels)
        >>> metric.aggregate()
        tensor(0.8750, dtype=torch.float64)
        >>> metric.aggregate(reduction="none")
        tensor([0.7500, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        metric: Literal["auroc", "auprc"] = "auroc",
        reduction: Literal["mean", "none"] = "mean",
        uncertain: Literal["exclude", "present", "absent"] = "exclude",
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("metric", metric, ("auroc", "auprc")),
            ("reduction", reduction, ("mean", "none")),
            ("uncertain", uncertain, tuple(STATES)),
        ):
            check_option(value, name, known)
        self.metric, self.reduction, self.uncertain = metric, reduction, uncertain

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        """Collect scores (N, K) and labels (N, K): 1 present, 0 absent, -1 uncertain, NaN not mentioned."""
        if y is None or y_pred.ndim != 2 or y_pred.shape != y.shape:
            received = f"{tuple(y_pred.shape)} and {None if y is None else tuple(y.shape)}"
            raise ValueError(error_message("y_pred and y", "have the same shape (N, K)", received))
        wrong = ~y_pred.isfinite()
        if bool(wrong.any()):
            received = f"{int(wrong.sum())} NaN or infinite values among {len(y_pred)} cases"
            raise ValueError(error_message("y_pred", "be finite", received))
        labels = y.as_subclass(Tensor).float()
        wrong = ~(labels.isnan() | (labels == -1) | (labels == 0) | (labels == 1))
        if bool(wrong.any()):
            raise ValueError(error_message("y", "hold 1, 0, -1 or NaN", f"{labels[wrong][0].item():g}"))
        # In float32, scores near 1 that differ in float64 would tie.
        return [y_pred.as_subclass(Tensor).to(wide_dtype(y_pred.device)), labels]

    def aggregate(self, reduction: Literal["mean", "none"] | None = None) -> Tensor:
        """The mean () or one value for each finding (K,), float64; NaN for a finding with only one class.

        Raises:
            ValueError: If no batch was added.
        """
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError(error_message("ZeroShotMetric", "hold at least one batch", "none"))
        scores, labels = (buffer.cpu() for buffer in buffers)
        labels = torch.where(labels == -1, torch.tensor(STATES[self.uncertain]), labels)
        measure = roc_auc_score if self.metric == "auroc" else average_precision_score
        values = torch.full(labels.shape[1:], torch.nan, dtype=torch.float64)
        for column in range(labels.shape[1]):
            known = ~labels[:, column].isnan()
            targets = labels[known, column].numpy()
            if 0 < targets.sum() < len(targets):
                values[column] = float(measure(targets, scores[known, column].numpy()))
        left = values.isnan().nonzero()[:, 0].tolist()
        if left:
            warnings.warn(
                f"{len(left)} of {len(values)} findings have only one class and are left out: columns {left}.",
                RuntimeWarning,
                stacklevel=2,
            )
        return torch.nanmean(values) if (reduction or self.reduction) == "mean" else values
