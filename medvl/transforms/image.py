"""Radiographs and volumes on one scale of gray, in a square of one size."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from medvl.transforms.load_image import LoadStudyImaged, plain_float
from medvl.transforms.study import named

_PERCENTILE_SAMPLES = 1 << 16


class RadiographIntensity(Transform):
    """Scale gray values to [0, 1] between two percentiles and clip what lies beyond.

    Percentiles of an image of more than 65,536 values are taken from a regular grid of about so many. Where both
    percentiles are the same value, the range is that from minimum to maximum; a constant image becomes zeros.

    Args:
        lower: percentile that becomes 0, in [0, 100).
        upper: percentile that becomes 1, in (lower, 100].

    Example:
        >>> RadiographIntensity(lower=0, upper=100)(torch.tensor([[[10.0, 20.0, 30.0]]])).tolist()
        [[[0.0, 0.5, 1.0]]]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"lower, upper: expected 0 <= lower < upper <= 100, received {lower} and {upper}")
        self.lower = lower
        self.upper = upper

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """Scale one image.

        Args:
            image: (C, H, W[, D]).

        Returns:
            float32 in [0, 1], of the same shape; a ``MetaTensor`` for one that tells how large its voxels are.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        scaled = self._scaled(plain_float(image))
        return MetaTensor(scaled, meta=image.meta) if isinstance(image, MetaTensor) and _voxel_sides(image) else scaled

    def _scaled(self, tensor: Tensor) -> Tensor:
        if tensor.numel() == 0:
            raise ValueError(f"the image has the shape {tuple(tensor.shape)}, which holds no pixel")
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        if not (math.isfinite(low) and math.isfinite(high)):  # a NaN or infinity anywhere shows in them
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(f"{bad} of the image's {tensor.numel()} pixel values are NaN or infinite, expected none")
        if self.lower > 0 or self.upper < 100:
            bounds = np.percentile(_sample(tensor).numpy(), (self.lower, self.upper))
            if bounds[1] > bounds[0]:
                low, high = bounds.tolist()
        if high <= low:
            return torch.zeros_like(tensor)
        if high - low > torch.finfo(torch.float32).max:
            tensor, low, high = tensor / 2, low / 2, high / 2
        return tensor.sub(low).div_(high - low).clamp_(0, 1)


def _sample(tensor: Tensor) -> Tensor:
    """Every n-th value along each axis, so that about ``_PERCENTILE_SAMPLES`` remain."""
    tensor = tensor.detach().cpu()
    axes = [axis for axis in range(1, tensor.ndim) if tensor.shape[axis] > 1] or [0]
    step = int((tensor.numel() / _PERCENTILE_SAMPLES) ** (1 / len(axes)))
    return tensor[(slice(None), *(slice(None, None, step) for _ in tensor.shape[1:]))] if step > 1 else tensor


class RadiographIntensityd(MapTransform):
    """Dictionary version of :class:`RadiographIntensity`.

    Args:
        keys: keys of images to scale.
        lower: percentile that becomes 0, in [0, 100).
        upper: percentile that becomes 1, in (lower, 100].
        allow_missing_keys: leave out keys that a study does not have.
    """

    backend = RadiographIntensity.backend

    def __init__(
        self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = RadiographIntensity(lower, upper)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named(d, key, self.transform, d[key])
        return d


RadiographIntensityD = RadiographIntensityDict = RadiographIntensityd


class PadToSquare(Transform):
    """Pad the shorter sides to the longest, half on each side (the odd pixel at the end).

    Args:
        value: what to pad with; None takes the image's minimum.

    Example:
        >>> PadToSquare()(torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
        [[[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, value: float | None = None) -> None:
        self.value = value

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """Pad one image.

        Args:
            image: (C, H, W[, D]).

        Returns:
            (C, S, S[, S]) with S the longest side.

        Raises:
            ValueError: the image has another number of axes.
        """
        tensor = _channel_first(image)
        sides = tensor.shape[1:]
        longest = max(sides)
        if all(side == longest for side in sides):
            return tensor
        padding: list[int] = []
        for side in reversed(sides):  # torch counts from the last axis
            before = (longest - side) // 2
            padding += [before, longest - side - before]
        value = float(tensor.min()) if self.value is None else self.value
        return F.pad(tensor, padding, value=value)


class PadToSquared(MapTransform):
    """Dictionary version of :class:`PadToSquare`.

    Args:
        keys: keys of images to pad.
        value: what to pad with; None takes the image's minimum.
        allow_missing_keys: leave out keys that a study does not have.
    """

    backend = PadToSquare.backend

    def __init__(self, keys: KeysCollection, value: float | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = PadToSquare(value)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named(d, key, self.transform, d[key])
        return d


PadToSquareD = PadToSquareDict = PadToSquared


class ResizeLongest(Transform):
    """Resize so that the longest side has a given length, the proportions kept.

    2D: bilinear, antialiased when it shrinks (MONAI's ``Resize`` smooths the whole image first, which takes far longer).
    3D: area along axes that shrink, trilinear along those that grow. Where a ``MetaTensor`` tells that a volume's voxels are
    not cubes, as those of thick slices, the proportions are those of the body and not of the numbers of voxels.

    Args:
        size: length of the longest side afterwards, in pixels.

    Example:
        >>> tuple(ResizeLongest(8)(torch.rand(1, 32, 16)).shape)
        (1, 8, 4)
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size: expected at least 1 pixel, received {size}")
        self.size = size

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """Resize one image.

        Args:
            image: (C, H, W[, D]), floating point.

        Returns:
            (C, H', W'[, D']) with ``size`` as the longest side and at least one pixel in the others.

        Raises:
            ValueError: the image has another number of axes.
        """
        tensor = _channel_first(image)
        sides = tensor.shape[1:]
        lengths = [side * length for side, length in zip(sides, _voxel_sides(image) or [1.0] * len(sides), strict=True)]
        target = [max(1, round(length * self.size / max(lengths))) for length in lengths]
        if list(sides) == target:
            return tensor
        if len(sides) == 2:
            return F.interpolate(tensor[None], target, mode="bilinear", antialias=True)[0]
        less = [min(pair) for pair in zip(sides, target, strict=True)]
        if less != list(sides):
            tensor = F.interpolate(tensor[None], less, mode="area")[0]
        return tensor if less == target else F.interpolate(tensor[None], target, mode="trilinear")[0]


class ResizeLongestd(MapTransform):
    """Dictionary version of :class:`ResizeLongest`.

    Args:
        keys: keys of images to resize.
        size: length of the longest side afterwards, in pixels.
        allow_missing_keys: leave out keys that a study does not have.
    """

    backend = ResizeLongest.backend

    def __init__(self, keys: KeysCollection, size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ResizeLongest(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named(d, key, self.transform, d[key])
        return d


ResizeLongestD = ResizeLongestDict = ResizeLongestd


def _voxel_sides(image: np.ndarray | Tensor) -> list[float] | None:
    """How long a volume's voxels are along each axis, where its metadata tells that."""
    if not isinstance(image, MetaTensor) or image.ndim != 4:
        return None
    sides = [float(side) for side in image.pixdim]
    return sides if all(0 < side < math.inf for side in sides) else None


def _channel_first(image: np.ndarray | Tensor) -> Tensor:
    if np.ndim(image) not in (3, 4):
        raise ValueError(f"image: expected the shape (C, H, W) or (C, H, W, D), received {tuple(np.shape(image))}")
    return plain_float(image)


def image_preprocessing(
    image_size: int, spatial_dims: int = 2, keys: KeysCollection = "image", allow_missing_keys: bool = False
) -> Compose:
    """The deterministic chain for training and evaluation alike: read, scale to [0, 1], resize, pad to a square.

    The longest side is resized to ``image_size`` and the rest padded with the minimum: the whole image stays in view and
    keeps its proportions, a volume those of the body, whatever the distance of its slices.

    Args:
        image_size: side of the square or cube, in pixels.
        spatial_dims: 2 for radiographs, 3 for volumes; an image of the other kind is an error.
        keys: keys of the images.
        allow_missing_keys: leave out keys that a study does not have.

    Returns:
        A MONAI ``Compose`` from a study to a copy with float32 tensors (1, S, S[, S]).

    Example:
        >>> study = image_preprocessing(8)({"image": np.eye(16, 12), "report": "Clear."})
        >>> tuple(study["image"].shape), study["image"].min().item(), study["report"]
        ((1, 8, 8), 0.0, 'Clear.')
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims: expected 2 or 3, received {spatial_dims}")
    return Compose(
        [
            LoadStudyImaged(
                keys, keep_meta=spatial_dims == 3, spatial_dims=spatial_dims, allow_missing_keys=allow_missing_keys
            ),
            RadiographIntensityd(keys, allow_missing_keys=allow_missing_keys),
            ResizeLongestd(keys, image_size, allow_missing_keys=allow_missing_keys),
            PadToSquared(keys, allow_missing_keys=allow_missing_keys),
        ]
    )
