"""Embeddings of images and volumes, whole or window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.data.utils import dense_patch_slices
from monai.utils import fall_back_tuple
from torch import Tensor
from torch.nn import functional as F


class WindowEncoder:
    """Unit vectors of images by a network's ``encode_image``, of the whole image or of windows that slide over it.

    Windows lie as those of MONAI's ``sliding_window_inference``: ``overlap`` of a window lies in the next, and the last ends
    where the image does. Images smaller than a window are padded with 0, the same on both sides.

    Args:
        roi_size: sides of a window in pixels, one number or one for each axis; 0 or less takes the image's whole side. None
            encodes the whole image at once.
        overlap: share of a window, in [0, 1).
        sw_batch_size: windows that are encoded at once.

    Raises:
        ValueError: for an overlap or a batch size outside its range.

    Example:
        >>> class Network:
        ...     def encode_image(self, image):
        ...         return image.flatten(1)
        >>> image = torch.tensor([[[[1.0, 0.0, 2.0, 0.0, 0.0]]]])
        >>> WindowEncoder(roi_size=(1, 3), overlap=0.0)(image, Network())[:, 0].round(decimals=2).tolist()
        [[0.44999998807907104, 0.0, 0.8899999856948853], [1.0, 0.0, 0.0]]
    """

    def __init__(
        self, roi_size: int | Sequence[int] | None = None, overlap: float = 0.25, sw_batch_size: int = 4
    ) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}.")
        if sw_batch_size < 1:
            raise ValueError(f"sw_batch_size must be at least 1, got {sw_batch_size}.")
        self.roi_size, self.overlap, self.sw_batch_size = roi_size, overlap, sw_batch_size

    def __call__(self, image: Tensor, network: Any) -> Tensor:
        """Unit vectors (windows, N, D) of images (N, C, H, W[, D])."""
        network = getattr(network, "module", network)
        image = torch.as_tensor(image).as_subclass(Tensor)  # a MetaTensor would slow down all that comes
        if self.roi_size is None:
            return F.normalize(network.encode_image(image).float(), dim=-1).unsqueeze(0)
        sides = tuple(image.shape[2:])
        rois = (self.roi_size,) * len(sides) if isinstance(self.roi_size, int) else tuple(self.roi_size)
        if len(rois) != len(sides):
            raise ValueError(f"roi_size must have {len(sides)} numbers for the image's axes, got {self.roi_size}.")
        rois = fall_back_tuple(rois, sides)
        image = _pad(image, rois)
        sides = tuple(image.shape[2:])
        steps = [max(1, int(roi * (1 - self.overlap))) for roi in rois]
        places = [(slice(None), slice(None), *place) for place in dense_patch_slices(sides, rois, steps)]
        parts = []
        for start in range(0, len(places), self.sw_batch_size):
            windows = torch.cat([image[place] for place in places[start : start + self.sw_batch_size]])
            parts.append(F.normalize(network.encode_image(windows).float(), dim=-1))
        return torch.cat(parts).unflatten(0, (len(places), len(image)))


def _pad(image: Tensor, rois: Sequence[int]) -> Tensor:
    missing = [max(roi - side, 0) for roi, side in zip(rois, image.shape[2:], strict=True)]
    padding = [half for gap in reversed(missing) for half in (gap // 2, math.ceil(gap / 2))]
    return F.pad(image, padding) if any(missing) else image


def pool_windows(embeds: Tensor) -> Tensor:
    """The mean of windows' unit vectors (windows, N, D), itself of unit length: (N, D)."""
    return embeds[0] if len(embeds) == 1 else F.normalize(embeds.mean(0), dim=-1)
