"""Every image format through one loader: gray, float, the right way up, or an error in one sentence."""

from __future__ import annotations

import pickle
import re
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from image_files import LUMINANCE, PICTURE, RGB, VOLUME, load, write_dicom
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image, TiffImagePlugin

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


def write_tiff(path, pixels, photometric=1, sample_format=1, order="<", bits=None, compression=1):
    """An uncompressed TIFF, which Pillow cannot write in all of these forms."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows, columns = pixels.shape[:2]
    bits = bits or 8 * pixels.dtype.itemsize
    samples = pixels[0, 0].size
    entries = [
        (256, columns),
        (257, rows),
        (258, bits),
        (259, compression),
        (262, photometric),
        (273, 8),
        (277, samples),
    ]
    entries += [(278, rows), (279, len(data)), (339, sample_format)]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        kind = 4 if tag in (273, 279) else 3
        directory += struct.pack(f"{order}HHI", tag, kind, 1)
        directory += struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *((value,) if kind == 4 else (value, 0)))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(head + data + directory + struct.pack(f"{order}I", 0))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        (PICTURE, {}, PICTURE),
        (PICTURE, {"photometric": 0}, 255 - PICTURE),
        (PICTURE.astype(np.int8), {"sample_format": 2}, PICTURE.astype(np.int8)),
        (PICTURE.astype(np.uint16) * 257, {}, PICTURE * 257.0),
        (PICTURE.astype(np.uint16) * 257, {"photometric": 0}, 65535 - PICTURE * 257.0),
        (PICTURE.astype(np.int16) - 100, {"sample_format": 2}, PICTURE - 100.0),
        (PICTURE.astype(np.uint32) * 16_000_000, {}, PICTURE * 16e6),
        (PICTURE.astype(np.int32) * -100_000, {"sample_format": 2}, PICTURE * -1e5),
        (PICTURE.astype(np.float32) / 7, {"sample_format": 3}, PICTURE / np.float32(7)),
        (PICTURE.astype(np.float32), {"sample_format": 3, "photometric": 0}, None),
        (PICTURE.astype(np.uint32), {"photometric": 0}, None),
        (PICTURE.astype(np.float64), {"sample_format": 3}, None),
        (PICTURE.astype(np.uint64), {}, None),
        (PICTURE.astype(np.float16), {"sample_format": 3}, None),
    ],
)
def test_tiff_values_are_right_or_refused(tmp_path, order, pixels, options, expected):
    path, message = write_tiff(tmp_path / "a.tiff", pixels, order=order, **options), ""
    try:
        image = load(path)
    except ValueError as error:
        message = str(error)
    if message:
        assert re.search(
            r"WhiteIsZero has no meaning for 32 bits\.$|a TIFF that Pillow does not read .*; the formats that are read are",
            message,
        )
        assert expected is None or order == ">"  # Pillow reads fewer forms in this order
    else:
        assert expected is not None
        np.testing.assert_allclose(image, expected, rtol=1e-6)


def write_png(path, pixels, color):
    """A PNG of 16 bits, which Pillow cannot write in color or with alpha."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )
    )


def write_jpeg_2000(path, pixels, bits):
    """A JPEG 2000 whose header states this many bits."""
    Image.fromarray(pixels).save(path, "JPEG2000")
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\x4f\xff\x51") + 42
    content[start : start + 9 : 3] = bytes([bits - 1] * 3)
    path.write_bytes(content)


DEEP = np.stack([PICTURE.astype(np.uint16) * 200] * 4, axis=-1)


@pytest.mark.parametrize(
    ("name", "write", "bits"),
    [
        ("rgb.png", lambda path: write_png(path, DEEP[..., :3], 2), 16),
        ("rgba.png", lambda path: write_png(path, DEEP, 6), 16),
        ("la.png", lambda path: write_png(path, DEEP[..., :2], 4), 16),
        ("rgb.tiff", lambda path: write_tiff(path, DEEP[..., :3], photometric=2), 16),
        ("rgb.tif", lambda path: write_tiff(path, DEEP[..., :3], photometric=2, order=">"), 16),
        ("cmyk.tiff", lambda path: write_tiff(path, DEEP, photometric=5), 16),
        ("binary.ppm", lambda path: path.write_bytes(b"P6 # 1 2 3\n4 3 4095\n" + DEEP[..., :3].tobytes()), 12),
        ("text.ppm", lambda path: path.write_text(f"P3\n4 3\n65535\n{' '.join(map(str, DEEP[..., :3].flat))}"), 16),
        ("rgb.jp2", lambda path: write_jpeg_2000(path, RGB, 12), 12),
    ],
)
def test_color_and_alpha_of_more_bits_than_pillow_keeps_are_refused(tmp_path, name, write, bits):
    write(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.mode in ("RGB", "RGBA", "CMYK")  # of 8 bits a channel
    with pytest.raises(
        ValueError, match=rf"{name} cannot be read as an image: an image with color or alpha must .* got {bits}\.$"
    ):
        load(tmp_path / name)


def test_gray_of_16_bits_and_color_of_8_keep_their_values(tmp_path):
    gray = DEEP[..., 0]
    write_png(tmp_path / "l.png", gray, 0)
    (tmp_path / "l.pgm").write_bytes(b"P5 4 3 65535\n" + gray.astype(">u2").tobytes())
    Image.fromarray(gray).save(tmp_path / "l.jp2", irreversible=False)
    write_tiff(tmp_path / "l.tiff", gray)
    for name in ("l.png", "l.pgm", "l.jp2", "l.tiff"):
        np.testing.assert_array_equal(load(tmp_path / name), gray, err_msg=name)
    (tmp_path / "c.ppm").write_bytes(b"P6 4 3 255\n" + RGB.tobytes())
    write_tiff(tmp_path / "c.tiff", RGB, photometric=2)
    write_jpeg_2000(tmp_path / "c.jp2", RGB, 8)
    for name in ("c.ppm", "c.tiff", "c.jp2"):
        np.testing.assert_allclose(load(tmp_path / name), LUMINANCE, atol=1e-3, err_msg=name)


MODE = " (unknown pixel mode, Compression 1, PhotometricInterpretation "


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        (
            "la.tiff",
            lambda path: write_tiff(path, DEEP[..., :2].astype(np.uint8), photometric=0),
            MODE + "0, BitsPerSample 8, SamplesPerPixel 2, SampleFormat 1)",
        ),
        (
            "half.tiff",
            lambda path: write_tiff(path, PICTURE.astype(np.float16), sample_format=3),
            MODE + "1, BitsPerSample 16, SamplesPerPixel 1, SampleFormat 3)",
        ),
        (
            "void.tiff",
            lambda path: write_tiff(path, PICTURE, sample_format=4),
            MODE + "1, BitsPerSample 8, SamplesPerPixel 1, SampleFormat 4)",
        ),
        (
            "cut.tiff",
            lambda path: path.write_bytes(b"II*\0" + b"\xff" * 9),
            " (Missing dimensions); ",
        ),
        (
            "unknown.tiff",
            lambda path: write_tiff(path, PICTURE, compression=50099),
            " (50099, Compression 50099, PhotometricInterpretation 1, BitsPerSample 8, SamplesPerPixel 1, SampleFormat 1)",
        ),
        ("cut.gif", lambda path: path.write_bytes(b"GIF89a"), "; the formats"),
        (
            "cut.png",
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20),
            " (broken PNG file",
        ),
    ],
)
def test_why_a_picture_is_not_read_is_said(tmp_path, name, write, reason):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=r"; the formats that are read are .*\.$") as raised:
        load(tmp_path / name)
    kind = name.rpartition(".")[2].upper()
    expected = f"{name} cannot be read as an image: it is damaged, or a {kind} that Pillow does not read{reason}"
    assert expected in str(raised.value)


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
    nibabel.Nifti1Image(VOLUME[0, 0], np.eye(4)).to_filename(tmp_path / "1.nii")
    with pytest.raises(
        ValueError, match=r"1\.nii cannot be read as NIfTI: the volume must have 3 dimensions, got shape \(4,\)\.$"
    ):
        load(tmp_path / "1.nii")
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
        with pytest.raises(
            ValueError, match=rf"cut.{suffix} cannot be read as an image: .*(truncated|cut off)"
        ) as raised:
            load(tmp_path / f"cut.{suffix}")
        assert isinstance(raised.value.__cause__, OSError | ValueError)
    with pytest.raises(FileNotFoundError, match=r"^the file .*none.png does not exist\.$"):
        load(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"^the file .*empty.png is empty\.$"):
        load(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png cannot be read as an image; the formats that are read are PNG, "):
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


def test_padding_is_centered():
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
    assert any(message.endswith("a.nii must have 2 spatial dimensions (spatial_dims), got 3.") for message in messages)
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


@pytest.mark.parametrize(
    "hu_range", [5, "abc", (1,), (1, 2, 3), ("a", "b"), (1, -1), (0, float("inf")), (float("nan"), 1)]
)
def test_a_range_of_hounsfield_units_is_two_numbers(hu_range):
    with pytest.raises(ValueError, match=r"^hu_range must be two numbers in ascending order, or None, got "):
        image_preprocessing(8, hu_range=hu_range)


@pytest.mark.parametrize("image_size", [0, -1, 2.5, "8", None, True])
def test_the_size_of_the_preprocessing_is_named(image_size):
    with pytest.raises((TypeError, ValueError), match=r"^image_size must be (an integer|at least 1), got "):
        image_preprocessing(image_size)


TURNED = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: np.transpose,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("pixels", [PICTURE, PICTURE.astype(np.uint16) * 9, PICTURE.astype(np.float32), RGB])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_the_orientation_of_a_tiff_is_applied(tmp_path, orientation, pixels, compression):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo=tags, compression=compression)
    gray = LUMINANCE if pixels.ndim == 3 else pixels
    np.testing.assert_allclose(load(path), TURNED[orientation](gray), rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([["1", "2"], ["3", "4"]]), "hold real numbers, got type <U1"),
        (np.array([[1, 2], [3, None]], dtype=object), "hold real numbers, got type object"),
        (np.zeros((4, 4), dtype="datetime64[s]"), r"hold real numbers, got type datetime64\[s\]"),
        (np.zeros((4, 4), dtype=[("a", "i4")]), "hold real numbers, got type"),
        (np.ma.masked_less(PICTURE, 25), "have no masked pixel, which has no value, got 2"),
    ],
)
def test_an_array_of_no_gray_values_is_refused(image, message):
    with pytest.raises(ValueError, match=f"image must {message}"):
        load(image)
