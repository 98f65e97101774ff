"""Image files of every format as one gray channel in a fixed orientation."""

from __future__ import annotations

import functools
import gzip
import logging
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any, ClassVar

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader
from monai.transforms import LoadImage, Orientation, Transform
from monai.utils import MetaKeys, SpaceKeys, TransformBackends, ensure_tuple, optional_import
from torch import Tensor

from medvl.transforms.dicom_volume import RESCALE_TYPE, StudyDicomReader
from medvl.transforms.file_format import file_format, is_gzip
from medvl.transforms.itk_file import StudyItkReader, check_itk_header
from medvl.transforms.packed_image import SCALED, read_packed_image
from medvl.transforms.picture import PictureReader
from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import check_option, error_message
from medvl.utils.errors import plain_reason
from medvl.utils.extras import MissingExtraError
from medvl.utils.limits import check_size, read_bounded
from medvl.utils.tar_members import TarMember
from medvl.utils.tensors import as_plain

SQUARE_TOLERANCE = 0.01
"""How much longer one side of a square pixel may be than the other, as a fraction."""


class LoadStudyImage(Transform):
    """Read a study's image, whatever its format, as one channel of floating-point gray values.

    PNG, JPEG, TIFF, BMP, GIF, WebP, PGM and DICOM images become (1, H, W) with row 0 at the top. Color, palette, gray with
    alpha and CMYK are converted to luminance (0.299 R + 0.587 G + 0.114 B, alpha is ignored). 16-bit gray keeps its range;
    pictures of more than 8 bits a channel in color or with alpha, which Pillow cuts to 8, are an error. The EXIF orientation
    is applied. DICOM pixels are rescaled, the first VOI LUT or window is applied and MONOCHROME1 is inverted: only the
    file's header has what that takes. :class:`RadiographIntensity` then works on any image.

    NIfTI, NRRD and MetaImage volumes, folders with a DICOM series and multi-frame DICOM files (enhanced CT and MR,
    tomosynthesis) become (1, X, Y, Z) in RAS orientation: indices grow to the patient's right, anterior and superior. A NIfTI
    file of a single slice becomes (1, H, W), as DICOM shows it: superior or anterior at the top, the patient's right (in a
    sagittal slice the anterior) at the left. NRRD and MetaImage need ITK (the extra ``itk``) and one component a voxel:
    color, vectors and complex numbers are an error.

    NumPy files and arrays are taken as they are; a volume in a ``MetaTensor`` is oriented by its affine matrix, as its file
    would be. A picture that MONAI's ``LoadImage`` has read is an error, since its metadata does not say whether columns come
    first (MONAI's default) or rows: give its path, or ``picture.as_tensor().mT``.

    The content of a file decides what it is, before its name; it may be compressed by gzip if it is DICOM or NIfTI. An image
    in a packed folder (``medvl pack``) comes as a ``MetaTensor`` in [0, 1], which :class:`RadiographIntensity` leaves as it
    is.

    Args:
        window: apply the VOI LUT or window of a DICOM image. False gives rescaled values (Hounsfield units in CT); a series
            always does, since its slices may have different windows.
        keep_meta: return a volume as a ``MetaTensor`` with its RAS affine, for ``Spacing`` and the like, and an image whose
            pixels are not square, by the header of a DICOM, NIfTI, NRRD or MetaImage file, as one with the height and width of
            a pixel.
        spatial_dims: 2 or 3 makes an image with another number of dimensions an error; None reads both.

    Raises:
        ValueError: If ``spatial_dims`` is not 2, 3 or None.

    Example:
        >>> image = LoadStudyImage()(np.array([[[0, 100]], [[0, 100]], [[0, 200]]], dtype=np.uint8))
        >>> tuple(image.shape), [round(value, 1) for value in image.flatten().tolist()]
        ((1, 1, 2), [0.0, 111.4])
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, window: bool = True, keep_meta: bool = False, spatial_dims: int | None = None) -> None:
        check_option(spatial_dims, "spatial_dims", (2, 3, None))
        self.window = window
        self.keep_meta = keep_meta
        self.spatial_dims = spatial_dims
        self._orient = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))

    def __call__(self, image: str | os.PathLike[str] | np.ndarray | Tensor) -> Tensor:
        """Read one image.

        Args:
            image: a path, or an array or tensor: (H, W), or channel-first (1, H, W[, D]) or (3, H, W[, D]). A ``MetaTensor``
                with the metadata of MONAI's ``LoadImage`` may also be a volume without a channel, (H, W, D).

        Returns:
            float32 (1, H, W[, D]).

        Raises:
            TypeError: If ``image`` is neither a path nor an array.
            OSError: If the file does not exist or cannot be opened.
            ValueError: If the file is empty, damaged or of an unsupported format, or has another number of dimensions.
        """
        if isinstance(image, MetaTensor) and _is_volume(image):
            return self._check_dims(self._volume(_gray_volume(image)), "image")
        if isinstance(image, MetaTensor) and _is_read_by_monai(image):
            received = "a MetaTensor of a file, whose columns come first unless reverse_indexing=False"
            raise ValueError(
                error_message("image", "be a path, or a tensor without metadata whose rows come first", received)
            )
        if isinstance(image, np.ndarray | Tensor):
            return self._check_dims(_gray_array(image), "image")
        if not isinstance(image, str | os.PathLike):
            received = f"{type(image).__name__}; several views are rows of their own with the same study_id"
            raise TypeError(error_message("image", "be one path or array", received))
        path = os.fspath(image)
        member = TarMember.parse(path)
        if member is not None:
            return self._check_dims(read_packed_image(member), f"the image {member.source_name} in {member.tar}")
        kind = file_format(path)
        try:
            gray = self._read(path, kind)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"the file {path} cannot be read as {kind}: {plain_reason(error)}.") from error
        return self._check_dims(gray, f"the file {path}")

    def _check_dims(self, gray: Tensor, name: str) -> Tensor:
        """Return ``gray`` if it has the expected number of dimensions."""
        if self.spatial_dims is not None and gray.ndim != self.spatial_dims + 1:
            raise ValueError(
                error_message(name, f"have {self.spatial_dims} spatial dimensions (spatial_dims)", gray.ndim - 1)
            )
        return gray

    def _read(self, path: str, kind: str) -> Tensor:
        # With a reader given, LoadImage tries no others on a damaged file; NumPyReader, which unpickles, is one of them.
        if kind == "NIfTI":
            return self._volume(_loader()(path, reader=_NiftiReader()))
        if kind == "DICOM":
            pixels = _loader()(path, reader=StudyDicomReader(self.window))
            return self._volume(pixels) if pixels.ndim == 3 else self._picture(as_plain(pixels), pixels.pixdim[:2])
        if kind == "NumPy":
            return _gray_array(_numpy_array(path))
        if kind in ("NRRD", "MetaImage"):
            check_itk_header(path)
            voxels = _loader()(path, reader=_itk_reader()(kind))
            if voxels.ndim > 2:
                return self._volume(voxels)
            return self._picture(as_plain(voxels).T.contiguous(), voxels.pixdim[:2].flip(0))
        return as_plain(_loader()(path, reader=PictureReader()))[None]

    def _picture(self, gray: Tensor, size: Sequence[float] | Tensor) -> Tensor:
        """An image (H, W) with a channel; with the size (2,) of its pixels as metadata where they are not square."""
        height, width = (float(side) for side in size)
        known = 0 < height < math.inf and 0 < width < math.inf
        if not self.keep_meta or not known or abs(height - width) <= SQUARE_TOLERANCE * min(height, width):
            return gray[None]
        return MetaTensor(gray[None], affine=torch.diag(torch.tensor([height, width, 1, 1], dtype=torch.float64)))

    def _volume(self, voxels: MetaTensor) -> Tensor:
        while voxels.ndim > 3 and voxels.shape[-1] == 1:
            voxels = voxels[..., 0]
        if voxels.ndim > 3:
            raise ValueError(error_message("the volume", "have 3 dimensions", f"shape {tuple(voxels.shape)}"))
        if 0 in voxels.shape:
            raise ValueError(error_message("the volume", "hold at least one voxel", f"shape {tuple(voxels.shape)}"))
        while voxels.ndim < 3:
            voxels = voxels[..., None]
        axes = voxels.affine[:3, :3]
        if not axes.isfinite().all() or torch.linalg.matrix_rank(axes) < 3:
            raise ValueError(error_message("the affine matrix", "map the axes to three directions", axes.tolist()))
        volume = self._orient(voxels[None])
        flat = [axis for axis in (1, 2, 3) if volume.shape[axis] == 1]
        if flat:
            # The last axis of length 1 is the slice axis. The other two, (x, y), (x, z) or (y, z), grow away from the
            # corner where an image starts.
            gray = as_plain(volume)[0].select(flat[-1] - 1, 0).flip(0, 1).T.contiguous()
            return self._picture(gray, [volume.pixdim[axis] for axis in (2, 1, 0) if axis != flat[-1] - 1])
        return volume if self.keep_meta else as_plain(volume)


class LoadStudyImaged(StudyMapTransform):
    """Dictionary form of :class:`LoadStudyImage`.

    Args:
        keys: keys of images to read.
        window: see :class:`LoadStudyImage`.
        keep_meta: see :class:`LoadStudyImage`.
        spatial_dims: see :class:`LoadStudyImage`.
        allow_missing_keys: skip keys that a study lacks.
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
        super().__init__(keys, LoadStudyImage(window, keep_meta, spatial_dims), allow_missing_keys)


LoadStudyImageD = LoadStudyImageDict = LoadStudyImaged


@functools.cache
def _loader() -> LoadImage:
    """One instance for all calls: with a reader given, it keeps no state."""
    log = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    disabled, log.disabled = log.disabled, True  # it warns of a GPU decoder that is never used here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return LoadImage(image_only=True, dtype=np.float32)
    finally:
        log.disabled = disabled


class _NiftiReader(NibabelReader):
    def read(self, data: Any, **kwargs: Any) -> Any:
        self.filenames = (path,) = ensure_tuple(data)
        name = os.fspath(path).lower()
        with open(path, "rb") as file:
            compressed = is_gzip(file.read(2))
        # A single file that is compressed is read to its end below, where its checksum is.
        if name.endswith((".hdr.gz", ".img.gz") if compressed else (".nii", ".hdr", ".img")):
            # MONAI's reader replaces an sform whose voxel sizes differ from pixdim by the qform, also by one that is not valid.
            image = nibabel.load(path)
            if isinstance(image, nibabel.Cifti2Image):
                raise ValueError("it holds CIFTI data, which belong to surfaces and not to voxels.")
            return _checked(image)
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            content = read_bounded(file, "the file")
        kind = nibabel.Nifti2Image if content[4:6] == b"n+" else nibabel.Nifti1Image
        return _checked(kind.from_bytes(content))

    def _get_array_data(self, img: Any, filename: str) -> Any:
        kind = img.get_data_dtype()
        if kind.kind not in "biuf":
            raise ValueError(error_message("the voxels", "be real numbers", f"type {kind}"))
        return super()._get_array_data(img, filename)


def _checked(image: Any) -> Any:
    """A nibabel image that is a picture or a volume by its header, and whose voxels fit, as stored and as float32."""
    if len(image.shape) < 2:
        raise ValueError(error_message("the volume", "have 3 dimensions", f"shape {tuple(image.shape)}"))
    check_size(math.prod(int(side) for side in image.shape) * max(4, image.get_data_dtype().itemsize), "its volume")
    return image


def _check_arrays(path: str) -> None:
    """Check the size of the arrays of a NumPy file by their headers, before memory is reserved for them."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            size = _check_array(file)
            beyond = os.fstat(file.fileno()).st_size - file.tell() - size
            if beyond > 0:
                raise ValueError(f"it must end with its array, got {beyond} bytes more.")
            return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            check_size(entry.file_size, "its array")
            with archive.open(entry) as member:
                _check_array(member)


def _check_array(file: Any) -> int:
    """Check the size of an array by its header; the number of its bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    check_size(math.prod(shape) * max(4, dtype.itemsize), "its array")
    return (
        sys.maxsize if dtype.hasobject else math.prod(shape) * dtype.itemsize
    )  # objects, which are refused, are pickled


def _itk_reader() -> type[StudyItkReader]:
    if not optional_import("itk", allow_namespace_pkg=True)[1]:
        raise ValueError(f"{MissingExtraError('This format', 'itk', 'itk')}.")
    return StudyItkReader


def _numpy_array(path: str) -> np.ndarray:
    _check_arrays(path)
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        with loaded:
            if len(loaded.files) != 1:
                raise ValueError(error_message("the file", "hold one array", loaded.files))
            loaded = loaded[loaded.files[0]]
    if loaded.dtype.kind not in "biuf":
        raise ValueError(error_message("the pixels", "be real numbers", f"type {loaded.dtype}"))
    return loaded


def as_float32(image: np.ndarray | Tensor) -> Tensor:
    """A plain float32 tensor: metadata would slow down every later operation."""
    if isinstance(image, np.ndarray):
        array = np.ascontiguousarray(image, dtype=np.float32)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    return as_plain(image).to(torch.float32)


def _gray_array(image: np.ndarray | Tensor) -> Tensor:
    shape = tuple(image.shape)
    if len(shape) == 2:
        image = image[None]
    elif len(shape) not in (3, 4) or shape[0] not in (1, 3):
        raise ValueError(error_message("image", "have shape (H, W), (1, H, W[, D]) or (3, H, W[, D])", shape))
    if 0 in shape:
        raise ValueError(error_message("image", "hold at least one pixel", f"shape {shape}"))
    if image.dtype.kind not in "biuf" if isinstance(image, np.ndarray) else image.is_complex():
        raise ValueError(error_message("image", "hold real numbers", f"type {image.dtype}"))
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        raise ValueError(error_message("image", "have no masked pixel, which has no value", int(image.mask.sum())))
    tensor = as_float32(image)
    if tensor.shape[0] == 3:
        tensor = torch.tensordot(torch.tensor([0.299, 0.587, 0.114], device=tensor.device), tensor, dims=1)[None]
    return tensor


def _is_volume(image: MetaTensor) -> bool:
    """Whether this is a volume with a place in space: (C, H, W, D), or (H, W, D) as MONAI reads a file."""
    return image.ndim == 4 or (image.ndim == 3 and len(image.meta.get(MetaKeys.SPATIAL_SHAPE, ())) == 3)


def _is_read_by_monai(image: MetaTensor) -> bool:
    """Whether this is a picture that a reader of MONAI has read: which of its axes comes first, the metadata does not say."""
    return MetaKeys.SPATIAL_SHAPE in image.meta and SCALED not in image.meta


def _gray_volume(image: MetaTensor) -> MetaTensor:
    """One channel of a volume as MONAI's readers give a file: (H, W, D), its affine matrix in RAS."""
    gray = _gray_array(as_plain(image) if image.ndim == 4 else as_plain(image)[None])[0]
    affine = image.affine
    if image.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:
        affine = affine.new_tensor([-1, -1, 1, 1]).diag() @ affine
    meta = {RESCALE_TYPE: image.meta[RESCALE_TYPE]} if RESCALE_TYPE in image.meta else None
    return MetaTensor(gray, affine=affine, meta=meta)
