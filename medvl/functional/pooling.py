"""Mean pooling of token embeddings, by mask and by segments such as sentences."""

from __future__ import annotations

import torch
from torch import Tensor

from medvl.utils.checks import error_message
from medvl.utils.tensors import as_float, as_plain


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second-to-last axis of what the mask keeps; 0 where it keeps nothing.

    Args:
        values: (..., L, C), floating point.
        mask: (..., L), True (or not 0) keeps.

    Returns:
        (..., C).

    Raises:
        ValueError: If the mask's shape is not that of the values without their last axis.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])).tolist()
        [[2.0]]
    """
    if mask.shape != values.shape[:-1]:
        expected = f"have shape {tuple(values.shape[:-1])}"
        raise ValueError(error_message("mask", expected, tuple(mask.shape)))
    kept = as_plain(mask).to(torch.bool).unsqueeze(-1)
    # A value that is not kept may be NaN: it is replaced, not multiplied by 0. In half precision the sum of many tokens
    # overflows.
    total = as_float(values.masked_fill(~kept, 0.0)).sum(-2)
    return (total / kept.sum(-2).clamp_min(1)).to(values.dtype)


def segment_mean(values: Tensor, segment_ids: Tensor, num_segments: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean of the values of each segment, such as the tokens of each sentence.

    Args:
        values: (M, L, C), floating point.
        segment_ids: (M, L) integers, the segment of every value; -1 for values outside segments (special tokens, padding).
        num_segments: S; without it, one more than the largest id (reading that synchronizes with the device).

    Returns:
        Means (M, S, C), 0 for a segment without values, and a mask (M, S) that is True for segments with values.

    Raises:
        TypeError: If segment ids are not integers.
        ValueError: If the shapes are inconsistent, or an id is not below ``num_segments``.

    Example:
        >>> values = torch.tensor([[[9.0], [1.0], [3.0], [5.0]]])
        >>> means, mask = segment_mean(values, torch.tensor([[-1, 0, 0, 1]]), num_segments=3)
        >>> means[..., 0].tolist(), mask.tolist()
        ([[2.0, 5.0, 0.0]], [[True, True, False]])
    """
    if segment_ids.is_floating_point() or segment_ids.dtype == torch.bool:
        raise TypeError(error_message("segment_ids", "be integers", segment_ids.dtype))
    if values.ndim != 3 or segment_ids.shape != values.shape[:2]:
        received = f"{tuple(values.shape)} and {tuple(segment_ids.shape)}"
        raise ValueError(error_message("values and segment_ids", "have shapes (M, L, C) and (M, L)", received))
    segment_ids = as_plain(segment_ids).long()
    largest = int(segment_ids.max()) + 1 if segment_ids.numel() else 0
    count = max(largest, 0) if num_segments is None else num_segments
    if largest > count:
        raise ValueError(error_message("segment_ids", f"be below num_segments, {count}", largest - 1))
    # Values outside segments are summed in one more segment, which is cut off.
    slots = segment_ids.where(segment_ids >= 0, count)
    # In half precision the running sum of a long segment would stop growing.
    wide = as_float(values)
    sums = wide.new_zeros(len(wide), count + 1, wide.shape[2])
    sums = sums.scatter_add(1, slots.unsqueeze(-1).expand_as(wide), wide)[:, :count]
    sizes = wide.new_zeros(len(wide), count + 1).scatter_add(1, slots, wide.new_ones(slots.shape))[:, :count]
    return (sums / sizes.clamp_min(1).unsqueeze(-1)).to(values.dtype), sizes > 0
