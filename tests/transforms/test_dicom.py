"""DICOM files as a workstation shows them, and series as volumes, or an error in one sentence."""

from __future__ import annotations

import gzip
import io
import re
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from image_files import LUMINANCE, PICTURE, RGB, VOLUME, group, load, write_dicom, write_frames, write_series
from monai.data import MetaTensor
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import MediaStorageDirectoryStorage

from medvl.transforms import LoadStudyImage, RadiographIntensity, image_preprocessing


def test_a_dicom_series_comes_out_as_the_same_nifti(tmp_path):
    folder = write_series(
        tmp_path / "series", VOLUME, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=5, WindowWidth=4
    )
    (folder / "notes.txt").write_text("no DICOM")
    write_dicom(folder / "DICOMDIR", PICTURE)  # stands for the index that such folders hold: without pixels
    dataset = pydicom.dcmread(folder / "DICOMDIR")
    del dataset.PixelData, dataset.Rows
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.save_as(folder / "DICOMDIR")
    np.testing.assert_array_equal(load(folder), VOLUME * 2 - 10)
    kept = LoadStudyImage(keep_meta=True)(folder)
    np.testing.assert_allclose(np.diag(kept.affine)[:3], [0.5, 0.5, 2.0])


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


@pytest.mark.parametrize(
    ("pixels", "photometric", "tags", "message"),
    [
        (RGB, "HSV", {}, r"PhotometricInterpretation must be RGB or YBR_FULL or .* for 3 samples a pixel, got HSV"),
        (RGB, "YBR_PARTIAL_420", {}, r"PhotometricInterpretation must be RGB or .*, got YBR_PARTIAL_420"),
        (RGB, "MONOCHROME2", {}, r"PhotometricInterpretation must be RGB or .*, got MONOCHROME2"),
        (PICTURE, "RGB", {}, r"must be MONOCHROME1 or MONOCHROME2 or PALETTE COLOR for 1 sample a pixel, got RGB"),
        (RGB, "RGB", {"PixelRepresentation": 1}, r"PixelRepresentation must be 0 \(unsigned\) in color, got 1"),
        (PICTURE, "PALETTE COLOR", {}, r"it lacks RedPaletteColorLookupTableDescriptor and Green.* and Blue"),
    ],
)
def test_colors_of_unknown_meaning_are_refused(tmp_path, pixels, photometric, tags, message):
    with pytest.raises(ValueError, match=message):
        load(write_dicom(tmp_path / "a.dcm", pixels, photometric, **tags))


def test_a_missing_decoder_is_named():
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
    with pytest.raises(
        ValueError,
        match=r"compressed as JPEG-LS Lossless Image Compression and no decoder for that is installed "
        r"\(pip install pylibjpeg pylibjpeg-libjpeg\)",
    ):
        load(path)


def test_the_advice_names_packages_as_they_are_installed(monkeypatch):
    decoder = SimpleNamespace(is_available=False, missing_dependencies=["gdcm - requires gdcm>=3.0.10"])
    monkeypatch.setattr("medvl.transforms.dicom_decoding.get_decoder", lambda _: decoder)
    with pytest.raises(ValueError, match=r"no decoder for that is installed \(pip install python-gdcm\)\.$"):
        load(get_testdata_file("JPEG-lossy.dcm"))


DICOM_ERRORS = (
    "holds no image|holds a segmentation|several frames must form a volume|lacks the DICOM prefix|"
    "no decoder for that is installed|the installed decoder cannot read them|fewer|less than expected|"
    "it lacks Rows|Missing required element|no \\(0002,0010\\)|where a number is expected"
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
        (
            {"ImagePositionPatient": None},
            r"must have ImagePositionPatient, which 0\.dcm, 10\.dcm, 3\.dcm and 1 more lack\.$",
        ),
        ({"PixelSpacing": None}, r"every slice of a series must have PixelSpacing, which 0\.dcm, 10\.dcm, 3\.dcm and "),
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
            r"its slices must have different positions, as in one volume at one time, got 1 of 5 repeated "
            r"\(7\.dcm and more\.dcm\)\.$",
        ),
        (
            {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
            r"its slices must be parallel, which more\.dcm differ from\.$",
        ),
    ],
)
def test_a_series_of_several_times_or_with_a_localizer_is_no_volume(tmp_path, tags, message):
    folder = write_series(tmp_path / "series", VOLUME, SeriesInstanceUID="1.2.3")
    geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 9.0], **tags}
    more = {"SeriesInstanceUID": "1.2.3", "InstanceNumber": 5, "PixelSpacing": [0.5, 0.5]}
    write_dicom(folder / "more.dcm", VOLUME[:, :, 0].T.copy(), **more, **geometry)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_an_enhanced_file_is_a_volume(tmp_path):
    path = write_frames(tmp_path / "a.dcm", VOLUME, [2, 0, 3, 1])
    np.testing.assert_array_equal(load(path), VOLUME * np.arange(1, 5) - 10)
    kept = LoadStudyImage(keep_meta=True)(path)
    series = LoadStudyImage(keep_meta=True)(write_series(tmp_path / "series", VOLUME))
    torch.testing.assert_close(kept.affine, series.affine)
    with pytest.raises(ValueError, match=r"a\.dcm must have 2 spatial dimensions \(spatial_dims\), got 3\.$"):
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


def compress(path):
    dataset = pydicom.dcmread(path)
    bits, high = dataset.BitsStored, dataset.HighBit
    dataset.BitsStored, dataset.HighBit = 16, 15  # pydicom refuses to compress what has more bits
    dataset.compress(pydicom.uid.RLELossless, dataset.pixel_array)
    dataset.BitsStored, dataset.HighBit = bits, high
    dataset.save_as(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("value", [63536, -3000])
def test_padding_may_have_more_bits_than_are_stored(tmp_path, value, compressed):
    stored = (PICTURE + 7).astype(np.uint16 if value > 0 else np.int16)
    stored[0, :2] = value
    tags = {"BitsStored": 12, "PixelPaddingValue": value, "RescaleSlope": 1, "RescaleIntercept": -1024}
    path = write_dicom(tmp_path / "a.dcm", stored, **tags)
    if compressed:
        compress(path)
    expected = PICTURE + 7.0 - 1024
    expected[0, :2] = expected[stored != value].min()
    np.testing.assert_array_equal(load(path), expected)


def test_bits_beside_the_stored_ones_are_no_padding(tmp_path):
    words = (PICTURE.astype(np.uint16) + 7) << 4 | 3  # the bits below are an overlay
    padding = int(words[1, 1])
    path = write_dicom(tmp_path / "a.dcm", words, BitsStored=12, HighBit=15, PixelPaddingValue=padding)
    np.testing.assert_array_equal(load(path), PICTURE + 7)
    overlaid = PICTURE.astype(np.uint16) + 7 | 1 << 12
    path = write_dicom(tmp_path / "b.dcm", overlaid, BitsStored=12, PixelPaddingValue=int(PICTURE[1, 1]) + 7)
    expected = PICTURE + 7.0
    expected[1, 1] = 7
    np.testing.assert_array_equal(load(path), expected)


def test_padding_of_more_bits_in_a_series_and_in_frames(tmp_path):
    volume = VOLUME.copy()
    volume[0, 0] = -3000
    folder = write_series(tmp_path / "a", volume, BitsStored=12, PixelPaddingValue=-3000)
    assert load(folder).min() == VOLUME[volume > -3000].min()
    path = write_frames(tmp_path / "b.dcm", volume, [0, 1, 2, 3])
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.add_new("PixelPaddingValue", "SS", -3000)
    dataset.save_as(path)
    darkest = (VOLUME * np.arange(1, 5) - 10)[volume > -3000].min()
    assert load(path).min() == darkest
    assert (load(path)[0, 0] == darkest).all()


@pytest.mark.parametrize(
    ("numbers", "tags", "refused"),
    [
        ([1, 2, 1, 2, 1, 2], {"Modality": "CT"}, True),
        ([1, None, 1, None, 1, None], {"Modality": "CT"}, True),
        ([1, 1, 1, 2, 2, 2], {"Modality": "CT"}, False),  # the table has moved in between
        ([1, 2, 3, 4, 5, 6], {"Modality": "CT"}, False),
        ([1, 2, 1, 2, 1, 2], {"Modality": "MR"}, False),  # excited by turns
    ],
)
def test_slices_of_two_ct_acquisitions_by_turns_are_no_volume(tmp_path, numbers, tags, refused):
    folder = write_tall_series(tmp_path / "series", **tags)
    for place, number in enumerate(numbers):
        edit(folder / f"s{place}.dcm", AcquisitionNumber=number)
    if not refused:
        np.testing.assert_array_equal(load(folder), TALL)
        return
    with pytest.raises(
        ValueError,
        match=r"its slices must be of one acquisition, .* got AcquisitionNumber 1, (2|none) by turns\.$",
    ):
        load(folder)


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


# A volume has all of its slices, each in its place

TALL = np.arange(36, dtype=np.int16).reshape(2, 3, 6) * 10


def edit(path, **tags):
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def write_tall_series(folder, **tags):
    """Six slices, s0.dcm to s5.dcm, at 0, 2, ..., 10 mm."""
    write_series(folder, TALL, SeriesInstanceUID="1.2.3", **tags)
    for path in list(folder.iterdir()):
        number = int(pydicom.dcmread(path).InstanceNumber) - 1
        path.rename(folder / f"s{number}.dcm")
    return folder


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: cut(path, 0), "it is empty"),
        (lambda path: cut(path, 60), "lacks the DICOM prefix"),
        (lambda path: cut(path, 140), ""),
        (lambda path: cut(path, 400), ""),
        (lambda path: cut(path, path.stat().st_size - 40), ""),
        (lambda path: cut(path, path.stat().st_size - 3), ""),
        (lambda path: path.write_bytes(b"\0" * 900), "lacks the DICOM prefix"),
        (lambda path: path.write_text("<html>404</html>"), "lacks the DICOM prefix"),
        (lambda path: edit(path, BitsAllocated=None), "it lacks BitsAllocated"),
        (lambda path: edit(path, PixelData=b"\0" * 6), ""),
        (lambda path: edit(path, PixelData=b"\0" * 24), "NumberOfFrames is 1, but it holds the pixels of 2 frames"),
    ],
)
@pytest.mark.parametrize("number", [0, 3, 5])
def test_a_damaged_slice_is_named(tmp_path, damage, reason, number):
    folder = write_tall_series(tmp_path / "series")
    damage(folder / f"s{number}.dcm")
    with pytest.raises(ValueError, match=rf"every slice must be readable, unlike s{number}\.dcm \(.*{reason}.*\)\.$"):
        load(folder)


@pytest.mark.parametrize("suffix", [".dcm.gz", ".dcm"])
def test_a_slice_compressed_by_gzip_is_not_left_out(tmp_path, suffix):
    folder = write_tall_series(tmp_path / "series")
    content = (folder / "s5.dcm").read_bytes()
    (folder / "s5.dcm").unlink()
    (folder / f"s5{suffix}").write_bytes(gzip.compress(content))
    (folder / "notes.txt.gz").write_bytes(gzip.compress(b"No slice."))
    with pytest.raises(ValueError, match=rf"unlike s5{re.escape(suffix)} \(it is compressed by gzip, .*\)\.$"):
        load(folder)


@pytest.mark.parametrize("name", ["IM_0003", "1.2.840.3", "slice-3"])
def test_a_damaged_slice_without_suffix_is_named(tmp_path, name):
    folder = write_tall_series(tmp_path / "series")
    for number in range(6):
        (folder / f"s{number}.dcm").rename(folder / name.replace("3", str(number)))
    (folder / "README").write_text("No slice.")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\0")
    np.testing.assert_array_equal(load(folder), TALL)
    cut(folder / name, 100)
    with pytest.raises(ValueError, match=rf"unlike {name} \(it lacks the DICOM prefix"):
        load(folder)


def test_many_damaged_slices_are_counted(tmp_path):
    folder = write_tall_series(tmp_path / "series")
    for path in folder.iterdir():
        cut(path, path.stat().st_size - 9)
    with pytest.raises(ValueError, match=r"unlike s0\.dcm .*, s1\.dcm .*, s2\.dcm .* and 3 more\.$"):
        load(folder)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            [0, 2, 6, 8, 10],
            r"within 20% of the median of 2 mm, got 4 mm from s1\.dcm to s2\.dcm, where one may be missing\.$",
        ),
        ([0, 2, 4, 20, 22], r"got 16 mm from s2\.dcm to s3\.dcm"),
        ([0, 4, 6], r"the median of 3 mm, got 4 mm from s0\.dcm to s1\.dcm, 2 mm from s1\.dcm to s2\.dcm"),
        ([10, 8, 4, 2, 0], r"got 4 mm from s2\.dcm to s1\.dcm"),
        ([0, 2, 4, 6.5, 8.5], r"got 2\.5 mm from s2\.dcm to s3\.dcm"),
        ([0, 1, 2, 4, 6, 8], r"got 1 mm from s0\.dcm to s1\.dcm, 1 mm from s1\.dcm to s2\.dcm"),
    ],
)
def test_unevenly_spaced_slices_are_named(tmp_path, places, message):
    folder = write_tall_series(tmp_path / "series")
    for number, place in enumerate(places):
        edit(folder / f"s{number}.dcm", ImagePositionPatient=[0, 0, place])
    for number in range(len(places), 6):
        (folder / f"s{number}.dcm").unlink()
    with pytest.raises(ValueError, match=message):
        load(folder)
    order = [3, 1, 0, 5, 2, 4][: len(places)]
    path = write_frames(tmp_path / "a.dcm", TALL[..., : len(places)], np.argsort(np.argsort(order)).tolist())
    dataset = pydicom.dcmread(path)
    for frame, place in zip(dataset.PerFrameFunctionalGroupsSequence, places, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, place]
    dataset.save_as(path)
    frames = re.sub(r"s(\d)\\\.dcm", lambda found: f"frame {int(found[1]) + 1}", message)
    with pytest.raises(ValueError, match=f"its frames must be evenly spaced.*{frames}"):
        load(path)


def test_a_slice_that_is_shifted_in_its_plane_is_named(tmp_path):
    folder = write_tall_series(tmp_path / "series")
    edit(folder / "s5.dcm", ImagePositionPatient=[7, 0, 10])
    with pytest.raises(ValueError, match=r"mm from s4\.dcm to s5\.dcm"):
        load(folder)


@pytest.mark.parametrize("step", [(0, 0, 2.0), (0, 0.4, 2.0), (0, 0, -0.625)])
def test_rounded_positions_and_a_tilted_gantry_are_even(tmp_path, step):
    folder = write_tall_series(tmp_path / "series")
    for number in range(6):
        edit(folder / f"s{number}.dcm", ImagePositionPatient=[round(number * value, 1) for value in step])
    assert load(folder).shape == (2, 3, 6)


def test_slices_of_another_pixel_spacing_are_named(tmp_path):
    folder = write_tall_series(tmp_path / "series")
    edit(folder / "s2.dcm", PixelSpacing=[0.5, 0.7])
    with pytest.raises(ValueError, match=r"must have the same PixelSpacing, which s2\.dcm differ from\.$"):
        load(folder)


def test_a_series_needs_no_instance_numbers(tmp_path):
    folder = write_tall_series(tmp_path / "series")
    edit(folder / "s0.dcm", InstanceNumber=None)
    for number in range(1, 6):
        dataset = pydicom.dcmread(folder / f"s{number}.dcm")
        del dataset.InstanceNumber
        dataset.save_as(folder / f"s{number}.dcm")
    np.testing.assert_array_equal(load(folder), TALL)


def test_padding_of_a_series_is_as_dark_as_its_darkest_pixel(tmp_path):
    folder = write_tall_series(tmp_path / "series", RescaleSlope=1, RescaleIntercept=0)
    for number in range(6):
        pixels = pydicom.dcmread(folder / f"s{number}.dcm").pixel_array.copy()
        pixels[0] = -2000
        if number == 2:
            pixels[:] = -2000
        edit(folder / f"s{number}.dcm", PixelData=pixels.tobytes())
        dataset = pydicom.dcmread(folder / f"s{number}.dcm")
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.save_as(folder / f"s{number}.dcm")
    volume = load(folder)
    expected = TALL.astype(float)
    expected[:, -1], expected[:, :, 2] = np.nan, np.nan
    np.testing.assert_array_equal(volume, np.nan_to_num(expected, nan=np.nanmin(expected)))


def write_float_slices(folder, volume, photometric, padding=None):
    """A series of float pixels; the first slice has a range of its own."""
    write_series(folder, volume.astype(np.int32), PhotometricInterpretation=photometric, Modality="MR")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.FloatPixelData = dataset.pixel_array.astype(np.float32).tobytes()
        if padding is not None:
            dataset.FloatPixelPaddingValue = padding
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, keyword)
        dataset.save_as(file)
    return folder


def test_float_slices_are_inverted_within_one_range(tmp_path):
    plain = load(write_float_slices(tmp_path / "plain", TALL, "MONOCHROME2"))
    np.testing.assert_array_equal(plain, TALL)
    inverted = load(write_float_slices(tmp_path / "inverted", TALL, "MONOCHROME1"))
    np.testing.assert_array_equal(inverted, TALL.min() + TALL.max() - TALL)


def test_padding_is_no_end_of_the_range_that_is_inverted(tmp_path):
    padded = TALL.astype(np.int32)
    padded[0, 0] = -(2**30)
    inverted = load(write_float_slices(tmp_path / "a", padded, "MONOCHROME1", padding=-(2.0**30)))
    values = padded[padded > -(2**30)]
    expected = np.where(padded < 0, values.min(), values.min() + values.max() - padded)
    np.testing.assert_array_equal(inverted, expected)


def test_slices_of_other_slopes_are_inverted_within_one_range(tmp_path):
    folder = write_tall_series(tmp_path / "a", PhotometricInterpretation="MONOCHROME1", Modality="PT", BitsStored=12)
    before = load(folder)
    for number in range(6):
        pixels = pydicom.dcmread(folder / f"s{number}.dcm").pixel_array
        slope = 0.5 if number == 2 else 1
        edit(
            folder / f"s{number}.dcm",
            PixelData=(pixels * int(1 / slope)).tobytes(),
            RescaleSlope=slope,
            RescaleIntercept=0,
            PixelRepresentation=0,
        )
    np.testing.assert_array_equal(load(folder), before.max() + TALL.min() - TALL + 4095 - before.max() - TALL.min())


def test_slices_of_both_polarities_are_refused(tmp_path):
    folder = write_tall_series(tmp_path / "a", Modality="MR")
    edit(folder / "s2.dcm", PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ValueError, match=r"must be all MONOCHROME1 or all MONOCHROME2, which s2\.dcm differ from\.$"):
        load(folder)


# Pixels that are not square


def stripes(path, **tags):
    """A picture of 40 x 20 pixels, each twice as high as wide: 80 x 20 in space."""
    pixels = np.zeros((40, 20), dtype=np.uint8)
    pixels[10:20, 5:10] = 200
    return write_dicom(path, pixels, **tags)


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [0.4, 0.2]},
        {"ImagerPixelSpacing": [0.4, 0.2]},
        {"NominalScannedPixelSpacing": [2, 1]},
        {"PixelAspectRatio": [2, 1]},
        {"PixelSpacing": [0, 0.2], "PixelAspectRatio": [2, 1]},  # a damaged one says nothing
    ],
)
def test_pixels_that_are_not_square_keep_their_proportions(tmp_path, tags):
    prepared = image_preprocessing(80)({"image": stripes(tmp_path / "a.dcm", **tags)})["image"][0]
    assert type(prepared) is torch.Tensor
    assert prepared.shape == (80, 80)
    expected = torch.zeros(80, 80)  # 20 columns in the middle of 80
    expected[20:40, 35:40] = 1
    assert (prepared - expected).abs().max() <= 0.5
    assert ((prepared > 0.5) == (expected > 0.5)).float().mean() > 0.99


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PixelSpacing": [0.2, 0.2]},
        {"PixelSpacing": [0.2, 0.201]},
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": None},
    ],
)
def test_square_pixels_stay_as_they_are(tmp_path, tags):
    prepared = image_preprocessing(40)({"image": stripes(tmp_path / "a.dcm", **tags)})["image"][0]
    expected = torch.zeros(40, 40)
    expected[10:20, 15:20] = 1
    torch.testing.assert_close(prepared, expected)


def test_the_stored_grid_is_read_and_the_pixel_size_kept(tmp_path):
    path = stripes(tmp_path / "a.dcm", PixelSpacing=[0.4, 0.2])
    assert load(path).shape == (40, 20)
    kept = LoadStudyImage(keep_meta=True)(path)
    assert kept.shape == (1, 40, 20)
    assert kept.pixdim[:2].tolist() == [0.4, 0.2]


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_one_slice_of_nifti_keeps_its_proportions(tmp_path, flat):
    voxels = np.ones([1 if axis == flat else 20 for axis in range(3)], dtype=np.int16)
    sizes = np.delete([1.0, 2.0, 4.0], flat)
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 4.0, 1.0])), path)
    kept = LoadStudyImage(keep_meta=True)(path)
    assert kept.pixdim[:2].tolist() == sizes[::-1].tolist()


# Frames


def test_frames_are_rescaled_inverted_and_padded(tmp_path):
    path = write_frames(tmp_path / "a.dcm", TALL.astype(np.uint16), [0, 1, 2, 3, 4, 5])
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PixelValueTransformationSequence
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -5
    dataset.save_as(path)
    np.testing.assert_array_equal(load(path), TALL * 2 - 5)
    dataset.BitsStored, dataset.HighBit, dataset.PhotometricInterpretation = 12, 11, "MONOCHROME1"
    dataset.save_as(path)
    np.testing.assert_array_equal(load(path), 4095 * 2 - 5 - TALL * 2)
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.save_as(path)
    np.testing.assert_array_equal(load(path), np.maximum(TALL, 10) * 2 - 5)


@pytest.mark.parametrize("place", ["shared", "frame"])
@pytest.mark.parametrize("window", [True, False])
def test_functional_groups_of_one_frame_are_used(tmp_path, place, window):
    path = write_dicom(tmp_path / "a.dcm", PICTURE.astype(np.uint16) * 10, NumberOfFrames=1, RescaleSlope=7)
    dataset = pydicom.dcmread(path)
    values = group(
        PixelValueTransformationSequence=[group(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")],
        FrameVOILUTSequence=[group(WindowCenter=0, WindowWidth=401)],
    )
    dataset.SharedFunctionalGroupsSequence = [values if place == "shared" else group()]
    dataset.PerFrameFunctionalGroupsSequence = [values if place == "frame" else group()]
    dataset.save_as(path)
    expected = PICTURE * 20.0 - 1000
    if window:
        low, high = -1000, 65535 * 2 - 1000
        expected = np.clip((expected + 0.5 + 200) / 400, 0, 1) * (high - low) + low
    np.testing.assert_allclose(load(path, window=window), expected, rtol=1e-6, atol=0.01)


@pytest.mark.parametrize("pixels", [PICTURE, PICTURE.astype(np.uint16), RGB])
@pytest.mark.parametrize("number", [None, 1, 2])
def test_more_frames_than_their_number_are_refused(tmp_path, pixels, number):
    path = write_dicom(tmp_path / "a.dcm", pixels, "RGB" if pixels is RGB else "MONOCHROME2", NumberOfFrames=number)
    edit(path, PixelData=pixels.tobytes() * 3)
    with pytest.raises(
        ValueError, match=f"its NumberOfFrames is {number or 1}, but it holds the pixels of 3 frames|two|several frames"
    ):
        load(path)


def test_more_compressed_frames_than_their_number_are_refused(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    fragments = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = pydicom.encaps.encapsulate(fragments * 3)
    dataset.save_as(tmp_path / "a.dcm")
    with (
        pytest.warns(UserWarning, match="frame"),
        pytest.raises(ValueError, match=r"it must hold 1 frames as its NumberOfFrames says, got 3\.$"),
    ):
        load(tmp_path / "a.dcm")


# Tables, windows and bits as files have them


def look_up_table(entries, first, bits, data, vr="OW"):
    table = pydicom.Dataset()
    table.LUTDescriptor = [entries, first, bits]
    table.add_new("LUTData", vr, data)
    return table


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_of_every_width(tmp_path, keyword):
    stored = np.array([[0, 100, 300], [999, 1000, 4095]], np.uint16)
    ramp = np.arange(1000) // 4  # 8 bits an entry, more than 256 entries
    words = ramp.astype("<u2").tobytes()
    cases = [
        (look_up_table(1000, 0, 8, words), ramp[np.clip(stored, 0, 999)]),
        (look_up_table(1000, 0, 8, ramp.tolist(), "US"), ramp[np.clip(stored, 0, 999)]),
        (look_up_table(1000, 0, 8, ramp.astype(np.uint8).tobytes()), ramp[np.clip(stored, 0, 999)]),
        (look_up_table(1000, 200, 8, words), ramp[np.clip(stored.astype(int) - 200, 0, 999)]),
        (look_up_table(256, 0, 12, (np.arange(256) * 16).astype("<u2").tobytes()), np.clip(stored, 0, 255) * 16),
        (look_up_table(0, 0, 16, np.arange(65536).astype("<u2").tobytes()), stored),
        (look_up_table(4, 0, 16, [5, 6, 7, 8], "US"), np.clip(stored, 0, 3) + 5),
        (look_up_table(1000, 0, 10, (ramp * 4).astype("<u2").tobytes()), ramp[np.clip(stored, 0, 999)] * 4),
    ]
    for number, (table, expected) in enumerate(cases):
        path = write_dicom(tmp_path / f"{number}.dcm", stored, BitsStored=12, **{keyword: [table]})
        np.testing.assert_array_equal(load(path), expected, err_msg=str(number))
    short = write_dicom(tmp_path / "short.dcm", stored, **{keyword: [look_up_table(99, 0, 16, words[:20])]})
    with pytest.raises(ValueError, match=r"its lookup table must have 99 entries, got 10\.$"):
        load(short)


def test_a_table_of_rescaled_values_may_begin_below_zero(tmp_path):
    stored = np.array([[0, 500, 1000]], np.uint16)
    table = look_up_table(1001, 65536 - 1000, 16, np.arange(1001).astype("<u2").tobytes())
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=[table])
    np.testing.assert_array_equal(load(path), stored)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("darkest", [0, -1])
def test_where_a_table_begins_does_not_depend_on_the_pixels(tmp_path, keyword, darkest):
    stored = np.array([[darkest, 10, 50, 100]], np.int16)
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [201, 65536 - 100, 16])  # the first value is -100
    table.add_new("LUTData", "US", list(range(201)))
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, **{keyword: [table]})
    np.testing.assert_array_equal(load(path), stored + 100)
    unsigned = write_dicom(tmp_path / "b.dcm", stored.clip(0).astype(np.uint16), **{keyword: [table]})
    np.testing.assert_array_equal(load(unsigned), stored * 0)  # it begins at 65436
    if keyword == "VOILUTSequence":  # of values that may be negative, though these are not
        tags = {"RescaleSlope": 1, "RescaleIntercept": -20, keyword: [table]}
        rescaled = write_dicom(tmp_path / "c.dcm", stored.astype(np.uint16) + 20, BitsStored=12, **tags)
        np.testing.assert_array_equal(load(rescaled), stored + 100)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("RescaleType", ["HU", "HU"]),
        ("RescaleSlope", [1, 2]),
        ("Modality", ["CT", "MR"]),
        ("Rows", [3, 3]),
        ("BitsAllocated", [8, 16]),
        ("NumberOfFrames", [1, 1]),
        ("SamplesPerPixel", [1, 3]),
        ("PixelPaddingValue", [0, 1]),
    ],
)
def test_several_values_where_there_is_one_are_named(tmp_path, keyword, values):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", PICTURE, RescaleSlope=1, RescaleIntercept=0))
    vr = "US" if keyword == "PixelPaddingValue" else pydicom.datadict.dictionary_VR(keyword)
    dataset.add_new(keyword, vr, values)
    dataset.save_as(tmp_path / "a.dcm")
    message = rf"its {keyword} must be one value, got {values[0]}\S*, {values[1]}[.0]*"
    with pytest.raises(ValueError, match=rf"a\.dcm cannot be read as DICOM: {message}\.$"):
        load(tmp_path / "a.dcm")
    folder = write_series(tmp_path / "b", VOLUME)
    path = sorted(folder.iterdir())[1]
    dataset = pydicom.dcmread(path)
    dataset.add_new(keyword, vr, values)
    dataset.save_as(path)
    with pytest.raises(ValueError, match=rf"every slice must be readable, unlike {path.name} \({message}\)\.$"):
        load(folder)


def test_the_first_function_belongs_to_the_first_window(tmp_path):
    stored = PICTURE.astype(np.uint16) * 8
    window = {"BitsStored": 12, "WindowCenter": [1000, 500], "WindowWidth": [600, 100]}
    several = write_dicom(tmp_path / "a.dcm", stored, VOILUTFunction=["SIGMOID", "LINEAR"], **window)
    one = write_dicom(tmp_path / "b.dcm", stored, VOILUTFunction="SIGMOID", **window)
    np.testing.assert_array_equal(load(several), load(one))


def test_empty_pixel_data_are_named(tmp_path):
    folder = write_series(tmp_path / "a", VOLUME)
    path = sorted(folder.iterdir())[1]
    dataset = pydicom.dcmread(path)
    dataset.PixelData = b""
    dataset.save_as(path)
    with pytest.raises(ValueError, match=rf"unlike {path.name} \(its PixelData is empty\)\.$"):
        load(folder)
    with pytest.raises(ValueError, match=r"cannot be read as DICOM: its PixelData is empty\.$"):
        load(path)


@pytest.mark.parametrize(
    ("tags", "like"),
    [
        ({"RescaleSlope": None, "RescaleIntercept": None}, {}),
        ({"RescaleSlope": None, "RescaleIntercept": -50}, {"RescaleSlope": 1, "RescaleIntercept": -50}),
        ({"RescaleSlope": 3, "RescaleIntercept": None}, {"RescaleSlope": 3, "RescaleIntercept": 0}),
        ({"RescaleSlope": 3}, {"RescaleSlope": 3, "RescaleIntercept": 0}),
        ({"WindowCenter": 1000, "WindowWidth": 0}, {}),
        ({"WindowCenter": 1000, "WindowWidth": -5}, {}),
        ({"WindowCenter": 1000, "WindowWidth": 0.5}, {}),
        ({"WindowCenter": 1000}, {}),
        ({"WindowWidth": 600, "WindowCenter": None}, {}),
        ({"WindowCenter": [5, 1000], "WindowWidth": [0, 600]}, {"WindowCenter": 1000, "WindowWidth": 600}),
        ({"WindowCenter": [1000, 5], "WindowWidth": 600}, {"WindowCenter": 1000, "WindowWidth": 600}),
        (
            {"WindowCenter": 1000, "WindowWidth": 600, "VOILUTFunction": None},
            {"WindowCenter": 1000, "WindowWidth": 600, "VOILUTFunction": "LINEAR"},
        ),
        (
            {"WindowCenter": 1000, "WindowWidth": 600, "VOILUTSequence": []},
            {"WindowCenter": 1000, "WindowWidth": 600},
        ),
        (
            {"WindowCenter": 1000, "WindowWidth": 600, "VOILUTSequence": [group(LUTExplanation="none")]},
            {"WindowCenter": 1000, "WindowWidth": 600},
        ),
        ({"ModalityLUTSequence": []}, {}),
        ({"PixelPaddingValue": None}, {}),
        ({"NumberOfFrames": None}, {}),
    ],
)
def test_empty_attributes_are_as_absent_ones(tmp_path, tags, like):
    stored = PICTURE.astype(np.uint16) * 8 + 500
    expected = load(write_dicom(tmp_path / "like.dcm", stored, BitsStored=12, **like))
    np.testing.assert_array_equal(load(write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, **tags)), expected)
    assert expected.std() > 0


def test_a_slope_of_zero_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"its RescaleSlope must not be 0\.$"):
        load(write_dicom(tmp_path / "a.dcm", PICTURE, RescaleSlope=0, RescaleIntercept=1))
    empty = write_dicom(tmp_path / "b.dcm", PICTURE * 0, RescaleSlope=0, RescaleIntercept=1)  # an empty slice of a PET
    np.testing.assert_array_equal(load(empty), PICTURE * 0 + 1)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (12, 14), (10, 12), (12, 11), (16, 15)])
def test_the_high_bit_says_where_pixels_lie(tmp_path, signed, bits, high):
    values = PICTURE.astype(np.int16) - (100 if signed else 0)
    shift = high + 1 - bits
    words = (values.astype(np.int32) & (2**bits - 1)) << shift
    if high < 15:
        words |= 1 << (high + 1)  # an overlay above
    if shift:
        words |= 1  # and one below
    stored = words.astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=bits, PixelRepresentation=int(signed), HighBit=high)
    np.testing.assert_array_equal(load(path), values)
    with pytest.raises(
        ValueError, match=r"its HighBit must be at least BitsStored - 1 and below BitsAllocated, got 3\.$"
    ):
        load(write_dicom(tmp_path / "b.dcm", stored, BitsStored=12, HighBit=3))


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_the_high_bits_of_a_compressed_file_is_removed(tmp_path, signed):
    dataset = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    pixels = (dataset.pixel_array & 0xFFF).astype(np.int16)
    overlaid = pixels | np.int16(1 << 13)
    dataset.PixelRepresentation = int(signed)
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.compress(pydicom.uid.RLELossless, overlaid.astype(np.int16 if signed else np.uint16))
    dataset.BitsStored, dataset.HighBit = 13, 12
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(load(tmp_path / "a.dcm", window=False), pixels)


def test_an_overlay_in_the_high_bits_of_a_jpeg_2000_is_removed(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    pixels = (dataset.pixel_array & 0xFFF).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(pixels | np.uint16(1 << 13)).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    dataset.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
    dataset.save_as(tmp_path / "a.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(load(tmp_path / "a.dcm", window=False), pixels)
        dataset.HighBit = 15
        dataset.save_as(tmp_path / "b.dcm")
        with pytest.raises(ValueError, match=r"HighBit must be BitsStored - 1 in a file compressed as JPEG 2000"):
            load(tmp_path / "b.dcm")


# Hounsfield units

BODY = np.array([[[-1000, -1000, -800], [-100, 0, 40]], [[60, 300, 500], [-1000, 900, -500]]], np.int16)
GRAY = torch.from_numpy((BODY[None] + 1000.0) / 2000).float().clamp(0, 1)


def scaled(path, **options):
    image = LoadStudyImage(keep_meta=True)(path)
    return RadiographIntensity(**options)(image).as_tensor()


@pytest.mark.parametrize("outside", [None, -1024, -2000, -2048, -3024, -8192, -32768, 3000])
@pytest.mark.parametrize("kind", ["nifti", "series", "frames"])
def test_the_gray_of_ct_does_not_depend_on_what_lies_outside_the_scan_circle(tmp_path, outside, kind):
    body, gray = BODY.copy(), GRAY.clone()
    if outside is not None:
        body[0, 0, :2] = outside
        gray[0, 0, 0, :2] = float(outside > 0)
    if kind == "nifti":
        path = tmp_path / "a.nii.gz"
        nibabel.Nifti1Image(body, np.eye(4)).to_filename(path)
    elif kind == "series":
        path = write_series(tmp_path / "a", body, Modality="CT", RescaleSlope=1, RescaleIntercept=0)
    else:
        path = write_frames(tmp_path / "a.dcm", body, [0, 1, 2])
        edit(path, Modality="CT")
        dataset = pydicom.dcmread(path)
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.PixelValueTransformationSequence = [group(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")]
        dataset.save_as(path)
    torch.testing.assert_close(scaled(path), gray)


@pytest.mark.parametrize(
    ("tags", "hounsfield"),
    [
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0}, True),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}, True),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": None}, True),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, False),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "Z_EFF"}, False),
        ({"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0}, False),
        ({"Modality": "PT", "RescaleSlope": 1, "RescaleIntercept": 0}, False),
    ],
)
@pytest.mark.parametrize("body", [BODY, np.clip(BODY, -90, 90)])
def test_the_header_says_what_hounsfield_units_are(tmp_path, tags, hounsfield, body):
    path = write_series(tmp_path / "a", body, **tags)
    by_range = (torch.from_numpy(body[None].astype(np.float32)) + 1000) / 2000
    by_percentiles = scaled(path, hu_range=None)
    torch.testing.assert_close(scaled(path), by_range if hounsfield else by_percentiles)
    assert (by_range - by_percentiles).abs().max() > 0.01


def test_hounsfield_units_are_never_inverted(tmp_path):
    path = write_series(
        tmp_path / "a", BODY, Modality="CT", RescaleSlope=1, RescaleIntercept=0, PhotometricInterpretation="MONOCHROME1"
    )
    torch.testing.assert_close(scaled(path), GRAY)


def test_volumes_of_other_units_are_scaled_by_percentiles():
    for values in (np.abs(BODY), BODY + 1024, BODY / 300, BODY[:, :, 1:] / 4):
        volume = torch.as_tensor(values, dtype=torch.float32)[None]
        torch.testing.assert_close(RadiographIntensity()(volume), RadiographIntensity(hu_range=None)(volume))
    radiograph = torch.from_numpy(BODY[0].astype(np.float32))[None]
    torch.testing.assert_close(RadiographIntensity()(radiograph), RadiographIntensity(hu_range=None)(radiograph))


def test_the_range_is_a_choice():
    volume = torch.from_numpy(BODY.astype(np.float32))[None]
    lung = RadiographIntensity(hu_range=(-1350, 150))(volume)
    torch.testing.assert_close(lung, ((volume + 1350) / 1500).clamp(0, 1))
    chain = image_preprocessing(3, spatial_dims=3, hu_range=[-160, 240])
    body = np.full((1, 3, 3, 3), -1000)
    body[0, 1, 1, 1] = 40
    assert chain({"image": body})["image"][0, 1, 1].tolist() == [0, 0.5, 0]
    for wrong in [(1, 1), (5, -5), (0, np.inf), (1,), (1, 2, 3)]:
        with pytest.raises(ValueError, match=r"^hu_range must be two numbers in ascending order, or None, got "):
            RadiographIntensity(hu_range=wrong)


@pytest.mark.parametrize("unit", ["HU", "US", None])
def test_a_tensor_may_state_its_unit(unit):
    values = torch.from_numpy(np.clip(BODY, -90, 90).astype(np.float32))[None]
    volume = MetaTensor(values, affine=torch.eye(4), meta={"rescale_type": unit} if unit else {})
    image = RadiographIntensity()(LoadStudyImage(keep_meta=True)(volume))
    expected = (values + 1000) / 2000 if unit == "HU" else RadiographIntensity(hu_range=None)(values)
    torch.testing.assert_close(image.as_tensor(), expected)


@pytest.mark.parametrize("tags", [{"Modality": "CT"}, {"Modality": None}, {"Modality": None, "RescaleSlope": 1}])
def test_the_values_say_so_where_the_header_is_silent(tmp_path, tags):
    torch.testing.assert_close(scaled(write_series(tmp_path / "a", BODY, **tags)), GRAY)
    positive = write_series(tmp_path / "b", np.abs(BODY), **tags)
    torch.testing.assert_close(scaled(positive), scaled(positive, hu_range=None))


@pytest.mark.parametrize(
    "keyword", ["SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "PixelRepresentation"]
)
def test_what_pixels_need_is_named(tmp_path, keyword):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", PICTURE))
    delattr(dataset, keyword)
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(ValueError, match=rf"a\.dcm cannot be read as DICOM: it lacks {keyword}\.$"):
        load(tmp_path / "a.dcm")


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_text_for_a_number_is_named(tmp_path, keyword):
    numbers = {"RescaleSlope": 2, "RescaleIntercept": 0, "WindowCenter": 40, "WindowWidth": 80}
    path = Path(write_dicom(tmp_path / "a.dcm", PICTURE, **{**numbers, keyword: "-9.25"}))
    path.write_bytes(path.read_bytes().replace(b"-9.25", b"abcde"))
    with pytest.raises(
        ValueError, match=rf"cannot be read as DICOM: its {keyword} must hold numbers, got other text\.$"
    ):
        load(path)


@pytest.mark.parametrize(
    ("keyword", "count"), [("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2)]
)
def test_the_place_of_a_slice_is_finite_numbers(tmp_path, keyword, count):
    folder = write_series(tmp_path / "a", VOLUME)
    path = sorted(folder.iterdir())[2]
    dataset = pydicom.dcmread(path)
    setattr(dataset, keyword, [1.0] * (count + 1))
    dataset.save_as(path)
    with pytest.raises(ValueError, match=rf"unlike {path.name} \(its {keyword} must be {count} finite numbers, got \["):
        load(folder)
    # A single image has no place, so that it does not matter.
    assert load(path).shape == (1, *dataset.pixel_array.shape)[1:]


def test_a_long_reason_ends_at_a_word(tmp_path):
    folder = write_series(tmp_path / "a", VOLUME)
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"unlike {path.name} \(The number of bytes .* \.\.\.\)\.$"):
        load(folder)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_increases_with_rescaled_values_whatever_their_slope(tmp_path, function, photometric):
    stored = PICTURE.astype(np.uint16) * 8 + 100
    window = {"WindowCenter": 3000.5, "WindowWidth": 2001, "VOILUTFunction": function, "BitsStored": 12}
    falling = write_dicom(tmp_path / "a.dcm", stored, photometric, RescaleSlope=-1, RescaleIntercept=4095, **window)
    rising = write_dicom(tmp_path / "b.dcm", 4095 - stored, photometric, RescaleSlope=1, RescaleIntercept=0, **window)
    np.testing.assert_allclose(load(falling), load(rising), atol=1e-2)


def edit_slice(folder, number, edit):
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        if dataset.InstanceNumber == number:
            edit(dataset)
            dataset.save_as(path)
            return path.name


def without_rescale(dataset):
    del dataset.RescaleSlope, dataset.RescaleIntercept


def in_color(dataset):
    pixels = np.repeat(dataset.pixel_array[..., None], 3, axis=-1)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = pixels.tobytes()


@pytest.mark.parametrize(
    ("edit", "tags", "message"),
    [
        (without_rescale, {"RescaleSlope": 1, "RescaleIntercept": -1024}, "all have a rescale slope and intercept"),
        (without_rescale, {"RescaleSlope": 2, "RescaleIntercept": 0}, "all have a rescale slope and intercept"),
        (
            lambda dataset: setattr(dataset, "RescaleType", "OD"),
            {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
            "have the same RescaleType",
        ),
        (in_color, {}, "be all gray or all in color"),
    ],
)
def test_a_slice_of_other_units_is_named(tmp_path, edit, tags, message):
    kind = np.uint8 if edit is in_color else np.int16
    folder = write_series(tmp_path / "series", VOLUME.astype(kind), Modality="CT", **tags)
    name = edit_slice(folder, 3, edit)
    with pytest.raises(ValueError, match=rf"its slices must {message}.*, which {re.escape(name)} differ from\.$"):
        load(folder)


def test_a_frame_of_other_units_is_named(tmp_path):
    path = write_frames(tmp_path / "a.dcm", VOLUME, [0, 1, 2, 3])
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"its frames must all have a rescale .*, which frame 2 differ from\.$"):
        load(path)


def test_slopes_may_differ_and_a_slope_of_one_may_be_left_out(tmp_path):
    folder = write_series(tmp_path / "pet", VOLUME, RescaleSlope=1, RescaleIntercept=0, Modality="PT")
    for number in (1, 2, 3, 4):
        edit_slice(folder, number, lambda dataset: setattr(dataset, "RescaleSlope", int(dataset.InstanceNumber)))
    np.testing.assert_array_equal(load(folder), VOLUME * np.array([1, 2, 3, 4]))
    folder = write_series(tmp_path / "ct", VOLUME, RescaleSlope=1, RescaleIntercept=0, Modality="CT")
    edit_slice(folder, 2, without_rescale)
    image = LoadStudyImage(keep_meta=True)(folder)
    np.testing.assert_array_equal(image[0].numpy(), VOLUME)
    assert image.meta["rescale_type"] == "HU"


def test_a_number_of_frames_is_not_believed(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PICTURE)
    edit(path, NumberOfFrames=2_000_000)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"frames|bytes of pixel data"):
        load(path)
    assert time.process_time() - start < 10
