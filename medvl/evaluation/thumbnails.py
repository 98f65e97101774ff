"""Small pictures of images, for the report."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.checks import error_message

THUMBNAIL_SIZE = 192
"""Longest side in pixels of the pictures."""


def axial_plane(volume: np.ndarray, depth: int) -> np.ndarray:
    """An axial slice (..., Y, X) of a volume (..., X, Y, Z) in RAS order, in radiological orientation.

    The patient's right is on the left, anterior at the top.

    Example:
        >>> left, anterior = np.zeros((2, 3, 1)), np.zeros((2, 3, 1))
        >>> left[0], anterior[:, 2] = 1, 1
        >>> axial_plane(left, 0).tolist(), axial_plane(anterior, 0).tolist()
        ([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    """
    return np.swapaxes(volume[..., ::-1, ::-1, depth], -1, -2)


def thumbnail(image: Tensor) -> np.ndarray:
    """A small picture (H, W), uint8, of an image (C, H, W), or of a volume (C, X, Y, Z) in RAS order.

    A volume shows its middle axial slice in radiological orientation: the patient's right on the left, anterior at the top.
    Intensities are clipped at the 1st and 99th percentile, since one bright marker would otherwise darken everything else.
    """
    plane = image.detach().float().cpu()
    if plane.ndim == 4:
        plane = torch.from_numpy(axial_plane(plane.numpy(), plane.shape[-1] // 2).copy())
    plane = plane.mean(dim=0)
    shrink = THUMBNAIL_SIZE / max(plane.shape)
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in plane.shape]
        plane = F.interpolate(plane[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    low, high = np.percentile(plane.numpy(), [1, 99])
    return (np.clip((plane.numpy() - low) / max(high - low, 1e-12), 0, 1) * 255).round().astype(np.uint8)


def check_picture(pixels: np.ndarray) -> None:
    """Raise ``ValueError`` where a picture is not a matrix of uint8."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(error_message("images", "be matrices (H, W) of uint8", f"{pixels.dtype} {pixels.shape}"))
