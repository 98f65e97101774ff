"""Random views of a radiograph, as in ConVIRT."""

from __future__ import annotations

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
    """Random crop, flip, rotation, translation and scale of a 2D image in one resampling.

    A point p of the output, in coordinates from -1 to 1, shows the input at c + s F R(a) (p - t) / z: c and s are the
    crop's centre and side, F the flip, a the angle, t the translation and z the scale. One resampling blurs less, takes
    less time and shows what lies beyond the crop's edge; beyond the image's edge there are zeros.

    Args:
        crop: least and greatest share of the image's area that a crop keeps, in (0, 1].
        flip_prob: probability of a horizontal flip, in [0, 1].
        rotation: greatest angle either way, in degrees.
        translation: greatest shift either way, as a share of the side.
        scale: least and greatest magnification, above 0.
        size: side of the square output in pixels; None keeps the input's size.

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
        if not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop: expected two shares in (0, 1], the lesser first, received {tuple(crop)}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: expected two magnifications above 0, the lesser first, received {tuple(scale)}")
        if not 0 <= flip_prob <= 1:
            raise ValueError(f"flip_prob: expected a probability in [0, 1], received {flip_prob}")
        self.crop = (float(crop[0]), float(crop[1]))
        self.flip_prob = flip_prob
        self.rotation = rotation
        self.translation = translation
        self.scale = (float(scale[0]), float(scale[1]))
        self.size = size
        self._draw = np.zeros(8)

    def randomize(self, data: Any = None) -> None:
        # All eight numbers every time: what one of them decides does not shift the random stream of the next image.
        self._draw = self.R.uniform(size=8)

    def matrix(self, height: int, width: int) -> Tensor:
        """The (2, 3) matrix of the last draw, from output to input coordinates, for an image of this size."""
        crop, flip, angle, shift_x, shift_y, scale, centre_x, centre_y = self._draw
        side = math.sqrt(_between(crop, *self.crop))
        radians = math.radians(_between(angle, -self.rotation, self.rotation))
        zoom = side / _between(scale, *self.scale)
        mirror = -1.0 if flip < self.flip_prob else 1.0
        cos, sin, aspect = math.cos(radians) * zoom, math.sin(radians) * zoom, height / width
        xx, xy, yx, yy = mirror * cos, -mirror * sin * aspect, sin / aspect, cos
        # A share of the side is twice that in coordinates from -1 to 1.
        move_x, move_y = (2 * _between(shift, -self.translation, self.translation) for shift in (shift_x, shift_y))
        x, y = (_between(centre, side - 1, 1 - side) for centre in (centre_x, centre_y))
        return torch.tensor(
            [[xx, xy, x - xx * move_x - xy * move_y], [yx, yy, y - yx * move_x - yy * move_y]], dtype=torch.float32
        )

    def __call__(self, image: np.ndarray | Tensor, randomize: bool = True) -> Tensor:
        """Draw and resample.

        Args:
            image: (C, H, W), floating point.
            randomize: draw anew; False repeats the last draw.

        Returns:
            (C, H, W), or (C, size, size).

        Raises:
            ValueError: the image is not 2D.
        """
        tensor = plain_float(image)
        if tensor.ndim != 3:
            raise ValueError(f"image: expected the shape (C, H, W), received {tuple(tensor.shape)}")
        if randomize:
            self.randomize()
        channels, height, width = tensor.shape
        size = [1, channels, self.size or height, self.size or width]
        matrix = self.matrix(height, width).to(tensor)
        grid = F.affine_grid(matrix[None], size, align_corners=False)
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

    def randomize(self, data: Any = None) -> None:
        self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize()
        for key in self.key_iterator(d):
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
        image_size: side of the square output, in pixels.
        keys: keys of the images, (C, H, W) in [0, 1].
        crop: least and greatest share of the area that a crop keeps.
        flip_prob: probability of a horizontal flip; it moves a finding to the other side, so set 0 where reports tell
            left from right.
        rotation: greatest angle either way, in degrees.
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
    sigma = tuple(value * image_size / _PAPER_IMAGE_SIZE for value in blur_sigma)
    missing = {"allow_missing_keys": allow_missing_keys}
    return Compose(
        [
            RandRadiographAffined(keys, crop, flip_prob, rotation, translation, scale, size=image_size, **missing),
            RandScaleIntensityd(keys, factors=[factor - 1 for factor in brightness], prob=1.0, **missing),
            RandScaleIntensityFixedMeand(keys, factors=[factor - 1 for factor in contrast], prob=1.0, **missing),
            RandGaussianSmoothd(keys, sigma_x=sigma, sigma_y=sigma, prob=blur_prob, **missing),
            EnsureTyped(keys, track_meta=False, **missing),
        ]
    )


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)
