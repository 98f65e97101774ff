"""Embeddings of images and volumes, whole or in sliding windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.data.utils import dense_patch_slices
from monai.utils import fall_back_tuple
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.checks import check_integer, check_number, error_message
from medvl.utils.tensors import as_plain


class WindowEncoder:
    """Unit vectors of images by a network's ``encode_image``, of the whole image or of windows that slide over it.

    Windows are placed as by MONAI's ``sliding_window_inference``: a share ``overlap`` of a window overlaps with the next, and
    the last window ends where the image does. Images smaller than a window are padded with 0 on both sides.

    Args:
        roi_size: sides of a window in pixels, one number or one for each axis; 0 or less takes the whole side of the image.
            None encodes the whole image.
        overlap: share of a window, in [0, 1).
        sw_batch_size: number of windows in a batch.

    Raises:
        ValueError: If ``overlap`` or ``sw_batch_size`` is out of range.

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
        check_number(overlap, "overlap")
        if not 0 <= overlap < 1:
            raise ValueError(error_message("overlap", "be at least 0 and below 1", overlap))
        check_integer(sw_batch_size, "sw_batch_size", minimum=1)
        self.roi_size, self.overlap, self.sw_batch_size = roi_size, overlap, sw_batch_size

    def __call__(self, image: Tensor, network: Any) -> Tensor:
        """Unit vectors (windows, N, D) of images (N, C, H, W[, D])."""
        network = getattr(network, "module", network)  # inside DistributedDataParallel
        image = as_plain(torch.as_tensor(image))
        if self.roi_size is None:
            return F.normalize(network.encode_image(image).float(), dim=-1).unsqueeze(0)
        sides = tuple(image.shape[2:])
        roi_size = (self.roi_size,) * len(sides) if isinstance(self.roi_size, int) else tuple(self.roi_size)
        if len(roi_size) != len(sides):
            expected = f"have {len(sides)} values, one for each axis of the image"
            raise ValueError(error_message("roi_size", expected, self.roi_size))
        roi_size = fall_back_tuple(roi_size, sides)
        image = _pad(image, roi_size)
        sides = tuple(image.shape[2:])
        steps = tuple(max(1, int(side * (1 - self.overlap))) for side in roi_size)
        slices = [(slice(None), slice(None), *window) for window in dense_patch_slices(sides, roi_size, steps)]
        embeds = []
        for start in range(0, len(slices), self.sw_batch_size):
            windows = torch.cat([image[window] for window in slices[start : start + self.sw_batch_size]])
            embeds.append(F.normalize(network.encode_image(windows).float(), dim=-1))
        return torch.cat(embeds).unflatten(0, (len(slices), len(image)))


def _pad(image: Tensor, roi_size: Sequence[int]) -> Tensor:
    missing = [max(window - side, 0) for window, side in zip(roi_size, image.shape[2:], strict=True)]
    padding = [half for gap in reversed(missing) for half in (gap // 2, math.ceil(gap / 2))]
    return F.pad(image, padding) if any(missing) else image


def pool_windows(embeds: Tensor) -> Tensor:
    """Means (N, D) of the unit vectors (windows, N, D) of windows, scaled to unit length."""
    return embeds[0] if len(embeds) == 1 else F.normalize(embeds.mean(0), dim=-1)
