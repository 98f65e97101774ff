"""DICOM pixels as a radiology workstation shows them: rescaled, windowed, bright where X-rays were absorbed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_windowing

from medvl.transforms.dicom_decoding import (
    check_colors,
    copied_header,
    decode,
    is_little_endian,
    pixel_bytes,
    transfer_syntax,
)
from medvl.utils.checks import error_message
from medvl.utils.limits import check_size

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GEOMETRY_KEYWORDS = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}
"""What gives a slice its place, and how many numbers each has."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_SINGLE_DISPLAY_KEYWORDS = (
    "Modality",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "BitsStored",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
)
_DISPLAY_KEYWORDS = (
    *_SINGLE_DISPLAY_KEYWORDS,
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
_SINGLE_KEYWORDS = (
    *_SINGLE_DISPLAY_KEYWORDS,
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "HighBit",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
"""What has one value; of the windows and their functions, the first is used."""
_NAMED_FILES = 3
_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
_FRAME_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


class GrayFrame(NamedTuple):
    """One frame after its modality LUT and VOI LUT."""

    pixels: NDArray[np.float32]
    padding: NDArray[np.bool_]
    """The pixels that have the Pixel Padding Value, such as those outside the field of view of a CT."""
    inverted: tuple[float, float] | None = None
    """The range of a frame whose smallest value is to be shown brightest (MONOCHROME1)."""


def dicom_pixels(dataset: pydicom.Dataset, window: bool = True) -> NDArray[np.float32]:
    """Gray values of a DICOM image after its modality LUT, VOI LUT and polarity (DICOM PS3.3 C.11, C.7.6.3).

    Args:
        dataset: the data set that ``pydicom.dcmread`` returns, with one frame.
        window: apply the first VOI LUT, or else the first valid window. False gives rescaled values (Hounsfield units in CT).

    Returns:
        float32 (rows, columns). MONOCHROME1 is inverted within the range of its stored bits, so that it equals the same
        image in MONOCHROME2, except for Hounsfield units, which always increase with absorption; padding (Pixel Padding
        Value) becomes as dark as the darkest pixel; color is converted to luminance.

    Raises:
        ValueError: If there are no pixels, there is more than one frame, or no decoder supports the compression.
    """
    headers = frame_headers(dataset)
    if len(headers) > 1:
        raise ValueError(error_message("it", "hold one frame", len(headers)))
    return finished_frames([gray_frames(dataset, headers, window)[0]])[0]


def frame_headers(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """What the display and the place of each frame depend on.

    The functional groups of an enhanced image, those of the frame before the shared ones, go before the data set's own
    attributes; empty attributes are left out (DICOM PS3.3 C.7.6.16).
    """
    held = [keyword for keyword in PIXEL_KEYWORDS if keyword in dataset]
    if not held:
        raise ValueError(f"it holds no image (modality {dataset.get('Modality', 'not given')}).")
    if not dataset.get(held[0]):
        raise ValueError(f"its {held[0]} is empty.")
    check_single(dataset)
    if missing := [keyword for keyword in ("Rows", "Columns", "BitsAllocated") if dataset.get(keyword) is None]:
        raise ValueError(f"it lacks {' and '.join(missing)}.")
    check_size(pixel_bytes(dataset), "its image")
    if "SegmentSequence" in dataset:
        raise ValueError("it holds a segmentation, not an image.")
    common = pydicom.Dataset()
    number = _frame_count(dataset)
    _update(common, dataset, _DISPLAY_KEYWORDS + (tuple(GEOMETRY_KEYWORDS) if number == 1 else ()))
    shared = dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if frames and len(frames) != number:
        raise ValueError(f"it holds {number} frames, but the functional groups of {len(frames)}.")
    headers = []
    for frame in frames or [pydicom.Dataset()]:
        header = copied_header(common)
        for name in _FRAME_GROUPS:
            if groups := frame.get(name) or shared[0].get(name):
                _update(header, groups[0], (*_DISPLAY_KEYWORDS, *GEOMETRY_KEYWORDS))
        headers.append(header)
    return headers if frames else headers * number  # of which a header may claim millions


def gray_frames(dataset: pydicom.Dataset, headers: Sequence[pydicom.Dataset], window: bool) -> list[GrayFrame]:
    """The frames of a data set as gray values, in the order of ``headers``; :func:`finished_frames` inverts and pads them.

    Args:
        dataset: the data set that ``pydicom.dcmread`` returns.
        headers: what :func:`frame_headers` returns for it.
        window: apply the VOI LUT or window.
    """
    frames, words = decode(dataset)
    if len(headers) == 1:
        frames, words = frames[None], words[None]
    axes = 3 if int(dataset.get("SamplesPerPixel", None) or 1) == 1 else 4
    if frames.ndim != axes or len(frames) != len(headers):
        count = frames.shape[-axes] if frames.ndim > axes else len(frames)
        raise ValueError(error_message("it", f"hold {len(headers)} frames as its NumberOfFrames says", count))
    padding = _padding(dataset, frames, words) if axes == 3 else np.zeros(frames.shape[:3], dtype=bool)
    check_colors(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frames = np.stack([apply_color_lut(frame, dataset) for frame in frames])
    if frames.ndim == 4:
        return [
            GrayFrame(frame[..., :3].astype(np.float32) @ _LUMINANCE, pad)
            for frame, pad in zip(frames, padding, strict=True)
        ]
    little_endian = is_little_endian(dataset)
    return [
        _displayed(frame, pad, header, window, little_endian)
        for frame, pad, header in zip(frames, padding, headers, strict=True)
    ]


def finished_frames(frames: Sequence[GrayFrame]) -> list[NDArray[np.float32]]:
    """The pixels of all frames of an image or a volume, bright where X-rays were absorbed.

    MONOCHROME1 is inverted within the range of all its frames, so that equal values stay equal in a volume whose slices
    have ranges of their own; padding becomes as dark as the darkest other pixel of any frame.
    """
    ends = [end for frame in frames for end in frame.inverted or ()]
    pixels = [
        frame.pixels if frame.inverted is None else np.asarray(min(ends) + max(ends) - frame.pixels, dtype=np.float32)
        for frame in frames
    ]
    darkest = [
        values[~frame.padding].min() for values, frame in zip(pixels, frames, strict=True) if not frame.padding.all()
    ]
    if darkest:
        for values, frame in zip(pixels, frames, strict=True):
            values[frame.padding] = min(darkest)
    return pixels


def rescale_type(header: pydicom.Dataset) -> str | None:
    """The unit of rescaled values, as DICOM names it: ``HU``, or ``US`` for another one; None where the header is silent.

    Rescaled values of CT are Hounsfield units, unless Rescale Type names another unit (PS3.3 C.8.2.1).
    """
    if header.get("Modality") not in ("CT", None) or header.get("RescaleType", "HU").upper() != "HU":
        return "US"
    return "HU" if "Modality" in header and _rescale(header) is not None else None


def check_same_units(headers: Sequence[pydicom.Dataset], unit: str, names: Sequence[str]) -> None:
    """Raise if the values of a volume's slices cannot be compared: gray and color, inverted, rescaled or not, or of two units.

    Args:
        headers: what :func:`frame_headers` returns for each slice.
        unit: what a slice is called in errors: ``slices`` or ``frames``.
        names: the name of each slice in errors.
    """
    gray = [str(header.get("PhotometricInterpretation")).startswith("MONOCHROME") for header in headers]
    inverted = [_is_inverted(header) for header in headers]
    rescaled = [bool(header.get("ModalityLUTSequence")) or _rescale(header) not in (None, (1, 0)) for header in headers]
    stated = [rescaled[i] or _rescale(header) is not None for i, header in enumerate(headers)]
    units = [header.get("RescaleType", rescale_type(header)) if stated[i] else None for i, header in enumerate(headers)]
    typical = Counter(value for value in units if value is not None).most_common(1)
    for same, expected in (
        (_as_most(gray), "be all gray or all in color"),
        (_as_most(inverted), "be all MONOCHROME1 or all MONOCHROME2"),
        (
            stated if any(rescaled) else [True] * len(stated),
            "all have a rescale slope and intercept, or a modality table",
        ),
        ([value is None or value == typical[0][0] for value in units], "have the same RescaleType"),
    ):
        other = [name for name, is_same in zip(names, same, strict=True) if not is_same]
        if other:
            raise ValueError(f"its {unit} must {expected}, which {listed(other)} differ from.")


def _as_most(values: Sequence[bool]) -> list[bool]:
    """Whether each value is that of at least half of them."""
    return [value == (2 * sum(values) >= len(values)) for value in values]


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    rest = len(names) - _NAMED_FILES
    return ", ".join(names[:_NAMED_FILES]) + (f" and {rest} more" if rest > 0 else "")


def _frame_count(dataset: pydicom.Dataset) -> int:
    number = int(dataset.get("NumberOfFrames", None) or 1)
    syntax = transfer_syntax(dataset)
    if "PixelData" in dataset and (syntax is None or not syntax.is_encapsulated):
        pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", None) or 1)
        share = 2 / 3 if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else 1
        held = len(dataset.PixelData) / (pixels * int(dataset.BitsAllocated) / 8 * share)
        if number + 1 <= int(held):
            # More would be dropped. A third more is 4:2:2 color that was stored in full.
            raise ValueError(f"its NumberOfFrames is {number}, but it holds the pixels of {int(held)} frames.")
    return number


def _update(header: pydicom.Dataset, source: pydicom.Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword in source and source.get(keyword) not in (None, "", []):
            if keyword in _SINGLE_KEYWORDS:
                check_single(source, (keyword,))
            header[keyword] = source[keyword]
            if keyword in _NUMBERS:
                read_numbers(header, keyword)


def check_single(dataset: pydicom.Dataset, keywords: Sequence[str] = _SINGLE_KEYWORDS) -> None:
    """Raise if an element that has one value by the standard holds several."""
    for keyword in keywords:
        value = dataset.get(keyword)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 1:
            raise ValueError(error_message(f"its {keyword}", "be one value", listed([str(one) for one in value])))


def read_numbers(header: pydicom.Dataset, keyword: str, count: int | None = None) -> NDArray[np.float64]:
    """The numbers of an element, which pydicom leaves as text where they are none.

    Args:
        header: the data set.
        keyword: of the element.
        count: how many there must be; None for any number.
    """
    try:
        numbers = np.atleast_1d(np.asarray(header.get(keyword), dtype=float))
    except (TypeError, ValueError):
        raise ValueError(error_message(f"its {keyword}", "hold numbers", "other text")) from None
    if count is not None and not (numbers.shape == (count,) and np.isfinite(numbers).all()):
        raise ValueError(error_message(f"its {keyword}", f"be {count} finite numbers", numbers.tolist()))
    return numbers


def _displayed(
    stored: NDArray[Any], padding: NDArray[np.bool_], header: pydicom.Dataset, window: bool, little_endian: bool
) -> GrayFrame:
    pixels, low, high = _rescaled(stored, padding, header, little_endian)
    if window:
        item = (header.get("VOILUTSequence") or [pydicom.Dataset()])[0]
        if item.get("LUTDescriptor") is not None and item.get("LUTData") is not None:
            pixels = _look_up(pixels, item, little_endian, signed=min(low, high) < 0)
            low, high = 0.0, float(2 ** item.LUTDescriptor[2] - 1)
        else:
            pixels = _windowed(pixels, header, low, high)
    return GrayFrame(pixels.astype(np.float32), padding, (low, high) if _is_inverted(header) else None)


def _is_inverted(header: pydicom.Dataset) -> bool:
    return header.get("PhotometricInterpretation") == "MONOCHROME1" and rescale_type(header) != "HU"


def _rescaled(
    stored: NDArray[Any], padding: NDArray[np.bool_], header: pydicom.Dataset, little_endian: bool
) -> tuple[NDArray[Any], float, float]:
    """Pixels after the modality LUT, and the smallest and largest storable value in their units."""
    if "BitsStored" in header and stored.dtype.kind in "iu":
        bits, signed = header.BitsStored, header.get("PixelRepresentation", 0)
        low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    else:
        values = stored if padding.all() else stored[~padding]
        low, high = float(values.min()), float(values.max())
    if header.get("ModalityLUTSequence"):
        item = header.ModalityLUTSequence[0]
        return _look_up(stored, item, little_endian, signed=low < 0), 0.0, float(2 ** item.LUTDescriptor[2] - 1)
    rescale = _rescale(header)
    if rescale is None:
        return stored, low, high
    slope, intercept = rescale
    if slope == 0 and np.ptp(stored) > 0:
        raise ValueError("its RescaleSlope must not be 0.")
    return stored.astype(np.float64) * slope + intercept, low * slope + intercept, high * slope + intercept


def _rescale(header: pydicom.Dataset) -> tuple[float, float] | None:
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None and intercept is None:
        return None
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _look_up(pixels: NDArray[Any], item: pydicom.Dataset, little_endian: bool, signed: bool) -> NDArray[Any]:
    """Pixels looked up in the table of a modality or VOI LUT sequence (PS3.3 C.11.1.1, C.11.2.1.1).

    pydicom's ``apply_voi_lut`` holds the index in the type of the entries, so that an 8-bit table of more than 256 entries
    wraps around.

    Args:
        pixels: what is looked up.
        item: of the sequence.
        little_endian: the order of the bytes of entries.
        signed: whether values below 0 can be looked up, so that the first value of the table may be one.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        # Entries of 8 bits may be packed two to a word.
        narrow = bits <= 8 and len(data) < 2 * entries
        table = np.frombuffer(data, np.uint8 if narrow else "<u2" if little_endian else ">u2")
    else:
        table = np.atleast_1d(np.asarray(data))
    if len(table) < entries:
        raise ValueError(error_message("its lookup table", f"have {entries} entries", len(table)))
    index = np.rint(pixels).astype(np.int64)
    if first >= 2**15 and signed:
        first -= 2**16  # a signed value that was written as the unsigned one with the same bits
    return table[:entries][np.clip(index - first, 0, entries - 1)]


def _windowed(pixels: NDArray[Any], header: pydicom.Dataset, low: float, high: float) -> NDArray[Any]:
    """Pixels after the first valid window, in the range of ``low`` and ``high``; unchanged where there is none."""
    function = str(np.atleast_1d(header.get("VOILUTFunction", "LINEAR"))[0]).strip().upper()
    centers, widths = (np.atleast_1d(header.get(keyword, [])) for keyword in ("WindowCenter", "WindowWidth"))
    smallest = 1.0 if function == "LINEAR" else np.finfo(float).tiny
    for center, width in zip(centers, widths, strict=False):
        if not (math.isfinite(float(center)) and smallest <= float(width) < math.inf):
            continue  # a width of 0 is written where there is no window
        if "BitsStored" not in header:  # floating point pixels, which have no range of their own
            return np.clip(pixels, float(center) - float(width) / 2, float(center) + float(width) / 2)
        display = copied_header(header)
        display.PhotometricInterpretation = "MONOCHROME2"
        display.PixelRepresentation = header.get("PixelRepresentation", 0)
        display.VOILUTFunction, display.WindowCenter, display.WindowWidth = function, float(center), float(width)
        if (rescale := _rescale(header)) is not None:
            display.RescaleSlope, display.RescaleIntercept = rescale
        shown = apply_windowing(pixels, display)
        # With a negative slope, pydicom's window decreases from the largest value to the smallest.
        return low + high - shown if low > high else shown
    return pixels


def _padding(dataset: pydicom.Dataset, stored: NDArray[Any], words: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask of padding pixels, such as those outside the field of view of a CT (DICOM PS3.3 C.7.5.1.1.2).

    Their value may have more bits than the stored ones, such as -3000 among 12.
    """
    kind = {"PixelData": "Pixel", "FloatPixelData": "FloatPixel", "DoubleFloatPixelData": "DoubleFloatPixel"}
    prefix = next(kind[keyword] for keyword in PIXEL_KEYWORDS if keyword in dataset)
    value, limit = dataset.get(f"{prefix}PaddingValue"), dataset.get(f"{prefix}PaddingRangeLimit")
    if value is None or value == "":
        return np.zeros(stored.shape, dtype=bool)
    # Cast to the pixels' type: -2000 is often written as the unsigned number with the same bits.
    low, high = np.sort(np.array([value, value if limit is None else limit]).astype(stored.dtype))
    return ((stored >= low) & (stored <= high)) | ((words >= low) & (words <= high))
