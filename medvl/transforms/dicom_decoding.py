"""Decoding of DICOM pixels to the values that are stored, with the checks that must come before it."""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from medvl.utils.checks import error_message
from medvl.utils.limits import check_size

_COLORS = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
}
_PALETTE_KEYWORDS = tuple(f"{color}PaletteColorLookupTableDescriptor" for color in ("Red", "Green", "Blue"))


def pixel_bytes(dataset: pydicom.Dataset) -> int:
    """Bytes of a data set's pixels, as they are stored and as float32."""
    sides = [int(dataset.get(name, None) or 1) for name in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
    return math.prod(sides) * max(4, int(dataset.get("BitsAllocated", None) or 8) // 8)


def check_deflated(file: BinaryIO) -> None:
    """Raise if a data set that is deflated as a whole, which pydicom inflates at once, is too large."""
    meta = pydicom.filereader.read_partial(file, stop_when=lambda *_: True)
    if meta.file_meta.get("TransferSyntaxUID", None) != DeflatedExplicitVRLittleEndian:
        return
    file.seek(0)
    start = 144 + int(meta.file_meta.get("FileMetaInformationGroupLength", 0))
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    file.seek(start)
    size = 0
    while block := inflate.unconsumed_tail or file.read(2**20):
        size += len(inflate.decompress(block, 2**24))
        check_size(size, "its data set")


def check_colors(dataset: pydicom.Dataset) -> None:
    """Raise if what the samples of a pixel stand for is not known, or would be read as something else."""
    samples = int(dataset.get("SamplesPerPixel", None) or 1)
    color = dataset.PhotometricInterpretation
    if color not in _COLORS[samples]:
        expected = f"be {' or '.join(_COLORS[samples])} for {samples} {'sample' if samples == 1 else 'samples'} a pixel"
        raise ValueError(error_message("its PhotometricInterpretation", expected, color))
    if samples == 3 and dataset.get("PixelRepresentation"):
        raise ValueError(error_message("its PixelRepresentation", "be 0 (unsigned) in color", 1))
    if color == "PALETTE COLOR" and (missing := [name for name in _PALETTE_KEYWORDS if name not in dataset]):
        raise ValueError(f"it lacks {' and '.join(missing)}.")


def decode(dataset: pydicom.Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Stored values, without what lies above the high bit or below the stored bits (PS3.5 8.1.1); then with what lies above."""
    compression = _compression(dataset)
    bits, high = dataset.get("BitsStored"), dataset.get("HighBit")
    shift = 0 if bits is None or high is None or "PixelData" not in dataset else int(high) + 1 - int(bits)
    if shift:
        if shift < 0 or int(high) >= int(dataset.BitsAllocated):
            raise ValueError(error_message("its HighBit", "be at least BitsStored - 1 and below BitsAllocated", high))
        if compression is not None and compression != RLELossless:
            raise ValueError(
                error_message("its HighBit", f"be BitsStored - 1 in a file compressed as {compression.name}", high)
            )
    words = _decompress(dataset, compression)
    if words.dtype.kind not in "iu" or dataset.BitsAllocated == 1:
        return words, words
    unused = 8 * words.dtype.itemsize - int(dataset.BitsStored)
    stored = np.right_shift(np.left_shift(words, unused - shift), unused) if unused > 0 else words
    return stored, np.right_shift(words, shift) if shift else words


def _compression(dataset: pydicom.Dataset) -> pydicom.uid.UID | None:
    """How the pixels of a data set are compressed; None where they are not."""
    syntax = transfer_syntax(dataset)
    return syntax if syntax is not None and syntax.is_encapsulated else None


def _decompress(dataset: pydicom.Dataset, compression: pydicom.uid.UID | None) -> NDArray[Any]:
    """The words that hold the stored values; all of their bits where they are not compressed, or by RLE."""
    if missing := [keyword for keyword in _pixel_keywords(dataset) if dataset.get(keyword) is None]:
        raise ValueError(f"it lacks {' and '.join(missing)}.")
    whole = compression is None or compression == RLELossless
    stated = 0 < int(dataset.get("BitsStored") or 0) < dataset.BitsAllocated
    options = {"bits_stored": dataset.BitsAllocated} if whole and stated else {}  # pydicom clears the other bits
    if compression is None:
        return pixel_array(dataset, **options)
    try:
        decoder = get_decoder(compression)
    except NotImplementedError as error:
        raise ValueError(f"its pixels are compressed as {compression.name}, which pydicom cannot decode.") from error
    # "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-openjpeg>=2.0", one line for each decoder that is missing
    lines = sorted(decoder.missing_dependencies, key=lambda line: not line.startswith("pylibjpeg"))
    packages = " ".join(re.findall(r"([\w-]+)>=", lines[0])).replace("gdcm", "python-gdcm") if lines else ""
    if not decoder.is_available:
        raise ValueError(
            f"its pixels are compressed as {compression.name} and no decoder for that is installed (pip install {packages})."
        )
    try:
        return pixel_array(dataset, **options)
    except Exception as error:
        hint = f"; if the file is sound, another may (pip install {packages})" if packages else ""
        reason = str(error).strip().splitlines()[-1].strip()[:120].removesuffix(".")
        raise ValueError(
            f"its pixels are compressed as {compression.name} and the installed decoder cannot read them ({reason}){hint}."
        ) from error


def _pixel_keywords(dataset: pydicom.Dataset) -> Sequence[str]:
    """What pixels cannot be decoded without (PS3.3 C.7.6.3)."""
    keywords = ("SamplesPerPixel", "PhotometricInterpretation")
    return (*keywords, "BitsStored", "PixelRepresentation") if "PixelData" in dataset else keywords


def transfer_syntax(dataset: pydicom.Dataset) -> pydicom.uid.UID | None:
    """How a data set is encoded; None where it does not say."""
    return dataset.file_meta.get("TransferSyntaxUID", None) if hasattr(dataset, "file_meta") else None


def is_little_endian(dataset: pydicom.Dataset) -> bool:
    """Whether the bytes of a data set's numbers are in this order; a data set without a transfer syntax is taken so."""
    syntax = transfer_syntax(dataset)
    return syntax is None or syntax.is_little_endian


def copied_header(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A copy of a data set whose elements can be changed; those of a data set's own copy are shared."""
    copied = pydicom.Dataset()
    for element in dataset:
        copied[element.tag] = copy.copy(element)
    return copied
