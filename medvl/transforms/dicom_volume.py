"""DICOM series and multi-frame files as volumes: every slice readable, in its place, evenly spaced."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data import PydicomReader
from monai.utils import MetaKeys, ensure_tuple
from numpy.typing import NDArray

from medvl.transforms.dicom import (
    GEOMETRY_KEYWORDS,
    PIXEL_KEYWORDS,
    check_same_units,
    check_single,
    dicom_pixels,
    finished_frames,
    frame_headers,
    gray_frames,
    listed,
    read_numbers,
    rescale_type,
)
from medvl.transforms.dicom_decoding import check_deflated, pixel_bytes
from medvl.transforms.file_format import is_gzip
from medvl.utils.checks import error_message
from medvl.utils.limits import check_size, read_bounded

SPACING_TOLERANCE = 0.2
"""How far the step from a slice to the next may lie from the median step, as a fraction of its length."""

RESCALE_TYPE = "rescale_type"
"""The key of a volume's metadata with the unit of its values, ``HU`` or ``US`` (another one), where the file states it."""

_PIXEL_SIZE = "pixel_size"
"""The key of an image's metadata with the height and the width of its pixels, where the file states them."""

_PIXEL_SIZE_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""What gives the height and the width of a pixel, or their ratio."""

_GEOMETRY_TAGS = dict(zip(("00200037", "00200032", "00280030"), GEOMETRY_KEYWORDS, strict=True))
_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")


class StudyDicomReader(PydicomReader):
    """MONAI's DICOM reader with rows first, gray values from :func:`dicom_pixels`, and a check that a series is one volume.

    A series and the frames of a file keep their rescaled values, since in MR every slice has a window of its own.

    Args:
        window: apply the VOI LUT or window of a single image.
    """

    def __init__(self, window: bool = True) -> None:
        super().__init__(swap_ij=False, fname_regex=None)
        self.window = window

    def read(self, data: Any, **kwargs: Any) -> Any:
        (path,) = ensure_tuple(data)
        if os.path.isdir(path):
            self.has_series = True
            slices = _read_folder(Path(path))
            self.filenames = [[path.name for path, _ in slices]]
            return [dataset for _, dataset in slices]
        try:
            with open(path, "rb") as file:
                compressed = is_gzip(file.read(2))
            if compressed:
                self.has_series, self.filenames = False, [path]
                with gzip.open(path, "rb") as file:
                    content = read_bounded(file, "the file")
                check_deflated(io.BytesIO(content))
                return pydicom.dcmread(io.BytesIO(content))
            with open(path, "rb") as file:
                check_deflated(file)
            return super().read(data, **kwargs)
        except pydicom.errors.InvalidDicomError as error:
            raise ValueError("it lacks the DICOM prefix (DICM at byte 128).") from error

    def _combine_dicom_series(self, data: Iterable[pydicom.Dataset], filenames: Sequence[str | Path]) -> Any:
        datasets, names = list(data), [str(name) for name in filenames]
        if len(datasets) == 1:  # a folder with a DICOMDIR may hold a single image
            self.has_series = False
            array = self._get_array_data(datasets[0], names[0])
            return array, self._get_meta_dict(datasets[0]) | {MetaKeys.SPATIAL_SHAPE: array.shape}
        _check_series(datasets, names)
        check_size(sum(pixel_bytes(dataset) for dataset in datasets), "its series")
        frames, headers, problems = [], [], {}
        for dataset, name in zip(datasets, names, strict=True):
            try:
                header = frame_headers(dataset)
                if len(header) > 1:
                    raise ValueError(error_message("it", "hold one frame", len(header)))
                frames += gray_frames(dataset, header, window=False)
                headers += header
            except Exception as error:
                problems[name] = error
        _raise_unreadable(problems)
        _check_geometry(headers, names)
        order = slice_order(headers, "slices", names)
        check_same_units(headers, "slices", names)
        _check_acquisitions([datasets[index] for index in order])
        pixels = finished_frames(frames)
        array = np.stack([pixels[index] for index in order], axis=-1)
        return array, _volume_meta([headers[index] for index in order]) | {MetaKeys.SPATIAL_SHAPE: array.shape}

    def _get_array_data(self, img: pydicom.Dataset, filename: str | Path) -> NDArray[np.float32]:
        headers = frame_headers(img)
        if len(headers) == 1:
            return dicom_pixels(img, window=self.window)
        order = _frame_order(headers)
        pixels = finished_frames(gray_frames(img, headers, window=False))
        return np.stack([pixels[index] for index in order], axis=-1)

    def _get_meta_dict(self, img: pydicom.Dataset) -> dict[str, Any]:
        # MONAI would convert the whole data set to JSON, pixels included, and then keep the geometry.
        headers = frame_headers(img)
        if len(headers) > 1:
            return _volume_meta([headers[index] for index in _frame_order(headers)])
        size = _pixel_size(headers[0], img)
        return _volume_meta(headers) | ({} if size is None else {_PIXEL_SIZE: size})

    def _get_affine(self, metadata: dict[str, Any], lps_to_ras: bool = True) -> NDArray[np.float64]:
        if len(metadata[MetaKeys.SPATIAL_SHAPE]) < 3:
            return np.diag((*metadata.get(_PIXEL_SIZE, (1, 1)), 1, 1))  # a radiograph keeps its stored orientation
        return super()._get_affine(metadata, lps_to_ras)


def slice_order(headers: Sequence[pydicom.Dataset], unit: str, names: Sequence[str]) -> list[int]:
    """Indices that sort a volume's slices by position along their common normal.

    Args:
        headers: orientation and position of each slice.
        unit: what a slice is called in errors: ``slices`` or ``frames``.
        names: the name of each slice in errors.

    Raises:
        ValueError: If the slices are not parallel, two are at one position, or a step from one to the next differs from the
            median step by more than ``SPACING_TOLERANCE`` of its length, in any direction.
    """
    directions = np.array([header.ImageOrientationPatient for header in headers], dtype=float)
    typical = np.median(directions, axis=0)
    parallel = np.isclose(directions, typical, rtol=0, atol=1e-3).all(axis=1)
    oblique = [name for name, same in zip(names, parallel, strict=True) if not same]
    if oblique:
        raise ValueError(f"its {unit} must be parallel, which {listed(oblique)} differ from.")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=float)
    order = np.argsort(positions @ normal, kind="stable")
    steps = np.diff(positions[order], axis=0)
    repeated = np.flatnonzero(steps @ normal < 1e-3)
    if repeated.size:
        pairs = [f"{names[order[i]]} and {names[order[i + 1]]}" for i in repeated]
        raise ValueError(
            error_message(
                f"its {unit}",
                "have different positions, as in one volume at one time",
                f"{len(pairs)} of {len(headers)} repeated ({listed(pairs)})",
            )
        )
    median = np.median(steps, axis=0)
    spacing = np.linalg.norm(median)
    uneven = np.flatnonzero(np.linalg.norm(steps - median, axis=1) > SPACING_TOLERANCE * spacing)
    if uneven.size:
        gaps = [f"{np.linalg.norm(steps[i]):.4g} mm from {names[order[i]]} to {names[order[i + 1]]}" for i in uneven]
        raise ValueError(
            error_message(
                f"its {unit}",
                f"be evenly spaced, within {SPACING_TOLERANCE:.0%} of the median of {spacing:.4g} mm",
                f"{listed(gaps)}, where one may be missing",
            )
        )
    return order.tolist()


def _frame_order(headers: Sequence[pydicom.Dataset]) -> list[int]:
    if any(keyword not in header for header in headers for keyword in GEOMETRY_KEYWORDS):
        raise ValueError(
            f"it holds {len(headers)} frames; several frames must form a volume in which every frame has a position "
            "(enhanced CT or MR, tomosynthesis)."
        )
    names = [f"frame {i + 1}" for i in range(len(headers))]
    _check_numbers(headers, names)
    _check_pixel_spacing(headers, "frames", names)
    check_same_units(headers, "frames", names)
    return slice_order(headers, "frames", names)


def _pixel_size(header: pydicom.Dataset, dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Height and width of an image's pixels, or numbers in their ratio; None where it does not give two positive numbers.

    Args:
        header: what :func:`frame_headers` returns for the image.
        dataset: the data set.
    """
    for keyword in _PIXEL_SIZE_KEYWORDS:
        source = header if keyword in header else dataset
        try:
            height, width = read_numbers(source, keyword, 2).tolist()
        except ValueError:
            continue
        if height > 0 and width > 0:
            return height, width
    return None


def _volume_meta(headers: Sequence[pydicom.Dataset]) -> dict[str, Any]:
    """The geometry of sorted slices, as MONAI's reader makes the affine matrix of it, and the unit of their values.

    A single image has no place in space, so that a damaged one of its header does not matter.
    """
    meta: dict[str, Any] = {}
    if len(headers) > 1:
        for tag, keyword in _GEOMETRY_TAGS.items():
            meta[tag] = {"Value": read_numbers(headers[0], keyword).tolist()}
    units = {unit for header in headers if (unit := rescale_type(header)) is not None}
    if units:
        meta[RESCALE_TYPE] = units.pop() if len(units) == 1 else "US"
    if len(headers) > 1:
        meta["lastImagePositionPatient"] = np.asarray(headers[-1].ImagePositionPatient, dtype=float)
    return meta


def _read_folder(folder: Path) -> list[tuple[Path, pydicom.Dataset]]:
    """The images of a folder; other DICOM objects and other files are left out, damaged images are an error."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    dicom = {path for path in files if pydicom.misc.is_dicom(path)}
    patterns = {_name_pattern(path) for path in dicom}
    images: list[tuple[Path, pydicom.Dataset]] = []
    problems: dict[str, Exception] = {}
    for path in files:
        if path not in dicom:
            if _looks_like_slice(path, patterns):
                problems[path.name] = ValueError(_fault(path))
            continue
        try:
            with path.open("rb") as file:
                check_deflated(file)
            dataset = pydicom.dcmread(path)
            if any(keyword in dataset for keyword in PIXEL_KEYWORDS):
                check_single(dataset)
                images.append((path, dataset))
            elif _should_have_pixels(dataset):
                raise ValueError("it ends before its pixels.")
        except Exception as error:
            problems[path.name] = error
    if not dicom:
        raise ValueError("the folder holds no DICOM file.")
    _raise_unreadable(problems)
    if not images:
        raise ValueError("the folder holds no DICOM image.")
    return images


def _looks_like_slice(path: Path, patterns: set[str]) -> bool:
    """Whether a file that is no DICOM file was one: by its suffix, a name like those of the others, or binary content."""
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
        return path.suffix.lower() in _SUFFIXES or _name_pattern(path) in patterns
    if path.suffix.lower() in _SUFFIXES or _name_pattern(path) in patterns:
        return True
    if path.suffix:
        return False
    with open(path, "rb") as file:
        head = file.read(256)
    return not head or b"\0" in head


def _fault(path: Path) -> str:
    """Why a file that should be a slice is none."""
    with path.open("rb") as file:
        head = file.read(2)
    if is_gzip(head):
        return "it is compressed by gzip, which slices of a series may not be."
    return "it lacks the DICOM prefix (DICM at byte 128)." if head else "it is empty."


def _name_pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", path.name)


def _should_have_pixels(dataset: pydicom.Dataset) -> bool:
    kind = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    return not kind or "Rows" in dataset or "Image Storage" in kind.name


def _check_series(datasets: Sequence[pydicom.Dataset], names: Sequence[str]) -> None:
    series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
    if len(series) > 1:
        raise ValueError(error_message("the folder", "hold one DICOM series", len(series)))
    sizes = {(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)) for dataset in datasets}
    if len(sizes) > 1:
        raise ValueError(error_message("the slices of the series", "have the same size", sorted(sizes)))


def _check_geometry(headers: Sequence[pydicom.Dataset], names: Sequence[str]) -> None:
    for keyword in GEOMETRY_KEYWORDS:
        without = [name for header, name in zip(headers, names, strict=True) if keyword not in header]
        if without:
            raise ValueError(f"every slice of a series must have {keyword}, which {listed(without)} lack.")
    _check_numbers(headers, names)
    _check_pixel_spacing(headers, "slices", names)


def _check_numbers(headers: Sequence[pydicom.Dataset], names: Sequence[str]) -> None:
    """Raise if the place of a slice is not given by as many numbers as it takes."""
    problems: dict[str, Exception] = {}
    for header, name in zip(headers, names, strict=True):
        for keyword, count in GEOMETRY_KEYWORDS.items():
            try:
                read_numbers(header, keyword, count)
            except ValueError as error:
                problems[name] = error
    _raise_unreadable(problems)


def _check_acquisitions(datasets: Sequence[pydicom.Dataset]) -> None:
    """Raise if slices of CT, in their order, belong to several acquisitions by turns, such as before and after contrast.

    Those of one scan follow one another, as the table moves; in MR, slices of two acquisitions may lie between one another.
    """
    acquisitions = [str(dataset.get("AcquisitionNumber", None) or "none") for dataset in datasets]
    counts = Counter(acquisitions)
    by_turns = all(one != next_one for one, next_one in itertools.pairwise(acquisitions))
    if datasets[0].get("Modality") == "CT" and 1 < len(counts) <= len(acquisitions) / 3 and by_turns:
        received = f"AcquisitionNumber {listed(sorted(counts))} by turns"
        raise ValueError(error_message("its slices", "be of one acquisition, or of one after another", received))


def _check_pixel_spacing(headers: Sequence[pydicom.Dataset], unit: str, names: Sequence[str]) -> None:
    spacings = np.array([header.PixelSpacing for header in headers], dtype=float)
    same = np.isclose(spacings, np.median(spacings, axis=0), rtol=1e-2, atol=0).all(axis=1)
    other = [name for name, is_same in zip(names, same, strict=True) if not is_same]
    if other:
        raise ValueError(f"its {unit} must have the same PixelSpacing, which {listed(other)} differ from.")


def _raise_unreadable(problems: dict[str, Exception]) -> None:
    if problems:
        reasons = [f"{name} ({_first_line(error)})" for name, error in problems.items()]
        raise ValueError(f"every slice must be readable, unlike {listed(reasons)}.") from next(iter(problems.values()))


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line.removesuffix("."), 120, placeholder=" ...")
