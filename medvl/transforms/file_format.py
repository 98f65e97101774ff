"""What an image file is, by its content before its name."""

from __future__ import annotations

import gzip
import importlib
import os
import struct
import zlib

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from medvl.utils.errors import plain_reason
from medvl.utils.image_parts import nifti_pair
from medvl.utils.limits import check_regular_file

# An explicit list, since some of Pillow's formats start other programs (EPS).
PIL_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
for _plugin in ("Jpeg2K", "Tiff", "WebP"):  # Pillow registers these only on import
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")

READ_FORMATS = (
    "PNG, JPEG, TIFF, BMP, GIF, WebP, PGM, JPEG 2000, DICOM (a file or the folder of a series), NIfTI (.nii, .nii.gz, "
    ".hdr with .img), NumPy (.npy, .npz), NRRD and MetaImage (.mha, .mhd)"
)
"""The formats of images, as errors list them."""

_TIFF_TAGS = {
    259: "Compression",
    262: "PhotometricInterpretation",
    258: "BitsPerSample",
    277: "SamplesPerPixel",
    339: "SampleFormat",
}
_CUT = (struct.error, IndexError)
"""What Python raises of a header that is cut off, with reasons that say nothing of the file."""
_HEAD = 512
_GZIP = b"\x1f\x8b"


def file_format(path: str) -> str:
    """The format of a file: ``DICOM``, ``NIfTI``, ``NumPy``, ``NRRD``, ``MetaImage`` or ``an image`` that Pillow reads.

    Args:
        path: a file, compressed by gzip or not, or a folder, which is a DICOM series.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the file cannot be opened.
        ValueError: If the file is empty or of no format that is read.
    """
    if os.path.isdir(path):
        return "DICOM"
    head = _first_bytes(path)
    compressed = is_gzip(head)
    if compressed:
        try:
            with gzip.open(path, "rb") as file:
                head = file.read(_HEAD)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"the file {path} is compressed by gzip and damaged: {error}.") from error
    kind = _format_of_bytes(head)
    if kind is None and path.lower().endswith((".img", ".img.gz")):
        kind = _format_of_pair(path)
    if kind in ("DICOM", "NIfTI") or (kind and not compressed):
        return kind
    fault = _picture_fault(path, head) if kind is None and not compressed else ""
    if fault is None:
        return "an image"
    raise ValueError(_refusal(path, head, fault))


def is_gzip(head: bytes) -> bool:
    """Whether a file that starts with these bytes is compressed by gzip."""
    return head[:2] == _GZIP


def _first_bytes(path: str) -> bytes:
    if not os.path.exists(path):
        raise FileNotFoundError(f"the file {path} does not exist.")
    check_regular_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise OSError(f"the file {path} cannot be opened: {error.strerror}.") from error
    if not head:
        raise ValueError(f"the file {path} is empty.")
    return head


def _format_of_bytes(head: bytes) -> str | None:
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return "NIfTI"
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]  # of the first file in a zip archive
    if head[:6] == b"\x93NUMPY" or (head[:4] == b"PK\x03\x04" and name.endswith(b".npy")):
        return "NumPy"
    if head[:7] == b"NRRD000":
        return "NRRD"
    first = head.split(b"=")[0].strip()
    return "MetaImage" if first in (b"ObjectType", b"NDims", b"Comment") and b"NDims" in head else None


def _format_of_pair(path: str) -> str | None:
    """The format of the header that belongs to an ``.img`` file."""
    header, _ = nifti_pair(path)
    return file_format(header) if os.path.isfile(header) else None


def _picture_fault(path: str, head: bytes) -> str | None:
    """Why Pillow does not read a file that begins as one of its formats; empty if it does not, None if it is read."""
    try:
        with Image.open(path, formats=PIL_FORMATS):
            return None
    except UnidentifiedImageError:
        pass
    except Exception:
        return None  # reading it says what is wrong
    for name in PIL_FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(head[:16]) is True:
            with open(path, "rb") as file:
                try:
                    factory(file, path)
                except Exception as error:
                    reasons = [] if isinstance(error.__cause__ or error, _CUT) else [plain_reason(error)]
                    reasons += _tiff_form(path) if name == "TIFF" else []
                    said = f" ({', '.join(reasons)})" if reasons else ""
                    return f"it is damaged, or a {name} that Pillow does not read{said}"
    return ""


def _tiff_form(path: str) -> list[str]:
    """What a TIFF says of its values; empty for a damaged one."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            directory = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if head[2] == 43 else b""))
            file.seek(directory.next)
            directory.load(file)
        return [f"{name} {str(directory[tag]).strip('(,)')}" for tag, name in _TIFF_TAGS.items() if tag in directory]
    except Exception:
        return []


def _refusal(path: str, head: bytes, fault: str) -> str:
    name = path.lower().removesuffix(".gz")
    formats = f"the formats that are read are {READ_FORMATS}."
    if name.endswith((".dcm", ".dicom")):
        return f"the file {path} cannot be read as DICOM: it lacks the DICOM prefix (DICM at byte 128); {formats}"
    if name.endswith(".nii"):
        return f"the file {path} cannot be read as NIfTI: it lacks a NIfTI header; {formats}"
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return f"the file {path} is in the format Analyze 7.5, which states no orientation; {formats}"
    return f"the file {path} cannot be read as an image{fault and ': '}{fault}; {formats}"
