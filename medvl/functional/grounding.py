"""Agreement of a heat map with a region: contrast-to-noise ratio, IoU over thresholds, pointing game."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medvl.utils.checks import error_message

GROUNDING_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Thresholds of the mean IoU that phrase grounding is reported with."""

TIE_EPSILONS = 8
"""Values of a map closer than this many machine epsilons of its largest magnitude are ties: resizing a constant map leaves
such differences."""


def contrast_to_noise_ratio(maps: Tensor, masks: Tensor) -> Tensor:
    """Contrast of a heat map between a region and the rest, in units of the noise; signed.

    With the mean mu and the population variance sigma^2 of the map inside (A) and outside (B) the region::

        CNR = (mu_A - mu_B) / sqrt(sigma_A^2 + sigma_B^2)

    (Boecking et al., 2022, who take the absolute value: a map that is high everywhere but in the region then scores well).
    It is invariant to a shift and to a positive scale of the map.

    Args:
        maps: heat maps (N, H, W[, D]), any finite values.
        masks: regions of the same shape, boolean or 0 and 1.

    Returns:
        CNR (N,), float32 (float64 for float64 maps). A constant map has 0; two constant levels, without noise, have plus or
        minus infinity; NaN where the region is empty or the whole image.

    Raises:
        ValueError: If the shapes differ, a map holds NaN or infinite values, or a mask holds anything but 0 and 1.

    Example:
        >>> mask = torch.tensor([[[True, True, False, False]]])
        >>> contrast_to_noise_ratio(torch.tensor([[[3.0, 5.0, 0.0, 2.0]]]), mask).round(decimals=4)
        tensor([2.1213])
        >>> contrast_to_noise_ratio(torch.tensor([[[0.0, 2.0, 3.0, 5.0]]]), mask).round(decimals=4)
        tensor([-2.1213])
    """
    values, inside = _flat(maps, masks)
    flat = _tolerance(values) >= values.amax(dim=1) - values.amin(dim=1)
    # Shifted by one value first: the variance of a map around a large mean would drown in rounding.
    values = values - values[:, :1]
    mean_in, variance_in = _moments(values, inside)
    mean_out, variance_out = _moments(values, ~inside)
    ratio = (mean_in - mean_out) / (variance_in + variance_out).sqrt()
    both = inside.any(dim=1) & ~inside.all(dim=1)
    return ratio.masked_fill(flat, 0.0).masked_fill(~both, torch.nan)


def iou_at_thresholds(maps: Tensor, masks: Tensor, thresholds: Sequence[float] = GROUNDING_THRESHOLDS) -> Tensor:
    """Intersection over union of a region with the pixels of a heat map at or above each threshold.

    With the region A and the prediction B_t = {p : map_p >= t}, IoU_t = #(A and B_t) / #(A or B_t). An empty prediction has
    IoU 0 and counts; leaving it out would reward maps that predict nothing.

    Args:
        maps: heat maps (N, H, W[, D]) on the scale of the thresholds, such as cosines; nothing is rescaled here.
        masks: regions of the same shape, boolean or 0 and 1.
        thresholds: T numbers, at least one.

    Returns:
        IoU (N, T), float32 (float64 for float64 maps), from 0 to 1; NaN where the region is empty.

    Raises:
        ValueError: If there is no threshold, and as :func:`contrast_to_noise_ratio` does.

    Example:
        >>> maps = torch.tensor([[[0.6, 0.3, 0.2, -0.4]]])
        >>> iou_at_thresholds(maps, torch.tensor([[[1, 1, 0, 0]]]), [0.1, 0.25, 0.5, 0.9]).round(decimals=4)
        tensor([[0.6667, 1.0000, 0.5000, 0.0000]])
    """
    if not len(thresholds):
        raise ValueError(error_message("thresholds", "hold at least one number", "none"))
    values, inside = _flat(maps, masks)
    columns = []
    for threshold in thresholds:
        called = values >= threshold
        columns.append((called & inside).sum(dim=1).to(values.dtype) / (called | inside).sum(dim=1))
    return torch.stack(columns, dim=1).masked_fill(~inside.any(dim=1, keepdim=True), torch.nan)


def mean_iou(maps: Tensor, masks: Tensor, thresholds: Sequence[float] = GROUNDING_THRESHOLDS) -> Tensor:
    """Mean over thresholds of the IoU (:func:`iou_at_thresholds`), empty predictions counted as 0.

    Args:
        maps: heat maps (N, H, W[, D]) on the scale of the thresholds.
        masks: regions of the same shape.
        thresholds: 0.1 to 0.5 in steps of 0.1 are the field's.

    Returns:
        Mean IoU (N,), from 0 to 1; NaN where the region is empty.

    Raises:
        ValueError: As :func:`iou_at_thresholds` does.

    Example:
        >>> mean_iou(torch.tensor([[[0.35, 0.0]], [[-0.2, -0.1]]]), torch.tensor([[[1, 0]], [[1, 0]]])).round(decimals=4)
        tensor([0.6000, 0.0000])
    """
    return iou_at_thresholds(maps, masks, thresholds).mean(dim=1)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the maximum of a heat map lies inside the region (Zhang et al., 2018), without a margin around it.

    If several points attain the maximum, all of them must lie inside: a constant map never hits.

    Args:
        maps: heat maps (N, H, W[, D]).
        masks: regions of the same shape, boolean or 0 and 1.

    Returns:
        1 for a hit and 0 for a miss (N,), float32 (float64 for float64 maps); NaN where the region is empty.

    Raises:
        ValueError: As :func:`contrast_to_noise_ratio` does.

    Example:
        >>> maps = torch.tensor([[[0.9, 0.1]], [[-0.5, -0.9]], [[0.4, 0.4]]])
        >>> pointing_game(maps, torch.tensor([[[1, 0]], [[0, 1]], [[1, 0]]]))
        tensor([1., 0., 0.])
    """
    values, inside = _flat(maps, masks)
    highest = values >= (values.amax(dim=1) - _tolerance(values))[:, None]
    hits = ~(highest & ~inside).any(dim=1)
    return hits.to(values.dtype).masked_fill(~inside.any(dim=1), torch.nan)


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, X) in float32 or float64 and masks (N, X) boolean, checked."""
    if maps.shape != masks.shape or maps.ndim < 2 or not maps.is_floating_point():
        received = f"{maps.dtype} {tuple(maps.shape)} and {tuple(masks.shape)}"
        expected = "be floating point and of one shape (N, H, W[, D])"
        raise ValueError(error_message("maps and masks", expected, received))
    if not maps[0:1].numel() and len(maps):
        raise ValueError(error_message("maps", "hold at least one pixel each", f"shape {tuple(maps.shape)}"))
    values = maps.detach().flatten(1).to(torch.promote_types(maps.dtype, torch.float32))
    wrong = ~values.isfinite().all(dim=1)
    if bool(wrong.any()):
        received = f"NaN or infinite values in {int(wrong.sum())} of {len(maps)} maps"
        raise ValueError(error_message("maps", "be finite", received))
    inside = masks.detach().flatten(1)
    if inside.dtype != torch.bool:
        if bool(((inside != 0) & (inside != 1)).any()):
            raise ValueError(error_message("masks", "be boolean or hold 0 and 1 only", "other values"))
        inside = inside == 1
    return values, inside


def _tolerance(values: Tensor) -> Tensor:
    """Difference (N,) below which two values of a map tie."""
    return TIE_EPSILONS * torch.finfo(values.dtype).eps * values.abs().amax(dim=1)


def _moments(values: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (N,) of the chosen values of each row; NaN for none."""
    number = where.sum(dim=1)
    mean = (values * where).sum(dim=1) / number
    return mean, ((values - mean[:, None]).square() * where).sum(dim=1) / number
