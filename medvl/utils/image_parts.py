"""The files that an image consists of: one, the slices in a folder, or a header and the files that hold its voxels."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import IO

HEADER_BYTES = 2**20
"""What is read of a text header at most."""

MOST_FILES = 2**16
"""Files that a pattern in a header may stand for."""


def files_of_image(path: str) -> list[str]:
    """The files of an image: those in its folder (a DICOM series), or :func:`header_and_data`.

    Raises:
        OSError: If the folder cannot be read.
    """
    if os.path.isdir(path):
        return sorted(entry.path for entry in os.scandir(path) if entry.is_file())
    return header_and_data(path)


def header_and_data(path: str) -> list[str]:
    """The header of an image and the files that hold its voxels; the path alone if one file holds both.

    The files are those that nibabel reads of a NIfTI pair, and ITK of a MetaImage or NRRD volume whose header names them. That
    one is missing, or that the header is damaged, is said when the image is loaded.

    Args:
        path: of the header, or of either file of a NIfTI pair.
    """
    name = path.lower()
    if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        header, data = nifti_pair(path)
        # Without a header an .img file is of another format, such as DICOM.
        return [header, data] if os.path.isfile(header) else [path]
    if name.endswith((".mhd", ".mha")):
        return [path, *_data_files(path, _names_in_meta_image)]
    if name.endswith((".nhdr", ".nrrd")):
        return [path, *_data_files(path, _names_in_nrrd)]
    return [path]


def nifti_pair(path: str) -> tuple[str, str]:
    """The names of header and voxels of a NIfTI pair, the one that is not given as nibabel looks for it.

    Args:
        path: of either: its name ends in ``.hdr``, ``.img``, ``.hdr.gz`` or ``.img.gz``, in small or large letters.

    Example:
        >>> nifti_pair("a.img"), nifti_pair("A.HDR"), nifti_pair("a.img.gz")
        (('a.hdr', 'a.img'), ('A.HDR', 'A.IMG'), ('a.hdr.gz', 'a.img.gz'))
    """
    stem, compression = (path[:-3], path[-3:]) if path.lower().endswith(".gz") else (path, "")
    stem, suffix = stem[:-4], stem[-4:]
    header, data = (".HDR", ".IMG") if suffix.isupper() else (".hdr", ".img")
    if suffix.lower() == ".hdr":
        return path, f"{stem}{data}{compression}"
    return f"{stem}{header}{compression}", path


def _data_files(path: str, names_in: Callable[[Iterator[str]], list[str]]) -> list[str]:
    """The files that a text header names, relative to its folder; none if the voxels are behind the header."""
    if not os.path.isfile(path):  # a pipe would be waited on
        return []
    try:
        with open(path, "rb") as file:
            names = names_in(_lines(file))
    except (OSError, ValueError, TypeError, LookupError):
        return []
    return [_with_compression(os.path.join(os.path.dirname(path), name)) for name in names]


def _lines(file: IO[bytes]) -> Iterator[str]:
    left = HEADER_BYTES
    while line := file.readline(left):
        left -= len(line)
        yield os.fsdecode(line).rstrip()


def _with_compression(path: str) -> str:
    """The path, with .gz or .Z if there is only such a file, which ITK then reads."""
    return next((name for name in (path, f"{path}.gz", f"{path}.Z") if os.path.exists(name)), path)


def _names_in_meta_image(lines: Iterator[str]) -> list[str]:
    """The files that ``ElementDataFile``, the last field of a MetaImage header, names."""
    sides: list[int] = []
    for line in lines:
        found = re.match(r"\s*(DimSize|ElementDataFile)\s*[=:]\s*(.*)", line)
        if found is None:
            continue
        value, words = found[2], found[2].split()
        if found[1] == "DimSize":
            sides = [int(side) for side in words]
        elif value in ("", "LOCAL", "Local", "local"):
            return []
        elif value.startswith("LIST"):  # and the dimensions of each file, or one less than those of the volume
            dims = int(words[1]) if len(words) > 1 else 0
            dims = dims if 0 < dims <= len(sides) else len(sides) - 1
            return list(islice(lines, math.prod(sides[dims:])))
        elif "%" in value:  # and the first number, the last one and the step
            start = max(1, len(words) - 3)
            numbers, count = [int(word) for word in words[start:]], sides[-1]
            first = numbers[0] if numbers else 1
            last = numbers[1] if len(numbers) > 1 else first + count - 1
            step = numbers[2] if len(numbers) > 2 else max(1, (last - first) // count)
            return _numbered(" ".join(words[:start]), range(first, last + 1, step)[:count])
        else:
            return [value]
    return []


def _names_in_nrrd(lines: Iterator[str]) -> list[str]:
    """The files that ``data file`` in an NRRD header names; an empty line ends the header."""
    for line in takewhile(bool, lines):
        found = re.match(r"data ?file:(?!=)\s*(.+)", line, re.IGNORECASE)
        if found is None:
            continue
        if found[1].startswith("LIST"):
            return list(takewhile(bool, lines))
        if re.search(r"%\d*d", found[1]):
            name, *words = found[1].split()
            first, last, step = (int(word) for word in words[:3])
            return _numbered(name, range(first, last + (1 if step > 0 else -1), step))
        return [found[1]]
    return []


def _numbered(pattern: str, numbers: range) -> list[str]:
    """File names by a pattern of C, such as ``slice%03d.raw``; none by one that pads to thousands of characters."""
    if re.search(r"%[-+ #0-9.]*\d{4}", pattern):
        return []
    return [pattern % number for number in numbers[:MOST_FILES]]
