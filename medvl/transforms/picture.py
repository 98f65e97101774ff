"""Pictures that Pillow reads as one gray band, with the meaning of their values."""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import IO, Any

import numpy as np
from monai.data import PILReader
from monai.utils import ensure_tuple
from PIL import Image, ImageOps

from medvl.transforms.file_format import PIL_FORMATS
from medvl.utils.checks import error_message
from medvl.utils.limits import check_size

_HEADER = 2**20
"""Bytes in which the header of an image is looked for."""


class PictureReader(PILReader):
    """MONAI's reader of pictures with rows first and one gray band; values that Pillow would change are an error."""

    def __init__(self) -> None:
        super().__init__(converter=_to_gray, reverse_indexing=False, formats=PIL_FORMATS)

    def read(self, data: Any, **kwargs: Any) -> Any:
        (path,) = ensure_tuple(data)
        with open(path, "rb") as file:
            _check_checksums(file)
        return super().read(data, **kwargs)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        array, meta = super().get_data(img)
        return array.astype(np.float32), meta  # a copy, since Pillow's own memory is read-only


def _check_checksums(file: IO[bytes]) -> None:
    """Check the checksum of every chunk of a PNG file, which Pillow does not do for those with the pixels."""
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        content, checksum = file.read(length), file.read(4)
        if len(checksum) < 4 or zlib.crc32(content, zlib.crc32(kind)) != struct.unpack(">I", checksum)[0]:
            raise ValueError("it is damaged or cut off.")
        if kind == b"IEND":
            return


def _to_gray(image: Image.Image) -> Image.Image:
    """A single gray band, decoded completely, so that a truncated file fails here."""
    check_size(math.prod(image.size) * 4 * len(image.getbands()), "its image")
    frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and frames > 1:
        raise ValueError(error_message("the file", "hold one image", f"{frames} frames"))
    if len(image.getbands()) > 1 and (bits := _bits_per_channel(image)) > 8:
        expected = "have at most 8 bits a channel, as many as Pillow keeps (save it as 16-bit gray)"
        raise ValueError(error_message("an image with color or alpha", expected, bits))
    # Pillow maps an uncompressed file that it knows by name to memory, with the sides of a turned TIFF exchanged.
    image.filename = ""  # type: ignore[attr-defined]
    image.load()
    if image.format == "TIFF":
        return _tiff_to_gray(image)
    return _picture_to_gray(image)


def _bits_per_channel(image: Any) -> int:
    """The bits of an image's channels as its file states them; 8 for formats that have no more."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    if image.format not in ("PNG", "PPM", "JPEG2000"):
        return 8
    place = image.fp.tell()
    image.fp.seek(0)
    header = image.fp.read(_HEADER)
    image.fp.seek(place)
    if image.format == "PNG":
        return header[24]
    if image.format == "PPM":
        return int(re.sub(rb"#[^\r\n]*", b"", header).split(None, 4)[3]).bit_length()
    start = header.find(b"\xff\x4f\xff\x51") + 40  # the codestream's size marker
    channels = int.from_bytes(header[start : start + 2], "big")
    return max((1 + (precision & 0x7F) for precision in header[start + 2 : start + 2 + 3 * channels : 3]), default=8)


def _tiff_to_gray(image: Image.Image) -> Image.Image:
    """A single gray band of a TIFF, with the meaning of its values, which Pillow leaves to the caller above 8 bits."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, sample_format = tags.get(258, (1,)), tags.get(339, (1,))[0]
    inverted = tags.get(262) == 0 and len(bits) == 1  # WhiteIsZero
    if inverted and bits[0] > 16:
        raise ValueError(f"WhiteIsZero has no meaning for {bits[0]} bits.")
    if inverted and bits[0] > 8:
        image = Image.fromarray(np.uint16(2 ** bits[0] - 1) - np.asarray(image, dtype=np.uint16))
    elif bits == (32,) and sample_format == 1:
        image = Image.fromarray(np.asarray(image).view(np.uint32).astype(np.float32))
    elif bits == (8,) and sample_format == 2:
        image = Image.fromarray(np.asarray(image).view(np.int8).astype(np.float32))
    return _picture_to_gray(image)


def _picture_to_gray(image: Image.Image) -> Image.Image:
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "F", "I") or image.mode.startswith("I;16"):
        return image
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.convert("F")  # luminance without rounding
