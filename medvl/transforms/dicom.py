"""DICOM pixels as a radiologist's workstation shows them: rescaled, windowed, bright where X-rays were stopped."""

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
    """The gray values of a DICOM image after its own modality, window and polarity rules (DICOM PS3.3 C.11, C.7.6.3).

    Args:
        dataset: what ``pydicom.dcmread`` gives.
        window: apply the first VOI look-up table or window. False leaves rescaled values (Hounsfield units in CT).

    Returns:
        (rows, columns); MONOCHROME1 is inverted within the range that its bits can hold, so that it equals the same
        image in MONOCHROME2; padding (Pixel Padding Value) is as dark as the darkest pixel; colour is reduced to its
        luminance. Of an enhanced CT, MR or tomosynthesis (rows, columns, frames), in the order of their places and
        without a window, as frames may have windows of their own.

    Raises:
        ValueError: there are no pixels, several frames that make no volume, or no decoder for the way they are compressed.
    """
    if not any(keyword in dataset for keyword in _PIXELS):
        raise ValueError(f"it holds no image (modality {dataset.get('Modality', 'not given')})")
    if "SegmentSequence" in dataset:
        raise ValueError("it holds a segmentation, expected an image")
    if int(dataset.get("NumberOfFrames", None) or 1) > 1:
        headers = _frame_headers(dataset)
        frames = _decode(dataset)
        return np.stack(
            [apply_modality_lut(frames[i], headers[i]).astype(np.float32) for i in _places(headers, "frames")], axis=-1
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
            pixels = np.rint(pixels).astype(np.int32)  # a table is looked up by whole numbers
        pixels = apply_voi_lut(pixels, dataset)
    pixels = pixels.astype(np.float32)
    if photometric == "MONOCHROME1":
        pixels = sum(_gray_range(dataset, pixels, window)) - pixels
    if padding is not None and padding.any() and not padding.all():
        pixels[padding] = pixels[~padding].min()
    return pixels


def _padding(dataset: pydicom.Dataset, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where stored values mean that there is nothing, beside the round field of a CT for example (DICOM PS3.3 C.7.5.1.1.2)."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    # Wrapped to the pixels' type: -2000 is often written as the unsigned number of the same bits.
    low, high = np.sort(np.array([value, value if limit is None else limit]).astype(pixels.dtype))
    return (pixels >= low) & (pixels <= high)


def _frame_headers(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """What the functional groups of a multi-frame image say of each frame's place and values (DICOM PS3.3 C.7.6.16)."""
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
            f"it holds {number} frames, expected one image, or a volume of which every frame has a place "
            "(enhanced CT or MR, tomosynthesis)"
        )
    return headers


def _places(headers: Sequence[pydicom.Dataset], what: str) -> list[int]:
    """The order of a volume's slices along their common normal."""
    directions = np.array([header.ImageOrientationPatient for header in headers], dtype=float)
    if not np.allclose(directions, directions[0], atol=1e-3):
        raise ValueError(f"its {what} lie at an angle to each other, expected one volume of parallel ones")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    places = np.array([header.ImagePositionPatient for header in headers], dtype=float) @ normal
    order = np.argsort(places, kind="stable")
    if same := int((np.diff(places[order]) < 1e-3).sum()):
        raise ValueError(
            f"{same} of its {len(places)} {what} lie where another does, expected one volume (of one time)"
        )
    return order.tolist()


def _decode(dataset: pydicom.Dataset) -> NDArray[Any]:
    syntax = dataset.file_meta.get("TransferSyntaxUID", None) if hasattr(dataset, "file_meta") else None
    if syntax is None or not syntax.is_encapsulated:
        return dataset.pixel_array
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ValueError(f"its pixels are compressed as {syntax.name}, which pydicom cannot decode") from error
    # "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-openjpeg>=2.0", one line for each decoder that is missing
    lines = sorted(decoder.missing_dependencies, key=lambda line: not line.startswith("pylibjpeg"))
    packages = " ".join(re.findall(r"([\w-]+)>=", lines[0])) if lines else ""
    if not decoder.is_available:
        raise ValueError(
            f"its pixels are compressed as {syntax.name} and no decoder for that is installed (pip install {packages})"
        )
    try:
        return dataset.pixel_array
    except Exception as error:
        more = f"; another may (pip install {packages})" if packages else ""
        raise ValueError(
            f"its pixels are compressed as {syntax.name} and the installed decoder cannot read them{more}"
        ) from error


def _gray_range(dataset: pydicom.Dataset, pixels: NDArray[np.float32], window: bool) -> tuple[float, float]:
    """Darkest and brightest value that can be stored, in the units of the pixels."""
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
    """MONAI's DICOM reader with rows first, the gray pipeline of :func:`dicom_pixels`, and series checked to be one volume.

    A series keeps its rescaled values: in MR every slice has a window of its own.

    Args:
        window: apply the VOI window of a single image.
    """

    def __init__(self, window: bool = True) -> None:
        super().__init__(swap_ij=False, fname_regex=None)
        self.window = window

    def read(self, data: Any, **kwargs: Any) -> Any:
        try:
            return super().read(data, **kwargs)
        except IndexError as error:
            raise ValueError("the folder holds no DICOM file") from error
        except pydicom.errors.InvalidDicomError as error:
            raise ValueError("it lacks the mark of a DICOM file (DICM at byte 128)") from error

    def _combine_dicom_series(self, data: Iterable[pydicom.Dataset], filenames: Sequence[str | Path]) -> Any:
        slices = [
            (dataset, name)
            for dataset, name in zip(data, filenames, strict=True)
            if any(keyword in dataset for keyword in _PIXELS)
        ]
        if not slices:
            raise ValueError("the folder holds no DICOM image")
        datasets = [dataset for dataset, _ in slices]
        series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
        if len(series) > 1:
            raise ValueError(f"the folder holds {len(series)} DICOM series, expected one")
        sizes = {(int(dataset.Rows), int(dataset.Columns)) for dataset in datasets}
        if len(sizes) > 1:
            raise ValueError(f"the slices of the series differ in size: {sorted(sizes)}")
        if any(dataset.get("InstanceNumber", None) is None for dataset in datasets):
            raise ValueError("a slice of the series has no InstanceNumber, so its place is unknown")
        self.has_series = len(slices) > 1  # beside a DICOMDIR there may be a single image
        geometry = [dataset.get(keyword) for dataset in datasets for keyword in tuple(_GEOMETRY.values())[:2]]
        if self.has_series and None in geometry:
            raise ValueError(
                "a slice of the series lacks ImageOrientationPatient or ImagePositionPatient, expected both"
            )
        if self.has_series:
            for place, number in enumerate(_places(datasets, "slices")):
                datasets[number].InstanceNumber = place  # by which MONAI sorts them
        return super()._combine_dicom_series(datasets, [name for _, name in slices])

    def _get_array_data(self, img: pydicom.Dataset, filename: str | Path) -> NDArray[np.float32]:
        return dicom_pixels(img, window=self.window and not self.has_series)

    def _get_meta_dict(self, img: pydicom.Dataset) -> dict[str, Any]:
        # MONAI turns the whole data set into JSON, pixels included, and then keeps these three.
        last = None
        if int(img.get("NumberOfFrames", None) or 1) > 1:
            headers = _frame_headers(img)
            order = _places(headers, "frames")
            img, last = headers[order[0]], headers[order[-1]]
        meta: dict[str, Any] = {
            tag: {"Value": [float(value) for value in img[keyword].value]}
            for tag, keyword in _GEOMETRY.items()
            if img.get(keyword) is not None
        }
        return meta if last is None else meta | {"lastImagePositionPatient": np.asarray(last.ImagePositionPatient)}

    def _get_affine(self, metadata: dict[str, Any], lps_to_ras: bool = True) -> NDArray[np.float64]:
        if len(metadata[MetaKeys.SPATIAL_SHAPE]) < 3:
            return np.eye(4)  # a radiograph is shown as it is stored
        return super()._get_affine(metadata, lps_to_ras)
