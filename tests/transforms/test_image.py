"""Every image format through one loader: gray, float, the right way up, or an error in one sentence."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medvl.data import read_manifest
from medvl.transforms import (
    LoadStudyImage,
    LoadStudyImaged,
    LoadStudyImageDict,
    PadToSquare,
    PadToSquared,
    RadiographIntensity,
    RadiographIntensityd,
    ResizeLongest,
    image_preprocessing,
)
from medvl.utils.errors import StudyError

# Asymmetric in every way: neither a flip nor a transposition leaves it as it is.
PICTURE = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20 + np.uint8([[0, 1, 0, 0]])
RGB = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], axis=-1)
LUMINANCE = RGB @ np.array([0.299, 0.587, 0.114])


def write_dicom(path, pixels, photometric="MONOCHROME2", **tags):
    """A DICOM file with little more than its pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = tags.pop("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def load(path, **options):
    image = LoadStudyImage(**options)(path)
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    assert image.shape[0] == 1
    return image[0].numpy()


# The right way up


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "pgm", "gif"])
def test_row_0_is_at_the_top_of_lossless_pictures(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path)
    np.testing.assert_array_equal(load(path), PICTURE)


def test_row_0_is_at_the_top_of_a_jpeg(tmp_path):
    blocks = np.kron(PICTURE, np.ones((16, 16), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(load(tmp_path / "a.jpg"), blocks, atol=3)


def test_a_cameras_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load(tmp_path / "a.png"), np.rot90(PICTURE, -1))


def test_row_0_is_at_the_top_of_a_dicom(tmp_path):
    np.testing.assert_array_equal(load(write_dicom(tmp_path / "a.dcm", PICTURE)), PICTURE)
    np.testing.assert_array_equal(load(write_dicom(tmp_path / "no_suffix", PICTURE)), PICTURE)


VOLUME = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_volumes_come_out_in_ras(tmp_path, axes, flips, suffix):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * 2.5
    for axis in flips:
        affine[:, axis] *= -1
    stored = np.flip(VOLUME.transpose(axes), flips)
    nibabel.Nifti1Image(stored, affine).to_filename(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(load(tmp_path / f"a.{suffix}"), VOLUME)
    kept = LoadStudyImage(keep_meta=True)(tmp_path / f"a.{suffix}")
    assert isinstance(kept, MetaTensor)
    np.testing.assert_allclose(np.diag(kept.affine)[:3], 2.5)


def write_series(folder, volume, step=(0, 0, 2.0), **tags):
    """The slices of a RAS volume as a scanner stores them: rows to the back, columns to the left, head last."""
    folder.mkdir()
    tags.setdefault("SeriesInstanceUID", generate_uid())
    slices = volume[::-1, ::-1].transpose(2, 1, 0)
    for number, pixels in enumerate(slices):
        write_dicom(
            folder / f"{(number * 7) % 11}.dcm",
            np.ascontiguousarray(pixels),
            **{
                "InstanceNumber": number + 1,
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [number * value for value in step],
                "PixelSpacing": [0.5, 0.5],
                **tags,
            },
        )
    return folder


def test_a_dicom_series_comes_out_as_the_same_nifti(tmp_path):
    folder = write_series(
        tmp_path / "series", VOLUME, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=5, WindowWidth=4
    )
    (folder / "notes.txt").write_text("no DICOM")
    write_dicom(folder / "DICOMDIR", PICTURE)  # stands for the index that such folders hold: without pixels
    dataset = pydicom.dcmread(folder / "DICOMDIR")
    del dataset.PixelData
    dataset.save_as(folder / "DICOMDIR")
    np.testing.assert_array_equal(load(folder), VOLUME * 2 - 10)
    kept = LoadStudyImage(keep_meta=True)(folder)
    np.testing.assert_allclose(np.diag(kept.affine)[:3], [0.5, 0.5, 2.0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 3, 1), lambda stored: stored[:, :, 0].T),  # axial: front at the top, the patient's right at the left
        ((4, 1, 3), lambda stored: stored[:, 0, :].T),  # coronal: head at the top
        ((1, 4, 3), lambda stored: stored[0].T),  # sagittal: head at the top, front at the left
        ((4, 3), lambda stored: stored.T),
    ],
)
def test_a_nifti_of_one_slice_is_shown_as_dicom_shows_it(tmp_path, shape, expected):
    stored = np.arange(12, dtype=np.uint8).reshape(shape)
    nibabel.Nifti1Image(stored, np.eye(4)).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(load(tmp_path / "a.nii"), expected(stored)[::-1, ::-1])


# One float channel


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(RGB), LUMINANCE),
        (Image.fromarray(np.dstack([RGB, PICTURE])), LUMINANCE),
        (Image.fromarray(np.dstack([PICTURE, PICTURE[::-1]]), mode=None), PICTURE),
        (Image.fromarray(PICTURE > 100), (PICTURE > 100) * 255),
        (Image.fromarray(PICTURE.astype(np.uint16) * 257), PICTURE.astype(np.float32) * 257),
        (Image.fromarray(PICTURE).convert("P"), PICTURE),
        (Image.fromarray(RGB).quantize(12), LUMINANCE),
    ],
    ids=["RGB", "RGBA", "LA", "1", "I;16", "gray palette", "color palette"],
)
def test_png_modes(tmp_path, picture, expected):
    picture.save(tmp_path / "a.png")
    np.testing.assert_allclose(load(tmp_path / "a.png"), expected, atol=1e-3)


def test_tiff_modes(tmp_path):
    Image.fromarray(PICTURE.astype(np.float32) / 7 - 3).save(tmp_path / "f.tiff")
    np.testing.assert_array_equal(load(tmp_path / "f.tiff"), PICTURE.astype(np.float32) / 7 - 3)
    Image.fromarray(PICTURE.astype(np.int32) * 100_000).save(tmp_path / "i.tiff")
    np.testing.assert_array_equal(load(tmp_path / "i.tiff"), PICTURE.astype(np.float32) * 100_000)
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "c.tiff")
    np.testing.assert_allclose(load(tmp_path / "c.tiff"), LUMINANCE, atol=1e-3)


def test_arrays_and_tensors():
    for image in (
        PICTURE,
        PICTURE[None],
        torch.as_tensor(PICTURE),
        MetaTensor(PICTURE[None]),
        PICTURE[:, :, None].T.T[..., 0],
    ):
        np.testing.assert_array_equal(load(image), PICTURE)
    np.testing.assert_allclose(load(RGB.transpose(2, 0, 1)), LUMINANCE, rtol=1e-6)
    np.testing.assert_array_equal(load(PICTURE.astype(">u2")), PICTURE)
    np.testing.assert_array_equal(load(VOLUME[None]), VOLUME)
    frozen = PICTURE.astype(np.float32)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(load(frozen[::-1]), PICTURE[::-1])
    with pytest.raises(
        ValueError, match=r"^image must have shape \(H, W\), \(1, H, W\[, D\]\) or .* got \(2, 3, 4\)\.$"
    ):
        LoadStudyImage()(VOLUME)
    with pytest.raises(
        TypeError, match=r"^image must be one path or array, got list; several views are rows of their own"
    ):
        LoadStudyImage()(["a.png", "b.png"])


# DICOM


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
        {"WindowCenter": [1000, 2000], "WindowWidth": [600, 100]},
        {"WindowCenter": 1000, "WindowWidth": 600, "VOILUTFunction": "SIGMOID"},
    ],
)
@pytest.mark.parametrize("window", [True, False])
def test_monochrome1_equals_monochrome2(tmp_path, tags, window):
    stored = (PICTURE.astype(np.uint16) * 8) + 500
    mirrored = {**tags}
    if "WindowCenter" in tags:
        # The linear window's center lies half a step beside its middle (PS3.3 C.11.2.1.2).
        half = 0 if "VOILUTFunction" in tags else 1
        centers = np.atleast_1d(tags["WindowCenter"])
        mirrored["WindowCenter"] = [int(4095 - center + half) for center in centers]
    bright = load(write_dicom(tmp_path / "2.dcm", stored, BitsStored=12, **tags), window=window)
    dark = load(write_dicom(tmp_path / "1.dcm", 4095 - stored, "MONOCHROME1", BitsStored=12, **mirrored), window=window)
    np.testing.assert_allclose(dark, bright, atol=1e-2)
    assert bright.std() > 0


def test_the_first_window_is_applied_or_not(tmp_path):
    stored = PICTURE.astype(np.int16) * 10
    tags = {"WindowCenter": [600.5, 9], "WindowWidth": [401, 9], "RescaleSlope": 1, "RescaleIntercept": 0}
    path = write_dicom(tmp_path / "a.dcm", stored, **tags)
    expected = np.clip((stored - 400.0) / 400, 0, 1) * 65535 - 32768
    np.testing.assert_allclose(load(path), expected, atol=0.01)
    np.testing.assert_array_equal(load(path, window=False), stored)
    empty = write_dicom(tmp_path / "b.dcm", stored, WindowCenter=None, WindowWidth=None)
    np.testing.assert_array_equal(load(empty), stored)


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_voi_table_is_looked_up(tmp_path, rescale, photometric):
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.add_new("LUTData", "OW", (np.arange(256) ** 2).astype("<u2").tobytes())
    path = write_dicom(tmp_path / "a.dcm", PICTURE, photometric, VOILUTSequence=pydicom.Sequence([table]), **rescale)
    squares = PICTURE.astype(np.float32) ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns of look-ups by fractions, which it truncates
        np.testing.assert_array_equal(load(path), squares if photometric == "MONOCHROME2" else 65535 - squares)


def test_color_dicom(tmp_path):
    np.testing.assert_allclose(load(write_dicom(tmp_path / "a.dcm", RGB, "RGB")), LUMINANCE, rtol=1e-5)
    reference = load(get_testdata_file("SC_rgb_small_odd.dcm"))
    np.testing.assert_allclose(load(get_testdata_file("SC_rgb_small_odd_jpeg.dcm")), reference, atol=1)


def test_a_missing_decoder_is_named():
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
    with pytest.raises(
        ValueError,
        match=r"compressed as JPEG-LS Lossless Image Compression and no decoder for that is installed "
        r"\(pip install pylibjpeg pylibjpeg-libjpeg\)",
    ):
        load(path)


DICOM_ERRORS = (
    "holds no image|holds a segmentation|several frames must form a volume|lacks the DICOM prefix|"
    "no decoder for that is installed|the installed decoder cannot read them|fewer|less than expected|"
    "Missing required element|no \\(0002,0010\\)|invalid literal"
)


def test_pydicoms_files_load_or_say_why():
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    loaded = 0
    for path in sorted(folder.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = LoadStudyImage()(path)
            except ValueError as error:
                message = str(error)
            else:
                message = ""
                loaded += 1
                assert image.ndim == 3, path
                assert image.isfinite().all(), path
        if message:
            assert message.startswith(f"the file {path} cannot be read as DICOM: ")
            assert re.search(DICOM_ERRORS, message), message
            assert "\n" not in message
    assert loaded >= 35


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"SeriesInstanceUID": None}, r"the folder must hold one DICOM series, got 4\.$"),
        ({"InstanceNumber": None}, r"every slice of a series must have an InstanceNumber\.$"),
        (
            {"ImagePositionPatient": None},
            r"every slice of a series must have ImageOrientationPatient and ImagePositionPatient\.$",
        ),
    ],
)
def test_a_series_that_is_none(tmp_path, tags, message):
    folder = write_series(tmp_path / "series", VOLUME, **tags)
    if "SeriesInstanceUID" in tags:
        for i, path in enumerate(folder.iterdir()):
            dataset = pydicom.dcmread(path)
            dataset.SeriesInstanceUID = f"1.2.{i}"
            dataset.save_as(path)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_slices_are_sorted_by_position_and_not_by_number(tmp_path):
    folder = write_series(tmp_path / "series", VOLUME)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = (int(dataset.InstanceNumber) * 3) % 5
        dataset.save_as(path)
    np.testing.assert_array_equal(load(folder), VOLUME)
    np.testing.assert_allclose(np.diag(LoadStudyImage(keep_meta=True)(folder).affine)[:3], [0.5, 0.5, 2.0])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            {"ImagePositionPatient": [0, 0, 2.0]},
            r"its slices must have different positions, as in one volume at one time, got 1 of 5 repeated\.$",
        ),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, r"its slices must be parallel\.$"),
    ],
)
def test_a_series_of_several_times_or_with_a_localizer_is_no_volume(tmp_path, tags, message):
    folder = write_series(tmp_path / "series", VOLUME, SeriesInstanceUID="1.2.3")
    geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 9.0], **tags}
    more = {"SeriesInstanceUID": "1.2.3", "InstanceNumber": 5, "PixelSpacing": [0.5, 0.5]}
    write_dicom(folder / "more.dcm", VOLUME[:, :, 0].T.copy(), **more, **geometry)
    with pytest.raises(ValueError, match=message):
        load(folder)


def group(**tags):
    dataset = pydicom.Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_frames(path, volume, order, **frame):
    """A RAS volume as one enhanced file: slices as :func:`write_series` has them, in any order."""
    slices = volume[::-1, ::-1].transpose(2, 1, 0)[order]
    dataset = pydicom.dcmread(write_dicom(path, np.ascontiguousarray(slices[0])))
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = np.ascontiguousarray(slices).tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[group(PixelSpacing=[0.5, 0.5])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=[group(ImagePositionPatient=[0, 0, 2.0 * number])],
            PixelValueTransformationSequence=[group(RescaleSlope=number + 1, RescaleIntercept=-10)],
            **frame,
        )
        for number in order
    ]
    dataset.save_as(path)
    return str(path)


def test_an_enhanced_file_is_a_volume(tmp_path):
    path = write_frames(tmp_path / "a.dcm", VOLUME, [2, 0, 3, 1])
    np.testing.assert_array_equal(load(path), VOLUME * np.arange(1, 5) - 10)
    kept = LoadStudyImage(keep_meta=True)(path)
    series = LoadStudyImage(keep_meta=True)(write_series(tmp_path / "series", VOLUME))
    torch.testing.assert_close(kept.affine, series.affine)
    with pytest.raises(ValueError, match=r"a\.dcm must have 2 spatial dimensions, got 3\.$"):
        load(path, spatial_dims=2)


def test_frames_without_a_place_are_no_volume(tmp_path):
    path = write_frames(tmp_path / "a.dcm", VOLUME, [0, 1, 2, 3], PlaneOrientationSequence=[group()])
    with pytest.raises(
        ValueError, match="it holds 4 frames; several frames must form a volume in which every frame has a position"
    ):
        load(path)
    path = write_frames(tmp_path / "b.dcm", VOLUME, [0, 1, 1, 2])
    with pytest.raises(
        ValueError, match="its frames must have different positions, as in one volume at one time, got 1 of 4 repeated"
    ):
        load(path)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("value", [-2000, 63536])
def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path, photometric, value):
    stored = PICTURE.astype(np.int16) + 7
    stored[0, :2] = -2000
    path = write_dicom(tmp_path / "a.dcm", stored, photometric, RescaleSlope=2, RescaleIntercept=-1000)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)  # both stand for the same bits
    dataset.save_as(path)
    image = load(path)
    real = stored[stored > -2000] * 2 - 1000.0
    assert image[0, 0] == image[0, 1] == image.min() == image[stored > -2000].min()
    assert np.ptp(image) == np.ptp(real)


def test_a_series_of_unequal_slices(tmp_path):
    folder = write_series(tmp_path / "series", VOLUME, SeriesInstanceUID="1.2.3")
    write_dicom(folder / "scout.dcm", PICTURE[:2, :2], SeriesInstanceUID="1.2.3", InstanceNumber=9)
    with pytest.raises(
        ValueError, match=r"the slices of the series must have the same size, got \[\(2, 2\), \(3, 2\)\]\.$"
    ):
        load(folder)


def test_folders_without_a_series(tmp_path):
    with pytest.raises(ValueError, match=r"the file .* cannot be read as DICOM: the folder holds no DICOM file"):
        load(tmp_path)
    write_dicom(tmp_path / "a.dcm", PICTURE)
    np.testing.assert_array_equal(load(tmp_path), PICTURE)


def test_a_folder_of_plans_holds_no_image(tmp_path):
    for name in ("rtplan.dcm", "test-SR.dcm"):
        (tmp_path / name).write_bytes(Path(get_testdata_file(name)).read_bytes())
    with pytest.raises(ValueError, match="the folder holds no DICOM image"):
        load(tmp_path)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_modality_table_is_looked_up(tmp_path, photometric):
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "OW", (np.arange(256) * 3).astype("<u2").tobytes())
    path = write_dicom(tmp_path / "a.dcm", PICTURE, photometric, ModalityLUTSequence=pydicom.Sequence([table]))
    thrice = PICTURE.astype(np.float32) * 3
    np.testing.assert_array_equal(load(path), thrice if photometric == "MONOCHROME2" else 65535 - thrice)


# NIfTI


def test_nibabels_files_load_or_say_why():
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    names = {path.name: path for path in folder.glob("*.nii*")}
    assert load(names["anatomical.nii"]).shape == (33, 41, 25)
    canonical = nibabel.as_closest_canonical(nibabel.load(names["standard.nii.gz"])).get_fdata()
    np.testing.assert_array_equal(load(names["standard.nii.gz"]), canonical.astype(np.float32))
    with pytest.raises(ValueError, match=r"the volume must have 3 dimensions, got shape \(17, 21, 3, 20\)\.$"):
        load(names["functional.nii"])
    with pytest.raises(ValueError, match=r"row_major.dconn.nii cannot be read as NIfTI: "):
        load(names["row_major.dconn.nii"])
    with pytest.raises(ValueError, match=r"^image must be finite, got \d+ of \d+ values NaN or infinite\.$"):
        RadiographIntensity()(load(names["resampled_anat_moved.nii"])[None])


def test_odd_nifti(tmp_path):
    nibabel.Nifti1Image(VOLUME[..., None], np.eye(4)).to_filename(tmp_path / "4.nii")
    np.testing.assert_array_equal(load(tmp_path / "4.nii"), VOLUME)
    nibabel.Nifti1Image(VOLUME.astype(np.complex64), np.eye(4)).to_filename(tmp_path / "c.nii")
    with pytest.raises(ValueError, match=r"the voxels must be real numbers, got type complex64\.$"):
        load(tmp_path / "c.nii")
    data = (tmp_path / "4.nii").read_bytes()
    (tmp_path / "t.nii").write_bytes(data[:-10])
    with pytest.raises(ValueError, match=r"t.nii cannot be read as NIfTI: "):
        load(tmp_path / "t.nii")


# Broken files


def test_broken_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    for suffix in ("jpg", "png"):
        Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=rf"cut.{suffix} cannot be read as an image: .*truncated") as raised:
            load(tmp_path / f"cut.{suffix}")
        assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(FileNotFoundError, match=r"^the file .*none.png does not exist\.$"):
        load(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"^the file .*empty.png is empty\.$"):
        load(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png cannot be read as an image: cannot identify image file"):
        load(tmp_path / "text.png")
    (tmp_path / "evil.png").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load(tmp_path / "evil.png")
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(ValueError, match="cannot be read as DICOM: it lacks the DICOM prefix"):
        load(tmp_path / "text.dcm")
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    frames[0].save(tmp_path / "two.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"the file must hold one image, got 2 frames\.$"):
        load(tmp_path / "two.tiff")


def test_a_decompression_bomb_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"bomb.png cannot be read as an image: .*decompression bomb"):
        load(tmp_path / "bomb.png")


def test_a_mislabeled_suffix_does_not_matter(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(load(tmp_path / "a.jpg"), PICTURE)


# Intensity, square, chain


@pytest.mark.parametrize("shape", [(1, 20, 30), (1, 400, 300), (1, 12, 13, 14), (3, 9, 9)])
def test_intensity_is_percentile_scaling(shape):
    image = torch.as_tensor(np.random.default_rng(0).normal(50, 20, shape), dtype=torch.float32)
    low, high = np.percentile(image.numpy(), (2, 90))
    expected = ((image - low) / (high - low)).clamp(0, 1)
    scaled = RadiographIntensity(2, 90)(image)
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-5 if image.numel() <= 1 << 16 else 0.02)
    assert image.max() > 1  # the input stays as it was


def test_intensity_of_odd_images():
    assert RadiographIntensity()(torch.full((1, 3, 3), 7.0)).tolist() == [[[0] * 3] * 3]
    mostly_zero = torch.zeros(1, 100, 100)
    mostly_zero[0, 0, 0] = 9
    assert RadiographIntensity()(mostly_zero).max() == 1
    huge = RadiographIntensity(0, 100)(torch.tensor([[[-3e38, 0.0, 3e38]]]))
    assert huge.tolist() == [[[0, 0.5, 1]]]
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=r"^image must be finite, got 1 of 4 values NaN or infinite\.$"):
            RadiographIntensity()(torch.tensor([[[0.0, 1.0], [2.0, value]]]))
    with pytest.raises(ValueError, match=r"^lower and upper must satisfy 0 <= lower < upper <= 100, got 5 and 5\.$"):
        RadiographIntensity(5, 5)
    with pytest.raises(ValueError, match=r"^image must hold at least one pixel, got shape \(1, 0, 4\)\.$"):
        RadiographIntensity()(torch.zeros(1, 0, 4))


def test_padding_is_centerd():
    padded = PadToSquare()(torch.full((2, 2, 5), 3.0) + torch.arange(2.0)[:, None, None])
    assert padded.shape == (2, 5, 5)
    assert padded.min() == 3
    padded = PadToSquare(value=0)(torch.ones(1, 2, 5, 4))
    assert padded.shape == (1, 5, 5, 5)
    assert padded.sum() == 40
    assert padded[0, 1:3, :, :4].min() == 1


def test_resizing_keeps_proportions_and_means():
    image = torch.rand(1, 90, 60)
    small = ResizeLongest(30)(image)
    assert small.shape == (1, 30, 20)
    torch.testing.assert_close(small.mean(), image.mean(), rtol=0, atol=0.01)
    assert small.std() < 0.6 * image.std()  # pixels are averaged, not picked
    assert ResizeLongest(180)(image).shape == (1, 180, 120)
    assert ResizeLongest(10)(torch.rand(1, 40, 20, 1)).shape == (1, 10, 5, 1)
    assert ResizeLongest(8)(torch.rand(1, 4, 4, 4)).shape == (1, 8, 8, 8)
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0\.$"):
        ResizeLongest(0)


def test_thick_slices_keep_the_proportions_of_the_body(tmp_path):
    # A cube of 8 mm: 8 x 8 pixels in 4 slices of 2 mm, brighter from slice to slice.
    stored = np.broadcast_to(np.arange(4, dtype=np.float32), (8, 8, 4))
    nibabel.Nifti1Image(stored, np.diag([1, 1, 2, 1])).to_filename(tmp_path / "a.nii")
    image = image_preprocessing(8, spatial_dims=3)({"image": tmp_path / "a.nii"})["image"]
    assert type(image) is torch.Tensor
    assert image.shape == (1, 8, 8, 8)
    assert (image[0, 3, 3].diff() >= 0).all(), "nothing was padded"
    assert image[0, 3, 3, [0, -1]].tolist() == [0, 1]
    half = ResizeLongest(4)(MetaTensor(torch.rand(1, 8, 8, 4), affine=torch.diag(torch.tensor([1.0, 1, 2, 1]))))
    assert half.shape == (1, 4, 4, 4)
    assert ResizeLongest(4)(torch.rand(1, 8, 8, 4)).shape == (1, 4, 4, 2)


@pytest.mark.parametrize("transform", [ResizeLongest(8), PadToSquare()])
def test_an_image_without_its_channel_is_refused(transform):
    with pytest.raises(ValueError, match=r"^image must have shape \(C, H, W\) or \(C, H, W, D\), got \(6, 4\)\.$"):
        transform(torch.rand(6, 4))


def test_preprocessing_of_every_format_is_the_same(tmp_path):
    blocks = np.kron(PICTURE, np.ones((16, 16), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.png")
    Image.fromarray(blocks).save(tmp_path / "a.jpg", quality=100)
    write_dicom(tmp_path / "a.dcm", 255 - blocks, "MONOCHROME1")
    chain = image_preprocessing(32)
    first = chain({"image": str(tmp_path / "a.png"), "report": "x"})
    assert (first["image"].shape, first["image"].dtype, type(first["image"])) == (
        (1, 32, 32),
        torch.float32,
        torch.Tensor,
    )
    assert first["report"] == "x"
    assert (first["image"].min(), first["image"].max()) == (0, 1)
    assert first["image"][0, :4].max() == 0  # padding above a picture that is wider than high
    for name in ("a.dcm", "a.jpg"):
        other = chain({"image": str(tmp_path / name)})["image"]
        torch.testing.assert_close(other, first["image"], rtol=0, atol=0.02)


def test_preprocessing_takes_no_other_dimensions(tmp_path):
    nibabel.Nifti1Image(VOLUME, np.eye(4)).to_filename(tmp_path / "a.nii")
    assert image_preprocessing(4, spatial_dims=3)({"image": tmp_path / "a.nii"})["image"].shape == (1, 4, 4, 4)
    # MONAI chains the loader's error to its own
    with pytest.raises((ValueError, RuntimeError)) as raised:
        image_preprocessing(4)({"image": tmp_path / "a.nii"})
    messages = [str(raised.value), str(raised.value.__cause__)]
    assert any(message.endswith("a.nii must have 2 spatial dimensions, got 3.") for message in messages)
    with pytest.raises(ValueError, match=r"^spatial_dims must be one of 2, 3, got 4\.$"):
        image_preprocessing(4, spatial_dims=4)


@pytest.mark.parametrize("chain", [LoadStudyImaged("image"), image_preprocessing(8)])
def test_dictionary_versions_name_the_study(tmp_path, chain):
    with pytest.raises((StudyError, RuntimeError)) as raised:  # RuntimeError is what MONAI's Compose makes of an error
        chain({"study_id": "s7", "image": tmp_path / "none.png"})
    error = raised.value if isinstance(raised.value, StudyError) else raised.value.__cause__
    assert str(error) == f"study 's7', image: the file {tmp_path / 'none.png'} does not exist."


def test_dictionary_versions_follow_monai():
    assert LoadStudyImageDict is LoadStudyImaged
    study = {"image": PICTURE}
    assert LoadStudyImaged("image")(study)["image"].shape == (1, 3, 4)
    assert study["image"] is PICTURE
    for transform in (LoadStudyImaged, RadiographIntensityd, PadToSquared):
        assert transform("image", allow_missing_keys=True)({"report": "x"}) == {"report": "x"}
        with pytest.raises(KeyError, match="image"):
            transform("image")({"report": "x"})
    copy = pickle.loads(pickle.dumps(image_preprocessing(8)))
    torch.testing.assert_close(copy(study)["image"], image_preprocessing(8)(study)["image"])
    config = {"chain": {"_target_": "medvl.transforms.image_preprocessing", "image_size": 8}}
    assert ConfigParser(config).get_parsed_content("chain")(study)["image"].shape == (1, 8, 8)


# Real images


def test_real_radiographs(shared_data):
    cases = read_manifest(shared_data / "cxr-cases" / "cases.csv", report_column="text").studies
    chain = image_preprocessing(64)
    for study in cases[::8]:
        image = chain(study)["image"]
        assert image.shape == (1, 64, 64)
        assert image.isfinite().all()
        assert 0.05 < image.std() < 0.5
    tiny = read_manifest(shared_data / "pneumonia" / "cases.csv", label_column="finding").studies
    assert chain(tiny[0])["image"].shape == (1, 64, 64)
