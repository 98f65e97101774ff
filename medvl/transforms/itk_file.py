"""NRRD and MetaImage files, which ITK reads: one component a voxel, of any type of number."""

from __future__ import annotations

import math
import os
import re
import zlib
from typing import Any

from monai.data import ITKReader
from monai.utils import ensure_tuple, optional_import

from medvl.utils.checks import error_message
from medvl.utils.image_parts import header_and_data
from medvl.utils.limits import check_size

_HEADER = 2**16
"""Bytes in which the header of a file is looked for."""


class StudyItkReader(ITKReader):
    """MONAI's ITK reader for voxels of every type of number, as float32; anything but one component a voxel is an error.

    Args:
        kind: ``NRRD`` or ``MetaImage``, whatever the name of the file says.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def read(self, data: Any, **kwargs: Any) -> Any:
        (path,) = map(os.fspath, ensure_tuple(data))
        try:
            return _read(path, self.kind)
        except RuntimeError as error:
            raise ValueError(f"{_reason(error, path)}.") from error


def _read(path: str, kind: str) -> Any:
    itk: Any = optional_import("itk", allow_namespace_pkg=True)[0]
    io = (itk.NrrdImageIO if kind == "NRRD" else itk.MetaImageIO).New(FileName=path)
    io.ReadImageInformation()
    component = io.GetComponentTypeAsString(io.GetComponentType())
    if io.GetNumberOfComponents() != 1:
        received = f"{io.GetNumberOfComponents()} ({io.GetPixelTypeAsString(io.GetPixelType())})"
        raise ValueError(error_message("a voxel", "have one component", received))
    if component == "unknown":
        raise ValueError(error_message("the type of its voxels", "be one of numbers", "another"))
    if not 2 <= io.GetNumberOfDimensions() <= 4:
        raise ValueError(error_message("the volume", "have 3 dimensions", io.GetNumberOfDimensions()))
    if kind == "MetaImage":
        _check_compressed(path, io.GetImageSizeInBytes())
    reader = itk.ImageFileReader[itk.Image[itk.F, io.GetNumberOfDimensions()]].New(FileName=path, ImageIO=io)
    reader.Update()
    image = reader.GetOutput()
    if component == "char":  # whose sign depends on the processor
        voxels = itk.array_view_from_image(image)
        voxels[:] = (voxels + 128) % 256 - 128
    return image


def check_itk_header(path: str) -> None:
    """Check the size of an NRRD or MetaImage volume by its header."""
    found = re.search(r"^\s*(?:sizes\s*:|DimSize\s*=)([\d \t]+)", _header(path), re.MULTILINE)
    if found is not None:
        check_size(math.prod(int(side[:18]) for side in found[1].split()) * 8, "its volume")


def _header(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_HEADER).decode("latin-1")


def _check_compressed(path: str, size: int) -> None:
    """Check the data of a MetaImage that is compressed, since ITK gives whatever is in memory if they are damaged.

    Args:
        path: of the file.
        size: of its voxels in bytes.
    """
    header = _header(path)
    if not re.search(r"^\s*CompressedData\s*=\s*(True|1)\s*$", header, re.MULTILINE | re.IGNORECASE):
        return
    name, start = _data_file(header)
    whole = path if name == "LOCAL" else os.path.join(os.path.dirname(path), name)
    stated = re.search(r"^\s*CompressedDataSize\s*=\s*(\d+)\s*$", header, re.MULTILINE)
    if name == "LOCAL" and stated is None:
        raise ValueError("it lacks CompressedDataSize.")
    if not os.path.isfile(whole) or "HeaderSize" in header:
        return  # data in several files, or behind a header of their own
    left = os.path.getsize(whole) if stated is None else int(stated[1])
    unpack = zlib.decompressobj(32 + zlib.MAX_WBITS)  # zlib or gzip
    with open(whole, "rb") as file:
        file.seek(start if name == "LOCAL" else 0)
        try:
            while not unpack.eof and (block := unpack.unconsumed_tail or file.read(min(left, 2**20))):
                left -= 0 if unpack.unconsumed_tail else len(block)
                size -= len(unpack.decompress(block, 2**24))
        except zlib.error:
            pass
    if not unpack.eof or size != 0:
        raise ValueError("its compressed data are damaged or cut off.")


def _data_file(header: str) -> tuple[str, int]:
    """What the header of a MetaImage names as the file with its data, ``LOCAL`` for itself, and where the header ends."""
    found = re.search(r"^\s*ElementDataFile\s*=([^\r\n]*)\r?\n?", header, re.MULTILINE)
    return ("LOCAL", 0) if found is None else (found[1].strip(), found.end())


def _reason(error: RuntimeError, path: str) -> str:
    """What ITK says, without the place in its source; of the reasons of NRRD, each for the one before, the last."""
    lines = str(error).strip().splitlines()
    if "File cannot be read" in str(error):  # with a reason of the operating system that need not be the cause
        for file in header_and_data(path)[1:]:
            if not os.path.exists(file):
                return f"its data file {os.path.relpath(file, os.path.dirname(path))} does not exist"
        return "its data are cut off, or not as its header says"
    if lines[-1].startswith("[nrrd]"):
        return lines[-1].partition(": ")[2]
    line = next((line for line in lines if "ERROR: " in line), lines[0])
    return re.sub(r".*ERROR: (\w+\(\w+\): )?", "", line).removesuffix(".")
