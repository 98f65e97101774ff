"""Masks of regions in the batches of the segmentation and grounding protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medvl.utils.checks import error_message
from medvl.utils.tensors import as_plain


def check_masks(images: Any, masks: Any, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W[, D]) and boolean masks (N, K, H, W[, D]) as plain tensors.

    Args:
        images: of the batch.
        masks: 0 and 1, or boolean.
        names: of the K regions.

    Raises:
        ValueError: If the masks have another shape or other values.
    """
    images, masks = (as_plain(torch.as_tensor(values)) for values in (images, masks))
    if masks.ndim != images.ndim or masks.shape[:2] != (len(images), len(names)):
        expected = (len(images), len(names), *images.shape[2:])
        raise ValueError(error_message("mask", f"have shape {expected} for {list(names)}", tuple(masks.shape)))
    if masks.dtype != torch.bool:
        wrong = masks[(masks != 0) & (masks != 1)]
        if len(wrong):
            raise ValueError(error_message("mask", "be 0 or 1", wrong[0].item()))
        masks = masks == 1
    return images, masks
