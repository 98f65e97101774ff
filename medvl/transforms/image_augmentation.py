"""Random views of a radiograph or a volume, as in ConVIRT."""

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
    MapTransform,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    Transform,
)
from monai.utils import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from medvl.transforms.load_image import plain_float

# The paper's images have 224 pixels a side: a blur in pixels is only meant for that size.
_PAPER_IMAGE_SIZE = 224


class RandRadiographAffine(Randomizable, Transform):
    """Random crop, flip, rotation, translation and scale of a radiograph or a volume in one resampling.

    A point p of the output, in coordinates from -1 to 1, shows the input at c + s F R(a) (p - t) / z: c and s are the
    crop's centre and side, F the flip, a the angle (in a volume one about each axis), t the translation and z the scale. One
    resampling blurs less, takes less time and shows what lies beyond the crop's edge; beyond the image's edge there are zeros.

    Args:
        crop: least and greatest share of the image's area (or volume) that a crop keeps, in (0, 1].
        flip_prob: probability of a flip from left to right, in [0, 1]: along a radiograph's rows, and along the first axis of
            a volume in RAS order.
        rotation: greatest angle either way, in degrees, at least 0.
        translation: greatest shift either way, as a share of the side, at least 0.
        scale: least and greatest magnification, above 0.
        size: side of the square or cubic output in pixels; None keeps the input's size.

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
        self.crop = _range("crop", crop, "two shares in (0, 1]", highest=1)
        self.scale = _range("scale", scale, "two magnifications above 0")
        if not 0 <= flip_prob <= 1:
            raise ValueError(f"flip_prob: expected a probability in [0, 1], received {flip_prob}")
        for name, value in (("rotation", rotation), ("translation", translation)):
            if isinstance(value, Sequence) or not value >= 0:
                raise ValueError(f"{name}: expected one number of at least 0, received {value!r}")
        if size is not None and size < 1:
            raise ValueError(f"size: expected at least 1 pixel or None, received {size}")
        self.flip_prob = flip_prob
        self.rotation = rotation
        self.translation = translation
        self.size = size
        self._draw: list[float] = []

    def randomize(self, data: Any) -> None:
        """Draws anew for an image (C, H, W[, D])."""
        dims = np.ndim(data) - 1
        if dims not in (2, 3):
            raise ValueError(f"image: expected the shape (C, H, W) or (C, H, W, D), received {tuple(np.shape(data))}")
        # All numbers every time: what one of them decides does not shift the random stream of the next image.
        self._draw = self.R.uniform(size=3 + _rotations(dims) + 2 * dims).tolist()

    def matrix(self, sides: Sequence[int]) -> Tensor:
        """The matrix (2, 3) or (3, 4) of the last draw, from output to input coordinates, for an image of these sides.

        As torch's ``affine_grid`` has it, its first coordinate runs along the last axis.
        """
        dims = len(sides)
        angles = _rotations(dims)
        crop, flip, *turns = self._draw[: 2 + angles]
        shifts, (scale, *centres) = self._draw[2 + angles : 2 + angles + dims], self._draw[2 + angles + dims :]
        side = _between(crop, *self.crop) ** (1 / dims)
        zoom = side / _between(scale, *self.scale)
        lengths = sides[::-1]
        turn = _rotation([math.radians(_between(share, -self.rotation, self.rotation)) for share in turns])
        # A share of the side is twice that in coordinates from -1 to 1.
        move = [2 * _between(share, -self.translation, self.translation) for share in shifts]
        rows = []
        for axis, centre in enumerate(centres):
            mirror = -1.0 if flip < self.flip_prob and axis == (0 if dims == 2 else 2) else 1.0
            row = [mirror * zoom * turn[axis][i] * lengths[i] / lengths[axis] for i in range(dims)]
            offset = _between(centre, side - 1, 1 - side) - sum(a * b for a, b in zip(row, move, strict=True))
            rows.append([*row, offset])
        return torch.tensor(rows, dtype=torch.float32)

    def __call__(self, image: np.ndarray | Tensor, randomize: bool = True) -> Tensor:
        """Draw and resample.

        Args:
            image: (C, H, W[, D]), floating point.
            randomize: draw anew; False repeats the last draw.

        Returns:
            (C, H, W[, D]), or (C, size, size[, size]).

        Raises:
            ValueError: the image is neither 2D nor 3D, or not what was drawn for.
        """
        tensor = plain_float(image)
        if randomize:
            self.randomize(tensor)
        channels, *sides = tensor.shape
        if len(self._draw) != 3 + _rotations(len(sides)) + 2 * len(sides):
            raise ValueError(f"image: {len(sides)}D, but the last draw was made for another number of axes, or never.")
        size = [1, channels, *([self.size] * len(sides) if self.size else sides)]
        grid = F.affine_grid(self.matrix(sides)[None].to(tensor), size, align_corners=False)
        return F.grid_sample(tensor[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


class RandRadiographAffined(Randomizable, MapTransform):
    """Dictionary version of :class:`RandRadiographAffine`; one draw for all keys.

    Args:
        keys: keys of the images.
        crop: see :class:`RandRadiographAffine`.
        flip_prob: see :class:`RandRadiographAffine`.
        rotation: see :class:`RandRadiographAffine`.
        translation: see :class:`RandRadiographAffine`.
        scale: see :class:`RandRadiographAffine`.
        size: see :class:`RandRadiographAffine`.
        allow_missing_keys: leave out keys that a study does not have.
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
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = RandRadiographAffine(crop, flip_prob, rotation, translation, scale, size)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandRadiographAffined:
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def randomize(self, data: Any) -> None:
        self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for number, key in enumerate(self.key_iterator(d)):
            if number == 0:
                self.randomize(d[key])
            d[key] = self.transform(d[key], randomize=False)
        return d


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
    """ConVIRT's image augmentation for what :func:`image_preprocessing` gives (Zhang et al. 2022, arXiv:2010.00747).

    Brightness b and contrast k turn a value v into b v and then into m + k (v - m), m being the image's mean.

    Args:
        image_size: side of the square or cubic output, in pixels.
        keys: keys of the images, (C, H, W[, D]) in [0, 1].
        crop: least and greatest share of the area (or volume) that a crop keeps.
        flip_prob: probability of a flip from left to right; it moves a finding to the other side, so set 0 where reports tell
            left from right.
        rotation: greatest angle either way, in degrees; in a volume about each axis.
        translation: greatest shift either way, as a share of the side.
        scale: least and greatest magnification.
        brightness: least and greatest factor b.
        contrast: least and greatest factor k.
        blur_sigma: least and greatest standard deviation of the Gaussian blur, in pixels of the paper's 224-pixel image;
            for another ``image_size`` it is scaled with it.
        blur_prob: probability of a blur.
        allow_missing_keys: leave out keys that a study does not have.

    Returns:
        A seedable MONAI ``Compose``; the images stay plain float32 tensors.

    Example:
        >>> augment = image_augmentation(32).set_random_state(seed=0)
        >>> tuple(augment({"image": torch.rand(1, 32, 32)})["image"].shape)
        (1, 32, 32)
    """
    if image_size < 1:
        raise ValueError(f"image_size: expected at least 1 pixel, received {image_size}")
    if not 0 <= blur_prob <= 1:
        raise ValueError(f"blur_prob: expected a probability in [0, 1], received {blur_prob}")
    factors = {
        name: _range(name, given, "two factors above 0")
        for name, given in (("brightness", brightness), ("contrast", contrast))
    }
    sigma = tuple(
        value * image_size / _PAPER_IMAGE_SIZE for value in _range("blur_sigma", blur_sigma, "two deviations above 0")
    )
    missing = {"allow_missing_keys": allow_missing_keys}
    return Compose(
        [
            RandRadiographAffined(keys, crop, flip_prob, rotation, translation, scale, size=image_size, **missing),
            RandScaleIntensityd(keys, factors=[factor - 1 for factor in factors["brightness"]], prob=1.0, **missing),
            RandScaleIntensityFixedMeand(
                keys, factors=[factor - 1 for factor in factors["contrast"]], prob=1.0, **missing
            ),
            RandGaussianSmoothd(keys, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, prob=blur_prob, **missing),
            EnsureTyped(keys, track_meta=False, **missing),
        ]
    )


def _range(name: str, given: Sequence[float], expected: str, highest: float = math.inf) -> tuple[float, float]:
    """Two numbers above 0 and up to ``highest``, the lesser first."""
    low, high = given if isinstance(given, Sequence) and len(given) == 2 else (math.nan, math.nan)
    if not 0 < low <= high <= highest:
        raise ValueError(f"{name}: expected {expected}, the lesser first, received {given!r}")
    return float(low), float(high)


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def _rotations(dims: int) -> int:
    """Angles of a rotation."""
    return dims * (dims - 1) // 2


def _rotation(angles: Sequence[float]) -> list[list[float]]:
    """The rotation by one angle in the plane, or by three in space, about one axis after the other."""
    dims = 2 if len(angles) == 1 else 3
    matrix = [[float(row == column) for column in range(dims)] for row in range(dims)]
    for (i, j), angle in zip(itertools.combinations(range(dims), 2), angles, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        for row in matrix:
            row[i], row[j] = cos * row[i] + sin * row[j], cos * row[j] - sin * row[i]
    return matrix
