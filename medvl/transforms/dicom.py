"""DICOM pixels as a radiology workstation shows them: rescaled, windowed, bright where X-rays were absorbed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data import PydicomReader
from monai.utils import MetaKeys
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder

from medvl.utils.checks import error_message

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GEOMETRY = {"00200037": "ImageOrientationPatient", "00200032": "ImagePositionPatient", "00280030": "PixelSpacing"}
_FRAME_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)


def dicom_pixels(dataset: pydicom.Dataset, window: bool = True) -> NDArray[np.float32]:
    """Gray values of a DICOM image after its modality LUT, VOI LUT and polarity (DICOM PS3.3 C.11, C.7.6.3).

    Args:
        dataset: the data set that ``pydicom.dcmread`` returns.
        window: apply the first VOI LUT or window. False gives rescaled values (Hounsfield units in CT).

    Returns:
        float32 (rows, columns). MONOCHROME1 is inverted within the range of its stored bits, so that it equals the same
        image in MONOCHROME2; padding (Pixel Padding Value) becomes as dark as the darkest pixel; color is converted to
        luminance. An enhanced CT, MR or tomosynthesis gives (rows, columns, frames), sorted by position and without a
        window, since frames may have different windows.

    Raises:
        ValueError: If there are no pixels, the frames do not form a volume, or no decoder supports the compression.
    """
    if not any(keyword in dataset for keyword in _PIXELS):
        raise ValueError(f"it holds no image (modality {dataset.get('Modality', 'not given')}).")
    if "SegmentSequence" in dataset:
        raise ValueError("it holds a segmentation, not an image.")
    if int(dataset.get("NumberOfFrames", None) or 1) > 1:
        headers = _frame_headers(dataset)
        frames = _decode(dataset)
        return np.stack(
            [apply_modality_lut(frames[i], headers[i]).astype(np.float32) for i in _slice_order(headers, "frames")],
            axis=-1,
        )
    pixels = _decode(dataset)
    padding = _padding(dataset, pixels)
    photometric = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        return pixels[..., :3].astype(np.float32) @ _LUMINANCE
    pixels = apply_modality_lut(pixels, dataset)
    if window:
        if dataset.get("VOILUTSequence"):
            pixels = np.rint(pixels).astype(np.int32)  # a LUT is indexed by integers
        pixels = apply_voi_lut(pixels, dataset)
    pixels = pixels.astype(np.float32)
    if photometric == "MONOCHROME1":
        pixels = sum(_gray_range(dataset, pixels, window)) - pixels
    if padding is not None and padding.any() and not padding.all():
        pixels[padding] = pixels[~padding].min()
    return pixels


def _padding(dataset: pydicom.Dataset, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    """The mask of padding pixels, such as those outside the field of view of a CT (DICOM PS3.3 C.7.5.1.1.2), or None."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    # Cast to the pixels' type: -2000 is often written as the unsigned number with the same bits.
    low, high = np.sort(np.array([value, value if limit is None else limit]).astype(pixels.dtype))
    return (pixels >= low) & (pixels <= high)


def _frame_headers(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Position and rescaling of each frame, from the functional groups of a multi-frame image (DICOM PS3.3 C.7.6.16)."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    headers = []
    for frame in dataset.get("PerFrameFunctionalGroupsSequence") or []:
        header = pydicom.Dataset()
        for group in _FRAME_GROUPS:
            found = frame.get(group) or shared[0].get(group)
            if found:
                header.update(found[0])
        headers.append(header)
    number = int(dataset.NumberOfFrames)
    if len(headers) != number or any(
        header.get(keyword) is None for header in headers for keyword in _GEOMETRY.values()
    ):
        raise ValueError(
            f"it holds {number} frames; several frames must form a volume in which every frame has a position "
            "(enhanced CT or MR, tomosynthesis)."
        )
    return headers


def _slice_order(headers: Sequence[pydicom.Dataset], unit: str) -> list[int]:
    """Indices that sort a volume's slices by position along their common normal; ``unit`` is their name in errors."""
    directions = np.array([header.ImageOrientationPatient for header in headers], dtype=float)
    if not np.allclose(directions, directions[0], atol=1e-3):
        raise ValueError(f"its {unit} must be parallel.")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=float) @ normal
    order = np.argsort(positions, kind="stable")
    if repeated := int((np.diff(positions[order]) < 1e-3).sum()):
        raise ValueError(
            f"its {unit} must have different positions, as in one volume at one time, got {repeated} of {len(positions)} "
            "repeated."
        )
    return order.tolist()


def _decode(dataset: pydicom.Dataset) -> NDArray[Any]:
    syntax = dataset.file_meta.get("TransferSyntaxUID", None) if hasattr(dataset, "file_meta") else None
    if syntax is None or not syntax.is_encapsulated:
        return dataset.pixel_array
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ValueError(f"its pixels are compressed as {syntax.name}, which pydicom cannot decode.") from error
    # "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-openjpeg>=2.0", one line for each decoder that is missing
    lines = sorted(decoder.missing_dependencies, key=lambda line: not line.startswith("pylibjpeg"))
    packages = " ".join(re.findall(r"([\w-]+)>=", lines[0])) if lines else ""
    if not decoder.is_available:
        raise ValueError(
            f"its pixels are compressed as {syntax.name} and no decoder for that is installed (pip install {packages})."
        )
    try:
        return dataset.pixel_array
    except Exception as error:
        hint = f"; another may (pip install {packages})" if packages else ""
        raise ValueError(
            f"its pixels are compressed as {syntax.name} and the installed decoder cannot read them{hint}."
        ) from error


def _gray_range(dataset: pydicom.Dataset, pixels: NDArray[np.float32], window: bool) -> tuple[float, float]:
    """The smallest and largest storable value, in the units of the pixels."""
    table = dataset.get("VOILUTSequence") if window else None
    table = table or dataset.get("ModalityLUTSequence")
    if table:
        return 0.0, float(2 ** table[0].LUTDescriptor[2] - 1)
    if "BitsStored" not in dataset:
        return float(pixels.min()), float(pixels.max())
    bits, signed = dataset.BitsStored, dataset.get("PixelRepresentation", 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if "RescaleSlope" not in dataset or "RescaleIntercept" not in dataset:
        return float(low), float(high)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return low * slope + intercept, high * slope + intercept


class StudyDicomReader(PydicomReader):
    """MONAI's DICOM reader with rows first, gray values from :func:`dicom_pixels`, and a check that a series is one volume.

    A series keeps its rescaled values, since in MR every slice has a window of its own.

    Args:
        window: apply the VOI LUT or window of a single image.
    """

    def __init__(self, window: bool = True) -> None:
        super().__init__(swap_ij=False, fname_regex=None)
        self.window = window

    def read(self, data: Any, **kwargs: Any) -> Any:
        try:
            return super().read(data, **kwargs)
        except IndexError as error:
            raise ValueError("the folder holds no DICOM file.") from error
        except pydicom.errors.InvalidDicomError as error:
            raise ValueError("it lacks the DICOM prefix (DICM at byte 128).") from error

    def _combine_dicom_series(self, data: Iterable[pydicom.Dataset], filenames: Sequence[str | Path]) -> Any:
        slices = [
            (dataset, name)
            for dataset, name in zip(data, filenames, strict=True)
            if any(keyword in dataset for keyword in _PIXELS)
        ]
        if not slices:
            raise ValueError("the folder holds no DICOM image.")
        datasets = [dataset for dataset, _ in slices]
        series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
        if len(series) > 1:
            raise ValueError(error_message("the folder", "hold one DICOM series", len(series)))
        sizes = {(int(dataset.Rows), int(dataset.Columns)) for dataset in datasets}
        if len(sizes) > 1:
            raise ValueError(error_message("the slices of the series", "have the same size", sorted(sizes)))
        if any(dataset.get("InstanceNumber", None) is None for dataset in datasets):
            raise ValueError("every slice of a series must have an InstanceNumber.")
        self.has_series = len(slices) > 1  # a folder with a DICOMDIR may hold a single image
        geometry = [dataset.get(keyword) for dataset in datasets for keyword in tuple(_GEOMETRY.values())[:2]]
        if self.has_series and None in geometry:
            raise ValueError("every slice of a series must have ImageOrientationPatient and ImagePositionPatient.")
        if self.has_series:
            for position, number in enumerate(_slice_order(datasets, "slices")):
                datasets[number].InstanceNumber = position  # MONAI sorts by it
        return super()._combine_dicom_series(datasets, [name for _, name in slices])

    def _get_array_data(self, img: pydicom.Dataset, filename: str | Path) -> NDArray[np.float32]:
        return dicom_pixels(img, window=self.window and not self.has_series)

    def _get_meta_dict(self, img: pydicom.Dataset) -> dict[str, Any]:
        # MONAI would convert the whole data set to JSON, pixels included, and then keep these three.
        last = None
        if int(img.get("NumberOfFrames", None) or 1) > 1:
            headers = _frame_headers(img)
            order = _slice_order(headers, "frames")
            img, last = headers[order[0]], headers[order[-1]]
        meta: dict[str, Any] = {
            tag: {"Value": [float(value) for value in img[keyword].value]}
            for tag, keyword in _GEOMETRY.items()
            if img.get(keyword) is not None
        }
        return meta if last is None else meta | {"lastImagePositionPatient": np.asarray(last.ImagePositionPatient)}

    def _get_affine(self, metadata: dict[str, Any], lps_to_ras: bool = True) -> NDArray[np.float64]:
        if len(metadata[MetaKeys.SPATIAL_SHAPE]) < 3:
            return np.eye(4)  # a radiograph keeps its stored orientation
        return super()._get_affine(metadata, lps_to_ras)
