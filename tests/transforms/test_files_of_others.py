"""The test files of pydicom and nibabel: the right pixels in the right orientation, or one sentence.

``files_of_others.csv`` says of each file what is to come of it: the shape, with a hash of the gray values where they do not
depend on a decoder's rounding, or how the refusal begins. Values are also compared with what pydicom, nibabel and MONAI read.
The files come with these packages and with ``pydicom-data``; those that are absent are skipped by name.
``python tests/transforms/test_files_of_others.py`` writes the table again.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation
from pydicom.data import get_testdata_file
from pydicom.data.download import get_data_dir, get_url_map
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medvl.transforms import LoadStudyImage

TABLE = Path(__file__).with_name("files_of_others.csv")
DATA = Path(pydicom.__file__).parent / "data"
FOLDERS = {
    "pydicom": [DATA / "test_files", DATA / "charset_files", get_data_dir()],
    "nibabel": [Path(nibabel.__file__).parent / "tests" / "data"],
}
SENTENCE = re.compile(r"the file \S+ (cannot be read as (DICOM|NIfTI|an image)|is in the format)[^\n]*\.")
LUMINANCE = np.array([0.299, 0.587, 0.114])
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91")
PRECISE = 40
"""Characters of a refusal after its reason begins; the rest may be a decoder's own words."""


def find(package: str, name: str) -> Path | None:
    for folder in FOLDERS[package]:
        if (folder / name).is_file():
            return folder / name
    known = package == "pydicom" and name in get_url_map()
    path = get_testdata_file(name, download=False) if known else None
    return None if path is None else Path(str(path))


def names(package: str) -> list[str]:
    """The files of the table, and those that are here and not in it."""
    listed = {name for owner, name in EXPECTED if owner == package}
    here = (path.relative_to(folder) for folder in FOLDERS[package] for path in folder.rglob("*") if path.is_file())
    return sorted(listed | {name.as_posix() for name in here if not {"__pycache__", "__init__.py"} & {*name.parts}})


def load(path: Path) -> tuple[np.ndarray | None, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return LoadStudyImage(window=False)(path)[0].numpy(), ""
        except ValueError as error:
            return None, str(error)


def read_dicom(path: Path) -> pydicom.Dataset:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return pydicom.dcmread(file, force=True)


def outcome(path: Path, image: np.ndarray | None, message: str) -> str:
    """What the table says of a file."""
    if image is None:
        text = message.replace(str(path), "FILE").replace(str(path.parent), "FOLDER")
        start = text.find(": ") + 2
        return text[: start + PRECISE].split("(")[0].strip()
    shape = "x".join(map(str, image.shape))
    if path.suffix in (".dcm", ".gz", "") and not path.name.endswith(".nii.gz"):
        dataset = read_dicom(path)
        if dataset.SamplesPerPixel != 1 or "PALETTE" in dataset.PhotometricInterpretation:
            return shape
        if dataset.file_meta.TransferSyntaxUID in LOSSY:
            return shape
    return f"{shape} {hashlib.sha256(np.ascontiguousarray(image, dtype='<f4').tobytes()).hexdigest()[:16]}"


def dicom_reference(dataset: pydicom.Dataset) -> np.ndarray:
    """Gray values of one frame, or of the frames of an axial volume in RAS, by pydicom's own functions."""
    pixels, color = dataset.pixel_array, dataset.PhotometricInterpretation
    if "PerFrameFunctionalGroupsSequence" in dataset and pixels.ndim == 3:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        frames = []
        for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
            values = (
                group if "PixelValueTransformationSequence" in group else shared
            ).PixelValueTransformationSequence[0]
            plane = (group if "PlaneOrientationSequence" in group else shared).PlaneOrientationSequence[0]
            to_left = plane.ImageOrientationPatient[0]
            np.testing.assert_allclose(plane.ImageOrientationPatient, [to_left, 0, 0, 0, 1, 0], atol=1e-3)
            z = group.PlanePositionSequence[0].ImagePositionPatient[2]
            frames.append((z, frame * float(values.RescaleSlope) + float(values.RescaleIntercept)))
        ordered = np.stack([frame for _, frame in sorted(frames, key=lambda pair: pair[0])])
        return ordered.transpose(2, 1, 0)[:: -int(to_left), ::-1]
    if color == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset)[..., :3] @ LUMINANCE
    if dataset.SamplesPerPixel == 3:
        return pixels @ LUMINANCE  # pydicom has converted YBR to RGB
    pixels = apply_modality_lut(pixels, dataset).astype(float)
    if color == "MONOCHROME1":
        bits, signed = dataset.BitsStored, dataset.PixelRepresentation
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        pixels = apply_modality_lut(ends, dataset).sum() - pixels
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        mask = dataset.pixel_array == np.array(padding).astype(dataset.pixel_array.dtype)
        pixels[mask] = pixels[~mask].min()
    return pixels


def check(package: str, name: str) -> tuple[Path, np.ndarray] | None:
    """The file and its gray values; None for one that is rightly refused."""
    path = find(package, name)
    if path is None:
        pytest.skip(f"{name} is not here (pip install pydicom-data)")
    image, message = load(path)
    if image is None:
        assert SENTENCE.fullmatch(message)
    if (package, name) in EXPECTED:
        assert outcome(path, image, message) == EXPECTED[package, name]
    return None if image is None else (path, image)


def expected_outcomes() -> dict[tuple[str, str], str]:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {(row["package"], row["file"]): row["outcome"] for row in csv.DictReader(file)}


EXPECTED = expected_outcomes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names("pydicom"))
def test_pydicoms_files(name):
    if (read := check("pydicom", name)) is not None:
        path, image = read
        np.testing.assert_allclose(image, dicom_reference(read_dicom(path)), rtol=1e-5, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names("nibabel"))
def test_nibabels_files(name):
    if (read := check("nibabel", name)) is None:
        return
    path, image = read
    if path.suffix == ".dcm":
        np.testing.assert_array_equal(image, dicom_reference(read_dicom(path)))
        return
    expected = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata().squeeze()
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    monai = Compose([LoadImage(image_only=True), EnsureChannelFirst(), Orientation("RAS", labels=labels)])
    np.testing.assert_allclose(image, monai(path).numpy().squeeze(), rtol=1e-6)


def test_the_files_that_came_with_the_packages_are_in_the_table():
    assert sum(owner == "pydicom" for owner, _ in EXPECTED) >= 193
    assert sum(not text.startswith("the file") for text in EXPECTED.values()) >= 130
    assert {name for owner, name in EXPECTED if owner == "pydicom"} >= set(get_url_map())


if __name__ == "__main__":
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["package", "file", "outcome"])
        for package in FOLDERS:
            for name in names(package):
                path = find(package, name)
                if path is None:
                    sys.exit(f"{name} is not here.")
                writer.writerow([package, name, outcome(path, *load(path))])
