"""Images of every format, as one channel of gray the right way up."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import warnings
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader, PILReader
from monai.transforms import LoadImage, MapTransform, Orientation, Transform
from monai.utils import TransformBackends
from PIL import Image, ImageOps
from torch import Tensor

from medvl.transforms.dicom import StudyDicomReader
from medvl.transforms.study import named

# Listed, because among all that Pillow reads there are formats that start other programs (EPS).
_PIL_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
for _plugin in ("Jpeg2K", "Tiff", "WebP"):  # Pillow registers these only on import
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")


class LoadStudyImage(Transform):
    """Read a study's image, whatever its format, as one channel of float gray values.

    PNG, JPEG, TIFF, BMP, GIF, WebP, PGM and DICOM come out as (1, H, W), row 0 at the top. Colour, palette, gray with
    alpha and CMYK are reduced to luminance (0.299 R + 0.587 G + 0.114 B, alpha ignored); 16-bit values keep their range; a
    camera's EXIF rotation is applied. DICOM is rescaled, its first VOI table or window applied, MONOCHROME1 inverted:
    here, because only the file's header tells; :class:`RadiographIntensity` then works on any image.

    NIfTI volumes, folders with a DICOM series and DICOM files of many frames (enhanced CT and MR, tomosynthesis) come out
    as (1, X, Y, Z) in RAS orientation: indices grow to the patient's right, front and head. A NIfTI file of a single slice
    comes out as DICOM would show it, (1, H, W): head or front at the top, the patient's right (in a sagittal slice the
    front) at the left.

    Args:
        window: apply the VOI table or window of a DICOM image. False gives rescaled values (Hounsfield units); a series
            always does, as its slices may have windows of their own.
        keep_meta: give a volume as a ``MetaTensor`` with its RAS affine, for ``Spacing`` and the like.
        spatial_dims: 2 or 3 makes an image of the other kind an error; None reads both.

    Example:
        >>> image = LoadStudyImage()(np.array([[[0, 100]], [[0, 100]], [[0, 200]]], dtype=np.uint8))
        >>> tuple(image.shape), [round(value, 1) for value in image.flatten().tolist()]
        ((1, 1, 2), [0.0, 111.4])
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, window: bool = True, keep_meta: bool = False, spatial_dims: int | None = None) -> None:
        self.window = window
        self.keep_meta = keep_meta
        self.spatial_dims = spatial_dims
        self._orient = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))

    def __call__(self, image: str | os.PathLike[str] | np.ndarray | Tensor) -> Tensor:
        """Read one image.

        Args:
            image: a path, or an array or tensor: (H, W) gray, or with channel first (1 or 3, H, W[, D]).

        Returns:
            float32 (1, H, W[, D]).

        Raises:
            OSError: the file does not exist or cannot be opened.
            ValueError: it is empty, broken or of another kind.
        """
        if isinstance(image, np.ndarray | Tensor):
            return self._checked(_gray_array(image), "the array")
        if not isinstance(image, str | os.PathLike):
            raise ValueError(
                f"expected the path of one image or an array, received a {type(image).__name__}; "
                "several views are several studies' rows with the same study_id"
            )
        path = os.fspath(image)
        kind = _format_of(path)
        try:
            gray = self._read(path, kind)
        except MemoryError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ValueError(f"the file {path} cannot be read as {kind}: {reason}") from error
        return self._checked(gray, f"the file {path}")

    def _checked(self, gray: Tensor, what: str) -> Tensor:
        if self.spatial_dims is not None and gray.ndim != self.spatial_dims + 1:
            raise ValueError(f"{what} has {gray.ndim - 1} dimensions, expected {self.spatial_dims} (spatial_dims)")
        return gray

    def _read(self, path: str, kind: str) -> Tensor:
        # The reader is passed in: LoadImage's own search would go on to try others on a broken file, pickles included.
        if kind == "NIfTI":
            return self._volume(_loader()(path, reader=_NiftiReader()))
        if kind == "DICOM":
            pixels = _loader()(path, reader=StudyDicomReader(self.window))
            return self._volume(pixels) if pixels.ndim == 3 else _plain(pixels)[None]
        return _plain(_loader()(path, reader=_PictureReader()))[None]

    def _volume(self, voxels: MetaTensor) -> Tensor:
        while voxels.ndim > 3 and voxels.shape[-1] == 1:
            voxels = voxels[..., 0]
        if voxels.ndim > 3:
            raise ValueError(f"it has the shape {tuple(voxels.shape)}, expected one volume of three dimensions")
        if 0 in voxels.shape:
            raise ValueError(f"it has the shape {tuple(voxels.shape)}, which holds no voxel")
        while voxels.ndim < 3:
            voxels = voxels[..., None]
        volume = self._orient(voxels[None])
        flat = [axis for axis in (1, 2, 3) if volume.shape[axis] == 1]
        if flat:
            # The last flat axis is the slice's: (x, y), (x, z) or (y, z) remain, all of which grow away from the corner
            # at which a picture starts.
            return _plain(volume).select(flat[-1], 0).flip(1, 2).transpose(1, 2).contiguous()
        return volume if self.keep_meta else _plain(volume)


class LoadStudyImaged(MapTransform):
    """Dictionary version of :class:`LoadStudyImage`.

    Args:
        keys: keys of images to read.
        window: see :class:`LoadStudyImage`.
        keep_meta: see :class:`LoadStudyImage`.
        spatial_dims: see :class:`LoadStudyImage`.
        allow_missing_keys: leave out keys that a study does not have.
    """

    backend = LoadStudyImage.backend

    def __init__(
        self,
        keys: KeysCollection,
        window: bool = True,
        keep_meta: bool = False,
        spatial_dims: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = LoadStudyImage(window, keep_meta, spatial_dims)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = named(d, key, self.transform, d[key])
        return d


LoadStudyImageD = LoadStudyImageDict = LoadStudyImaged


@functools.cache
def _loader() -> LoadImage:
    """One for all: it holds no state where the reader is passed in."""
    log = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    disabled, log.disabled = log.disabled, True  # it speaks of a decoder on the GPU that is never used here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return LoadImage(image_only=True, dtype=np.float32)
    finally:
        log.disabled = disabled


class _PictureReader(PILReader):
    def __init__(self) -> None:
        super().__init__(converter=_gray_picture, reverse_indexing=False, formats=_PIL_FORMATS)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        array, meta = super().get_data(img)
        return array.astype(np.float32), meta  # a copy: Pillow's own memory may not be written to


class _NiftiReader(NibabelReader):
    def _get_array_data(self, img: Any, filename: str) -> Any:
        kind = img.get_data_dtype()
        if kind.kind not in "biuf":
            raise ValueError(f"its voxels are of type {kind}, expected real numbers")
        return super()._get_array_data(img, filename)


def plain_float(image: np.ndarray | Tensor) -> Tensor:
    """A float32 tensor without metadata, which would slow down all that follows."""
    if isinstance(image, np.ndarray):
        array = np.ascontiguousarray(image, dtype=np.float32)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    return _plain(image).to(torch.float32)


def _plain(image: Tensor) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _format_of(path: str) -> str:
    """DICOM, NIfTI or picture, by what the file begins with rather than by what it is called."""
    if os.path.isdir(path):
        return "DICOM"
    if not os.path.exists(path):
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        raise OSError(f"the file {path} cannot be opened: {error.strerror}") from error
    if not head:
        raise ValueError(f"the file {path} is empty")
    name = path.lower()
    if head[128:] == b"DICM" or name.endswith((".dcm", ".dicom")):
        return "DICOM"
    return "NIfTI" if name.endswith((".nii", ".nii.gz")) else "a picture"


def _gray_picture(picture: Image.Image) -> Image.Image:
    """One band of gray, decoded whole, so that a truncated file fails here."""
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"it holds {picture.n_frames} frames, expected one image")  # type: ignore[attr-defined]
    picture.load()
    if "exif" in picture.info:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("L", "F", "I") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return picture.convert("F")  # luminance without rounding


def _gray_array(image: np.ndarray | Tensor) -> Tensor:
    shape = tuple(image.shape)
    if len(shape) == 2:
        image = image[None]
    elif len(shape) not in (3, 4) or shape[0] not in (1, 3):
        raise ValueError(f"expected an image of shape (H, W), (1, H, W[, D]) or (3, H, W[, D]), received {shape}")
    tensor = plain_float(image)
    if tensor.shape[0] == 3:
        tensor = torch.tensordot(torch.tensor([0.299, 0.587, 0.114], device=tensor.device), tensor, dims=1)[None]
    return tensor
