"""Phrase grounding as a metric."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor

from medvl.functional import GROUNDING_THRESHOLDS, contrast_to_noise_ratio, mean_iou, pointing_game
from medvl.metrics.gathered import GatheredMetric
from medvl.utils.checks import check_option, error_message


class GroundingMetric(GatheredMetric):
    """Mean of a grounding measure of :mod:`medvl.functional` over the heat maps that have a region.

    Maps whose region is empty are left out, and counted in a warning, and so are those of two constant levels, whose
    contrast is infinite. Empty predictions are not: they count as 0.

    Args:
        metric: ``"mean_iou"``, ``"pointing_game"`` or ``"contrast_to_noise_ratio"`` (signed).
        thresholds: of the mean IoU.

    Raises:
        ValueError: If the metric is unknown.

    Example:
        >>> import torch
        >>> metric = GroundingMetric("pointing_game")
        >>> metric(torch.tensor([[[[0.9, 0.1]]], [[[0.2, 0.8]]]]), torch.tensor([[[[1, 0]]], [[[1, 0]]]]))
        tensor([[1.],
                [0.]])
        >>> metric.aggregate()
        tensor(0.5000)
    """

    def __init__(
        self,
        metric: Literal["mean_iou", "pointing_game", "contrast_to_noise_ratio"] = "mean_iou",
        thresholds: Sequence[float] = GROUNDING_THRESHOLDS,
    ) -> None:
        super().__init__()
        measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mean_iou": partial(mean_iou, thresholds=tuple(thresholds)),
            "pointing_game": pointing_game,
            "contrast_to_noise_ratio": contrast_to_noise_ratio,
        }
        check_option(metric, "metric", tuple(measures))
        self.metric = metric
        self.measure = measures[metric]

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Values (N, C) of heat maps (N, C, H, W[, D]), one channel for each sentence, and regions of the same shape."""
        if y is None or y_pred.shape != y.shape or y_pred.ndim < 4:
            received = f"{tuple(y_pred.shape)} and {None if y is None else tuple(y.shape)}"
            raise ValueError(error_message("y_pred and y", "have the same shape (N, C, H, W[, D])", received))
        # A MetaTensor would follow the values into the buffers.
        maps, masks = y_pred.as_subclass(Tensor).flatten(0, 1), y.as_subclass(Tensor).flatten(0, 1)
        return self.measure(maps, masks).reshape(y_pred.shape[:2])

    def aggregate(self) -> Tensor:
        """The mean (), NaN if no map has a value.

        Raises:
            ValueError: If no batch was added.
        """
        values = self.get_buffer()
        if values is None:
            raise ValueError(error_message("GroundingMetric", "hold at least one batch", "none"))
        known = values.isfinite()
        if not bool(known.all()):
            warnings.warn(
                f"{int((~known).sum())} of {values.numel()} heat maps have no region (or no background), or an infinite "
                "contrast, and are left out.",
                RuntimeWarning,
                stacklevel=2,
            )
        return values[known].mean()
