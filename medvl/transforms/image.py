"""Gray values scaled to [0, 1], images resized and padded to a square or a cube."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from monai.utils import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from medvl.transforms.dicom_volume import RESCALE_TYPE
from medvl.transforms.load_image import LoadStudyImaged, as_float32
from medvl.transforms.packed_image import SCALED
from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.tensors import as_plain

DEFAULT_HU_RANGE = (-1000.0, 1000.0)
"""Hounsfield units from air to dense bone."""

_PERCENTILE_SAMPLES = 1 << 16
_AIR_LIKE = -500


class RadiographIntensity(Transform):
    """Scale gray values so that two percentiles become 0 and 1, and clip the values outside.

    For an image of more than 65,536 values, the percentiles are those of a regular grid of about that many. If both
    percentiles are equal, the minimum and the maximum take their place; a constant image becomes zeros.

    In volumes of Hounsfield units ``hu_range`` becomes 0 to 1 instead, so that the gray of a tissue does not depend on what
    lies around it, such as the padding outside the scan circle. These are CT from DICOM files, and from other files
    volumes with a value of -500 or less; MR, PET and the like do not reach that. A file of another format does not state its
    unit: CT that was cropped to values above -500 is scaled by percentiles whatever ``hu_range`` is, and other volumes that
    reach -500, such as phase images of MR, need ``hu_range=None``. A ``MetaTensor`` with ``rescale_type`` ``"HU"`` or ``"US"``
    (another unit) among its metadata states it.

    Args:
        lower: percentile that becomes 0, in [0, 100).
        upper: percentile that becomes 1, in (lower, 100].
        hu_range: Hounsfield units that become 0 and 1; None scales every volume by its percentiles.

    Raises:
        ValueError: If the percentiles are not in ascending order or outside [0, 100], or ``hu_range`` is not two numbers in
            ascending order.

    Example:
        >>> RadiographIntensity(lower=0, upper=100)(torch.tensor([[[10.0, 20.0, 30.0]]])).tolist()
        [[[0.0, 0.5, 1.0]]]
        >>> RadiographIntensity()(torch.tensor([[[[-3024.0, -1000.0, 0.0, 1000.0]]]])).tolist()
        [[[[0.0, 0.0, 0.5, 1.0]]]]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self, lower: float = 0.5, upper: float = 99.5, hu_range: Sequence[float] | None = DEFAULT_HU_RANGE
    ) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(
                error_message("lower and upper", "satisfy 0 <= lower < upper <= 100", f"{lower} and {upper}")
            )
        self.lower = lower
        self.upper = upper
        self.hu_range = None if hu_range is None else _ascending(hu_range)

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """Scale one image.

        Args:
            image: (C, H, W[, D]).

        Returns:
            float32 in [0, 1], of the same shape; a ``MetaTensor`` if ``image`` is one with voxel sizes.

        Raises:
            ValueError: If a value is NaN or infinite, the image is empty, or it is a packed one that was scaled in another way.
        """
        if isinstance(image, MetaTensor) and SCALED in image.meta:
            self._check_packed(image)
            return as_plain(image)
        rescale_type = image.meta.get(RESCALE_TYPE) if isinstance(image, MetaTensor) else None
        scaled = self._scaled(as_float32(image), rescale_type)
        return (
            MetaTensor(scaled, meta=image.meta) if isinstance(image, MetaTensor) and _voxel_spacing(image) else scaled
        )

    def _check_packed(self, image: MetaTensor) -> None:
        """Raise if a packed image was scaled in another way than this."""
        own: dict[str, object] = {"lower": self.lower, "upper": self.upper}
        if image.ndim == 4:
            own["hu_range"] = None if self.hu_range is None else list(self.hu_range)
        for name, value in own.items():
            if image.meta[SCALED].get(name) != value:
                expected = f"be {image.meta[SCALED].get(name)}, by which the packed images were scaled"
                raise ValueError(error_message(name, expected, value))

    def _scaled(self, tensor: Tensor, rescale_type: str | None) -> Tensor:
        if tensor.numel() == 0:
            raise ValueError(error_message("image", "hold at least one pixel", f"shape {tuple(tensor.shape)}"))
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        if not (
            math.isfinite(low) and math.isfinite(high)
        ):  # one NaN or infinity anywhere reaches the minimum or maximum
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(error_message("image", "be finite", f"{bad} of {tensor.numel()} values NaN or infinite"))
        hounsfield = rescale_type == "HU" if rescale_type else low <= _AIR_LIKE
        if self.hu_range is not None and tensor.ndim == 4 and hounsfield:
            low, high = self.hu_range
        elif self.lower > 0 or self.upper < 100:
            bounds = np.percentile(_sample(tensor).numpy(), (self.lower, self.upper))
            if bounds[1] > bounds[0]:
                low, high = bounds.tolist()
        if high <= low:
            return torch.zeros_like(tensor)
        if high - low > torch.finfo(torch.float32).max:
            tensor, low, high = tensor / 2, low / 2, high / 2
        return tensor.sub(low).div_(high - low).clamp_(0, 1)


def _ascending(hu_range: object) -> tuple[float, float]:
    """Two finite numbers in ascending order, or an error."""
    bounds = list(hu_range) if isinstance(hu_range, Sequence | np.ndarray) and not isinstance(hu_range, str) else []
    if len(bounds) != 2 or not all(isinstance(bound, Real) for bound in bounds):
        raise ValueError(error_message("hu_range", "be two numbers in ascending order, or None", repr(hu_range)))
    if not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError(error_message("hu_range", "be two numbers in ascending order, or None", hu_range))
    return float(bounds[0]), float(bounds[1])


def _sample(tensor: Tensor) -> Tensor:
    """Take every n-th value along each axis, so that about ``_PERCENTILE_SAMPLES`` remain."""
    tensor = tensor.detach().cpu()
    axes = [axis for axis in range(1, tensor.ndim) if tensor.shape[axis] > 1] or [0]
    step = int((tensor.numel() / _PERCENTILE_SAMPLES) ** (1 / len(axes)))
    return tensor[(slice(None), *(slice(None, None, step) for _ in tensor.shape[1:]))] if step > 1 else tensor


class RadiographIntensityd(StudyMapTransform):
    """Dictionary form of :class:`RadiographIntensity`.

    Args:
        keys: keys of images to scale.
        lower: percentile that becomes 0, in [0, 100).
        upper: percentile that becomes 1, in (lower, 100].
        hu_range: see :class:`RadiographIntensity`.
        allow_missing_keys: skip keys that a study lacks.
    """

    backend = RadiographIntensity.backend

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = 0.5,
        upper: float = 99.5,
        hu_range: Sequence[float] | None = DEFAULT_HU_RANGE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RadiographIntensity(lower, upper, hu_range), allow_missing_keys)


RadiographIntensityD = RadiographIntensityDict = RadiographIntensityd


class PadToSquare(Transform):
    """Pad every side to the length of the longest, half at each end; an odd pixel goes to the end.

    Args:
        value: the padding value; None takes the image's minimum.

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
            ValueError: If the image has another number of axes.
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


class PadToSquared(StudyMapTransform):
    """Dictionary form of :class:`PadToSquare`.

    Args:
        keys: keys of images to pad.
        value: the padding value; None takes the image's minimum.
        allow_missing_keys: skip keys that a study lacks.
    """

    backend = PadToSquare.backend

    def __init__(self, keys: KeysCollection, value: float | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, PadToSquare(value), allow_missing_keys)


PadToSquareD = PadToSquareDict = PadToSquared


class ResizeLongest(Transform):
    """Resize the longest side to a given length and keep the aspect ratio.

    2D: bilinear, with antialiasing when shrinking (MONAI's ``Resize`` smooths the whole image first, which takes far longer).
    3D: area interpolation along axes that shrink, trilinear along axes that grow. If a ``MetaTensor`` gives voxels that are
    not cubes, such as those of thick slices, or pixels that are not square, the aspect ratio is the physical one.

    Args:
        size: length of the longest side of the result, in pixels, at least 1.

    Raises:
        TypeError: If ``size`` is not an integer.
        ValueError: If ``size`` is below 1.

    Example:
        >>> tuple(ResizeLongest(8)(torch.rand(1, 32, 16)).shape)
        (1, 8, 4)
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int) -> None:
        check_integer(size, "size", minimum=1)
        self.size = size

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """Resize one image.

        Args:
            image: (C, H, W[, D]), floating point.

        Returns:
            (C, H', W'[, D']) with ``size`` as the longest side and at least one pixel in the others.

        Raises:
            ValueError: If the image has another number of axes.
        """
        tensor = _channel_first(image)
        sides = tensor.shape[1:]
        lengths = [
            side * length for side, length in zip(sides, _voxel_spacing(image) or [1.0] * len(sides), strict=True)
        ]
        target = [max(1, round(length * self.size / max(lengths))) for length in lengths]
        if list(sides) == target:
            return tensor
        if len(sides) == 2:
            return F.interpolate(tensor[None], target, mode="bilinear", antialias=True)[0]
        less = [min(pair) for pair in zip(sides, target, strict=True)]
        if less != list(sides):
            tensor = F.interpolate(tensor[None], less, mode="area")[0]
        return tensor if less == target else F.interpolate(tensor[None], target, mode="trilinear")[0]


class ResizeLongestd(StudyMapTransform):
    """Dictionary form of :class:`ResizeLongest`.

    Args:
        keys: keys of images to resize.
        size: length of the longest side of the result, in pixels, at least 1.
        allow_missing_keys: skip keys that a study lacks.
    """

    backend = ResizeLongest.backend

    def __init__(self, keys: KeysCollection, size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, ResizeLongest(size), allow_missing_keys)


ResizeLongestD = ResizeLongestDict = ResizeLongestd


def _voxel_spacing(image: np.ndarray | Tensor) -> list[float] | None:
    """The edge lengths of an image's pixels or voxels, or None where the metadata has none."""
    if not isinstance(image, MetaTensor):
        return None
    sides = [float(side) for side in image.pixdim[: image.ndim - 1]]
    return sides if all(0 < side < math.inf for side in sides) else None


def _channel_first(image: np.ndarray | Tensor) -> Tensor:
    if np.ndim(image) not in (3, 4):
        raise ValueError(error_message("image", "have shape (C, H, W) or (C, H, W, D)", tuple(np.shape(image))))
    return as_float32(image)


def image_preprocessing(
    image_size: int,
    spatial_dims: int = 2,
    keys: KeysCollection = "image",
    hu_range: Sequence[float] | None = DEFAULT_HU_RANGE,
    allow_missing_keys: bool = False,
) -> Compose:
    """The deterministic preprocessing of training and evaluation: read, scale to [0, 1], resize, pad to a square.

    The longest side is resized to ``image_size`` and the rest is padded with the minimum: the whole image stays in view
    with its aspect ratio, which is the physical one of a volume, whatever its slice spacing, and of a DICOM, NIfTI, NRRD or
    MetaImage file whose pixels are not square.

    Args:
        image_size: side of the square or cube, in pixels.
        spatial_dims: 2 for radiographs, 3 for volumes; an image with another number of dimensions is an error.
        keys: keys of the images.
        hu_range: Hounsfield units that become 0 and 1 in CT volumes, see :class:`RadiographIntensity`.
        allow_missing_keys: skip keys that a study lacks.

    Returns:
        A MONAI ``Compose`` that gives float32 tensors (1, S, S[, S]).

    Raises:
        TypeError: If ``image_size`` is not an integer.
        ValueError: If ``spatial_dims`` is neither 2 nor 3, ``image_size`` is below 1, or ``hu_range`` is not two numbers in
            ascending order.

    Example:
        >>> study = image_preprocessing(8)({"image": np.eye(16, 12), "report": "Clear."})
        >>> tuple(study["image"].shape), study["image"].min().item(), study["report"]
        ((1, 8, 8), 0.0, 'Clear.')
    """
    check_integer(image_size, "image_size", minimum=1)
    check_option(spatial_dims, "spatial_dims", (2, 3))
    return Compose(
        [
            LoadStudyImaged(keys, keep_meta=True, spatial_dims=spatial_dims, allow_missing_keys=allow_missing_keys),
            RadiographIntensityd(keys, hu_range=hu_range, allow_missing_keys=allow_missing_keys),
            ResizeLongestd(keys, image_size, allow_missing_keys=allow_missing_keys),
            PadToSquared(keys, allow_missing_keys=allow_missing_keys),
        ]
    )
