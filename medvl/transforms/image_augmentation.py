"""Random augmentation of radiographs and volumes, as in ConVIRT."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    Transform,
)
from monai.utils import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from medvl.transforms.load_image import as_float32
from medvl.transforms.study import RandStudyMapTransform, study_error_context
from medvl.utils.checks import check_fraction, check_integer, check_non_negative, error_message

# The paper's images have 224 pixels a side: a blur in pixels is only meant for that size.
_PAPER_IMAGE_SIZE = 224


class RandRadiographAffine(Randomizable, Transform):
    """Random crop, flip, rotation, translation and scale of a radiograph or a volume with a single interpolation.

    A point p of the output, in coordinates from -1 to 1, samples the input at c + s F R(a) (p - t) / z: c and s are the
    center and the side of the crop, F the flip, a the angle (in a volume one about each axis), t the translation and z the
    scale. A single interpolation blurs less and takes less time than a chain, and a rotated crop shows the image beyond the
    crop's edge; beyond the image's edge there are zeros.

    Args:
        crop: smallest and largest fraction of the image's area (or volume) that a crop keeps, in (0, 1].
        flip_prob: probability of a left-right flip, in [0, 1]: along the width of a radiograph, along the first axis of a
            volume in RAS orientation.
        rotation: largest angle in either direction, in degrees, at least 0.
        translation: largest shift in either direction, as a fraction of the side, at least 0.
        scale: smallest and largest magnification, above 0.
        size: side of the square or cubic output in pixels, at least 1; None keeps the input's size.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of its range.

    Example:
        >>> augment = RandRadiographAffine(crop=(1, 1), flip_prob=1, rotation=0, translation=0, scale=(1, 1))
        >>> augment.set_random_state(0)(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])).tolist()
        [[[1.0, 0.0], [3.0, 2.0]]]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        crop: Sequence[float] = (0.6, 1.0),
        flip_prob: float = 0.5,
        rotation: float = 20.0,
        translation: float = 0.1,
        scale: Sequence[float] = (0.95, 1.05),
        size: int | None = None,
    ) -> None:
        self.crop = _as_range(crop, "crop", maximum=1)
        self.scale = _as_range(scale, "scale")
        check_fraction(flip_prob, "flip_prob")
        check_non_negative(rotation, "rotation")
        check_non_negative(translation, "translation")
        if size is not None:
            check_integer(size, "size", minimum=1)
        self.flip_prob = flip_prob
        self.rotation = rotation
        self.translation = translation
        self.size = size
        self._draw: list[float] = []

    def randomize(self, data: Any) -> None:
        """Draw for an image (C, H, W[, D])."""
        dims = np.ndim(data) - 1
        if dims not in (2, 3):
            raise ValueError(error_message("image", "have shape (C, H, W) or (C, H, W, D)", tuple(np.shape(data))))
        # Always the same number of draws, so that the options do not shift the random stream of the next image.
        self._draw = self.R.uniform(size=3 + _num_angles(dims) + 2 * dims).tolist()

    def matrix(self, sides: Sequence[int]) -> Tensor:
        """The affine matrix (2, 3) or (3, 4) of the last draw, from output to input coordinates.

        As in :func:`torch.nn.functional.affine_grid`, its first coordinate runs along the last axis.

        Args:
            sides: spatial shape of the image.
        """
        dims = len(sides)
        angles = _num_angles(dims)
        crop, flip, *turns = self._draw[: 2 + angles]
        shifts, (scale, *centers) = self._draw[2 + angles : 2 + angles + dims], self._draw[2 + angles + dims :]
        side = _between(crop, *self.crop) ** (1 / dims)
        zoom = side / _between(scale, *self.scale)
        lengths = sides[::-1]
        turn = _rotation_matrix([math.radians(_between(share, -self.rotation, self.rotation)) for share in turns])
        # In coordinates from -1 to 1 the side has length 2.
        move = [2 * _between(share, -self.translation, self.translation) for share in shifts]
        rows = []
        for axis, center in enumerate(centers):
            mirror = -1.0 if flip < self.flip_prob and axis == (0 if dims == 2 else 2) else 1.0
            row = [mirror * zoom * turn[axis][i] * lengths[i] / lengths[axis] for i in range(dims)]
            offset = _between(center, side - 1, 1 - side) - sum(a * b for a, b in zip(row, move, strict=True))
            rows.append([*row, offset])
        return torch.tensor(rows, dtype=torch.float32)

    def __call__(self, image: np.ndarray | Tensor, randomize: bool = True) -> Tensor:
        """Resample one image.

        Args:
            image: (C, H, W[, D]), floating point.
            randomize: whether to draw again; False repeats the last draw.

        Returns:
            (C, H, W[, D]), or (C, size, size[, size]).

        Raises:
            ValueError: If the image is neither 2D nor 3D, or ``randomize`` is False and the last draw was for another
                number of axes.
        """
        tensor = as_float32(image)
        if randomize:
            self.randomize(tensor)
        channels, *sides = tensor.shape
        if len(self._draw) != 3 + _num_angles(len(sides)) + 2 * len(sides):
            raise ValueError(
                error_message("image", "have as many axes as the image of the last draw", f"{len(sides)} spatial axes")
            )
        size = [1, channels, *([self.size] * len(sides) if self.size else sides)]
        grid = F.affine_grid(self.matrix(sides)[None].to(tensor), size, align_corners=False)
        return F.grid_sample(tensor[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


class RandRadiographAffined(RandStudyMapTransform):
    """Dictionary form of :class:`RandRadiographAffine`; all keys share one draw.

    Args:
        keys: keys of the images.
        crop: see :class:`RandRadiographAffine`.
        flip_prob: see :class:`RandRadiographAffine`.
        rotation: see :class:`RandRadiographAffine`.
        translation: see :class:`RandRadiographAffine`.
        scale: see :class:`RandRadiographAffine`.
        size: see :class:`RandRadiographAffine`.
        allow_missing_keys: skip keys that a study lacks.
    """

    backend = RandRadiographAffine.backend

    def __init__(
        self,
        keys: KeysCollection,
        crop: Sequence[float] = (0.6, 1.0),
        flip_prob: float = 0.5,
        rotation: float = 20.0,
        translation: float = 0.1,
        scale: Sequence[float] = (0.95, 1.05),
        size: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        transform = RandRadiographAffine(crop, flip_prob, rotation, translation, scale, size)
        super().__init__(keys, transform, allow_missing_keys)

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Resample one image by the last draw."""
        return {key: self.transform(data[key], randomize=False)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw once, and return a copy of the study with the views."""
        for key in self.key_iterator(data):
            with study_error_context(data, key):
                self.randomize(data[key])
            break
        return super().__call__(data)


RandRadiographAffineD = RandRadiographAffineDict = RandRadiographAffined


def image_augmentation(
    image_size: int,
    keys: KeysCollection = "image",
    crop: Sequence[float] = (0.6, 1.0),
    flip_prob: float = 0.5,
    rotation: float = 20.0,
    translation: float = 0.1,
    scale: Sequence[float] = (0.95, 1.05),
    brightness: Sequence[float] = (0.6, 1.4),
    contrast: Sequence[float] = (0.6, 1.4),
    blur_sigma: Sequence[float] = (0.1, 3.0),
    blur_prob: float = 1.0,
    allow_missing_keys: bool = False,
) -> Compose:
    """The image augmentation of ConVIRT, after :func:`image_preprocessing` (Zhang et al. 2022, arXiv:2010.00747).

    Brightness b and contrast k turn a value v into b v and then into m + k (v - m), m being the image's mean.

    Args:
        image_size: side of the square or cubic output, in pixels.
        keys: keys of the images, (C, H, W[, D]) in [0, 1].
        crop: smallest and largest fraction of the area (or volume) that a crop keeps.
        flip_prob: probability of a left-right flip; it moves a finding to the other side, so set 0 where reports mention
            sides.
        rotation: largest angle in either direction, in degrees; in a volume about each axis.
        translation: largest shift in either direction, as a fraction of the side.
        scale: smallest and largest magnification.
        brightness: smallest and largest factor b.
        contrast: smallest and largest factor k.
        blur_sigma: smallest and largest standard deviation of the Gaussian blur, in pixels of the paper's 224-pixel image;
            it is scaled with ``image_size``.
        blur_prob: probability of a blur.
        allow_missing_keys: skip keys that a study lacks.

    Returns:
        A MONAI ``Compose`` whose random state can be set; the images stay plain float32 tensors.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of its range.

    Example:
        >>> augment = image_augmentation(32).set_random_state(seed=0)
        >>> tuple(augment({"image": torch.rand(1, 32, 32)})["image"].shape)
        (1, 32, 32)
    """
    check_integer(image_size, "image_size", minimum=1)
    check_fraction(blur_prob, "blur_prob")
    brightness, contrast = _as_range(brightness, "brightness"), _as_range(contrast, "contrast")
    sigma = tuple(value * image_size / _PAPER_IMAGE_SIZE for value in _as_range(blur_sigma, "blur_sigma"))
    missing = {"allow_missing_keys": allow_missing_keys}
    return Compose(
        [
            RandRadiographAffined(keys, crop, flip_prob, rotation, translation, scale, size=image_size, **missing),
            RandScaleIntensityd(keys, factors=[factor - 1 for factor in brightness], prob=1.0, **missing),
            RandScaleIntensityFixedMeand(keys, factors=[factor - 1 for factor in contrast], prob=1.0, **missing),
            RandGaussianSmoothd(keys, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, prob=blur_prob, **missing),
            EnsureTyped(keys, track_meta=False, **missing),
        ]
    )


def _as_range(value: Sequence[float], name: str, maximum: float = math.inf) -> tuple[float, float]:
    """A pair (low, high) with 0 < low <= high <= maximum, as floats."""
    low, high = value if isinstance(value, Sequence) and len(value) == 2 else (math.nan, math.nan)
    if not 0 < low <= high <= maximum:
        bound = f" <= {maximum}" if maximum < math.inf else ""
        raise ValueError(error_message(name, f"be a pair (low, high) with 0 < low <= high{bound}", repr(value)))
    return float(low), float(high)


def _between(share: float, low: float, high: float) -> float:
    """Interpolate: ``low`` for a share of 0, ``high`` for 1."""
    return low + share * (high - low)


def _num_angles(dims: int) -> int:
    """The number of angles of a rotation."""
    return dims * (dims - 1) // 2


def _rotation_matrix(angles: Sequence[float]) -> list[list[float]]:
    """The matrix of a rotation by one angle in 2D, or by three angles about one axis after the other in 3D."""
    dims = 2 if len(angles) == 1 else 3
    matrix = [[float(row == column) for column in range(dims)] for row in range(dims)]
    for (i, j), angle in zip(itertools.combinations(range(dims), 2), angles, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        for row in matrix:
            row[i], row[j] = cos * row[i] + sin * row[j], cos * row[j] - sin * row[i]
    return matrix
