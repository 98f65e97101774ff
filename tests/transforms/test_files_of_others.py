"""The test files of pydicom and nibabel: the right pixels in the right orientation, or one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medvl.transforms import LoadStudyImage

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
TABLES = {".txt", ".json", ".dump", ".icc"}
SENTENCE = re.compile(r"the file \S+ (cannot be read as (DICOM|NIfTI|an image)|is in the format)[^\n]*\.")
LUMINANCE = np.array([0.299, 0.587, 0.114])


def files(folder):
    names = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return names or [pytest.param(None, marks=pytest.mark.skip(reason=f"{folder.name} carries no files here"))]


def load_or_refusal(path):
    try:
        return LoadStudyImage(window=False)(path)[0].numpy(), ""
    except ValueError as error:
        return None, str(error)


def dicom_reference(dataset):
    """Gray values of one frame by pydicom's own functions."""
    pixels, color = dataset.pixel_array, dataset.PhotometricInterpretation
    if color == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return pixels[..., :3] @ LUMINANCE
    if dataset.SamplesPerPixel == 3:
        return pixels @ LUMINANCE  # pydicom has converted YBR to RGB
    pixels = apply_modality_lut(pixels, dataset).astype(float)
    if color == "MONOCHROME1":
        bits, signed = dataset.BitsStored, dataset.PixelRepresentation
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        pixels = apply_modality_lut(ends, dataset).sum() - pixels
    return pixels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", files(PYDICOM), ids=lambda path: path and path.name)
def test_pydicoms_files(path):
    image, message = load_or_refusal(path)
    if message:
        assert SENTENCE.fullmatch(message)
        return
    dataset = pydicom.dcmread(path, force=True) if path.suffix != ".gz" else None
    if dataset is None:
        assert image.shape == (64, 64)
        return
    expected = dicom_reference(dataset)
    padding = dataset.get("PixelPaddingValue")
    if padding is not None and dataset.SamplesPerPixel == 1:
        mask = dataset.pixel_array == np.array(padding).astype(dataset.pixel_array.dtype)
        expected[mask] = expected[~mask].min()
    np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("path", files(NIBABEL), ids=lambda path: path and path.name)
def test_nibabels_files(path):
    image, message = load_or_refusal(path)
    if message:
        assert SENTENCE.fullmatch(message)
        return
    if path.suffix == ".dcm":
        assert image.shape == pydicom.dcmread(path).pixel_array.shape
        return
    expected = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata().squeeze()
    np.testing.assert_allclose(image, expected, rtol=1e-6)


def test_most_of_them_are_read():
    if not (PYDICOM.is_dir() and NIBABEL.is_dir()):
        pytest.skip("the packages carry no files here")
    names = [path for path in PYDICOM.glob("*.dcm")]
    assert sum(not load_or_refusal(path)[1] for path in names) >= 40
    assert sum(not load_or_refusal(path)[1] for path in NIBABEL.glob("*.nii*")) >= 3
