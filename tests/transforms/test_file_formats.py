"""What a file is decides how it is read; what MONAI has read is oriented as its file would be."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import zlib

import nibabel
import numpy as np
import pytest
import torch
from image_files import PICTURE, VOLUME, load, write_dicom, write_series
from monai.data import MetaTensor, PydicomReader
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import Image
from pydicom.data import get_testdata_file

from medvl.transforms import LoadStudyImage, image_preprocessing
from medvl.transforms.file_format import READ_FORMATS

AFFINE = np.array([[0, -0.5, 0, 7], [0, 0, 2.0, -3], [0.7, 0, 0, 1], [0, 0, 0, 1]])


def write_nifti(path, kind=nibabel.Nifti1Image, affine=AFFINE, voxels=VOLUME):
    kind(voxels, affine).to_filename(path)
    return path


@pytest.fixture
def expected(tmp_path):
    return load(write_nifti(tmp_path / "expected.nii"))


# NIfTI


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "name", ["scan", "scan.dat", "scan.nii", "scan.nii.gz", "scan.gz", "scan.dcm", "scan.png", "s.NII"]
)
def test_nifti_under_any_name(tmp_path, expected, kind, suffix, name):
    source = write_nifti(tmp_path / f"source{suffix}", kind)
    target = tmp_path / "sub" / name
    target.parent.mkdir()
    shutil.copy(source, target)
    np.testing.assert_array_equal(load(target), expected)


def write_sform(path, axes):
    """A file whose sform has these axes; its pixdim is 1 and its qform, which is not valid, the identity."""
    write_nifti(path, affine=np.eye(4))
    content = bytearray(path.read_bytes())
    content[252:256] = struct.pack("<hh", 0, 1)
    content[280:328] = np.hstack([axes, np.zeros((3, 1))]).astype("<f4").tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a"])
def test_an_sform_is_used_whatever_pixdim_says(tmp_path, name):
    source = write_sform(tmp_path / "source.nii", np.diag([-2, -2, 2]))
    content = source.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name != "a.nii" else content)
    np.testing.assert_array_equal(load(tmp_path / name), VOLUME[::-1, ::-1])
    assert LoadStudyImage(keep_meta=True)(tmp_path / name).pixdim.tolist() == [2, 2, 2]


def test_an_sform_without_numbers_is_refused(tmp_path):
    path = write_sform(tmp_path / "a.nii", np.diag([np.nan, 1, 1]))
    with pytest.raises(
        ValueError, match=r"a\.nii cannot be read as NIfTI: the affine matrix must map the axes to three "
    ):
        load(path)


@pytest.mark.parametrize("suffix", ["hdr", "img", "hdr.gz", "img.gz"])
def test_nifti_pairs(tmp_path, expected, suffix):
    write_nifti(tmp_path / ("a.img.gz" if suffix.endswith("gz") else "a.img"), nibabel.Nifti1Pair)
    np.testing.assert_array_equal(load(tmp_path / f"a.{suffix}"), expected)


def test_a_pair_without_its_half_is_refused(tmp_path):
    write_nifti(tmp_path / "a.img", nibabel.Nifti1Pair)
    (tmp_path / "b.img").write_bytes((tmp_path / "a.img").read_bytes())
    with pytest.raises(ValueError, match=r"b\.img cannot be read as an image; the formats that are read are PNG, "):
        load(tmp_path / "b.img")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match=r"a\.hdr cannot be read as NIfTI: "):
        load(tmp_path / "a.hdr")


def test_analyze_states_no_orientation(tmp_path):
    nibabel.AnalyzeImage(VOLUME, np.eye(4)).to_filename(tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        with pytest.raises(
            ValueError, match=r" Analyze 7\.5, which states no orientation; the formats that are read are "
        ):
            load(tmp_path / name)


# NumPy, and others


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a", "a.png", "a.dcm"])
@pytest.mark.parametrize("array", [PICTURE, PICTURE[None], VOLUME[None], PICTURE.astype(">f8"), PICTURE > 90])
def test_numpy_files_are_read_as_their_arrays(tmp_path, name, array):
    with open(tmp_path / name, "wb") as file:
        (np.savez if name.endswith("z") else np.save)(file, array)
    np.testing.assert_array_equal(load(tmp_path / name), array.squeeze())


def test_numpy_files_that_are_no_image(tmp_path):
    np.savez(tmp_path / "two.npz", a=PICTURE, b=PICTURE)
    with pytest.raises(ValueError, match=r"NumPy: the file must hold one array, got \['a', 'b'\]\.$"):
        load(tmp_path / "two.npz")
    np.save(tmp_path / "c.npy", PICTURE.astype(complex))
    with pytest.raises(ValueError, match=r"the pixels must be real numbers, got type complex128\.$"):
        load(tmp_path / "c.npy")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy cannot be read as NumPy: Object arrays cannot be loaded"):
        load(tmp_path / "o.npy")
    np.save(tmp_path / "v.npy", VOLUME)
    with pytest.raises(ValueError, match=r"image must have shape \(H, W\), .* got \(2, 3, 4\)\.$"):
        load(tmp_path / "v.npy")


@pytest.mark.parametrize("name", ["a.dcm.gz", "a.gz", "a", "a.dcm"])
def test_compressed_dicom(tmp_path, name):
    path = write_dicom(tmp_path / "source.dcm", PICTURE)
    with open(path, "rb") as file:
        (tmp_path / name).write_bytes(gzip.compress(file.read(), mtime=0))
    np.testing.assert_array_equal(load(tmp_path / name), PICTURE)


@pytest.mark.parametrize("name", ["a.nii", "a.dcm", "a.nii.gz", "a", "a.npy", "a.img", "a.nrrd"])
def test_a_picture_under_any_name(tmp_path, name):
    Image.fromarray(PICTURE).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(load(tmp_path / name), PICTURE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.dcm", b"no DICOM"),
        ("a.nii", b"no NIfTI"),
        ("a.nii.gz", gzip.compress(b"no NIfTI", mtime=0)),
        ("a.png.gz", gzip.compress(b"\x89PNG\r\n\x1a\n", mtime=0)),
        ("a", b"text"),
        ("a.zip", b"PK\x03\x04" + b"\0" * 40),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 40),
        ("a.pdf", b"%PDF-1.7"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0"),
        ("a.mgz", gzip.compress(b"\0\0\0\1" * 100, mtime=0)),
    ],
)
def test_every_refusal_lists_the_formats(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as") as raised:
        load(tmp_path / name)
    assert str(raised.value).startswith(f"the file {tmp_path / name} cannot be read as ")
    assert str(raised.value).endswith(f"the formats that are read are {READ_FORMATS}.")


def test_a_cut_gzip_file_is_damaged(tmp_path):
    data = write_nifti(tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(data[:40])
    with pytest.raises(ValueError, match=r"b\.nii\.gz is compressed by gzip and damaged: "):
        load(tmp_path / "b.nii.gz")
    (tmp_path / "c").write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"c (is compressed by gzip and damaged|cannot be read as NIfTI): "):
        load(tmp_path / "c")


NRRD = """NRRD0004
type: short
dimension: 3
space: {space}
sizes: 2 3 4
space directions: {directions}
kinds: domain domain domain
endian: little
encoding: raw
space origin: (7,-3,1)

"""
META_IMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 0.5 0.5 2
DimSize = 2 3 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""


def itk_files(folder):
    voxels = np.asfortranarray(VOLUME).tobytes("F")
    files = {}
    for space, signs in {"left-posterior-superior": (-1, -1), "RAS": (1, 1), "left-anterior-superior": (-1, 1)}.items():
        directions = f"({0.5 * signs[0]},0,0) (0,{0.5 * signs[1]},0) (0,0,2)"
        files[f"{space}.nrrd"] = NRRD.format(space=space, directions=directions).encode() + voxels
    flipped = np.asfortranarray(VOLUME[::-1, ::-1]).tobytes("F")  # its axes grow to the left and back
    files["a.mha"] = META_IMAGE.encode() + flipped
    files["a.mhd"] = META_IMAGE.replace("LOCAL", "a.raw").encode()
    for name, content in {**files, "a.raw": flipped}.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_nrrd_and_meta_image(tmp_path):
    pytest.importorskip("itk")
    for path in itk_files(tmp_path):
        np.testing.assert_array_equal(load(path), VOLUME, err_msg=path.name)
        kept = LoadStudyImage(keep_meta=True)(path)
        np.testing.assert_allclose(np.diag(kept.affine)[:3], [0.5, 0.5, 2.0], err_msg=path.name)


META_TYPES = {
    "i1": "CHAR",
    "u1": "UCHAR",
    "i2": "SHORT",
    "u2": "USHORT",
    "i4": "INT",
    "u4": "UINT",
    "i8": "LONG_LONG",
    "u8": "ULONG_LONG",
    "f4": "FLOAT",
    "f8": "DOUBLE",
}


@pytest.mark.parametrize("kind", META_TYPES)
def test_every_type_of_number_of_nrrd_and_meta_image(tmp_path, kind):
    pytest.importorskip("itk")
    values = (VOLUME - (0 if kind[0] == "u" else 12)).astype(kind)
    values[0, 0, :2] = (np.iinfo(kind).min, np.iinfo(kind).max) if kind[0] != "f" else (-1e30, 1e30)
    name = {"f4": "float", "f8": "double"}.get(kind, values.dtype.name)
    header = NRRD.format(space="RAS", directions="(1,0,0) (0,1,0) (0,0,1)").replace("short", name)
    (tmp_path / "a.nrrd").write_bytes(header.encode() + values.tobytes("F"))
    header = META_IMAGE.replace("MET_SHORT", f"MET_{META_TYPES[kind]}")
    (tmp_path / "a.mha").write_bytes(header.encode() + values[::-1, ::-1].tobytes("F"))
    (tmp_path / "a.img").write_bytes((tmp_path / "a.mha").read_bytes())  # what it is decides, not its name
    for name in ("a.nrrd", "a.mha", "a.img"):
        np.testing.assert_array_equal(load(tmp_path / name), values.astype(np.float32), err_msg=name)


@pytest.mark.parametrize("kinds", ["RGB-color domain domain", "domain domain 3-color", "vector domain domain"])
def test_nrrd_of_several_components_is_no_volume(tmp_path, kinds):
    pytest.importorskip("itk")
    header = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 3 4 3\nkinds: {kinds}\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(36))
    with pytest.raises(ValueError, match=r"a\.nrrd cannot be read as NRRD: a voxel must have one component, got 3 \("):
        load(tmp_path / "a.nrrd")


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("size", ["4 3", "2 3 4"])
def test_meta_image_of_several_components_is_no_volume(tmp_path, channels, size):
    pytest.importorskip("itk")
    dims = len(size.split())
    header = f"NDims = {dims}\nElementNumberOfChannels = {channels}\nDimSize = {size}\nElementType = MET_UCHAR\n"
    (tmp_path / "a.mha").write_bytes(f"ObjectType = Image\n{header}ElementDataFile = LOCAL\n".encode() + bytes(96))
    with pytest.raises(ValueError, match=rf"MetaImage: a voxel must have one component, got {channels} \("):
        load(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("a.mhd", "LOCAL", "none.raw", "its data file none.raw does not exist"),
        ("a.mhd", "LOCAL", "short.raw", "its data are cut off, or not as its header says"),
        ("a.mha", "2 3 4", "2 3 5", "its data are cut off, or not as its header says"),
        ("a.mha", "0.5 0.5 2", "0.5 0 2", "Zero-valued spacing is not supported and may result in undefined behavior"),
        ("a.mha", "MET_SHORT", "MET_SHIRT", "the type of its voxels must be one of numbers, got another"),
        ("a.mha", "2 3 4", "24", "the volume must have 3 dimensions, got 1"),
        ("a.nrrd", "2 3 4", "2 3 5", "fread got only 24 2-sized things, not 30 (80% of expected)"),
        ("a.nrrd", "type: short", "type: shirt", 'couldn\'t parse type "shirt"'),
        ("a.nrrd", "(0,1,0)", "(0,0,0)", "Zero-valued spacing is not supported and may result in undefined behavior"),
        ("a.nhdr", "encoding", "data file: none.raw\nencoding", "couldn't open "),
    ],
)
def test_what_is_wrong_with_nrrd_and_meta_image_is_said(tmp_path, name, old, new, reason):
    pytest.importorskip("itk")
    header = META_IMAGE if ".mh" in name else NRRD.format(space="RAS", directions="(1,0,0) (0,1,0) (0,0,1)")
    if new == "24":
        header = header.replace("NDims = 3", "NDims = 1").replace("0.5 0.5 2", "1").replace("0 0 0\n", "0\n")
        header = header.replace("1 0 0 0 1 0 0 0 1", "1")
    (tmp_path / "short.raw").write_bytes(bytes(9))
    (tmp_path / name).write_bytes(header.replace(old, new).encode() + VOLUME.tobytes())
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as raised:
        load(tmp_path / name)
    start = f"the file {tmp_path / name} cannot be read as {'MetaImage' if '.mh' in name else 'NRRD'}: {reason}"
    assert str(raised.value).startswith(start)
    assert "ITK" not in str(raised.value)


@pytest.mark.parametrize("wbits", [15, 31])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("stated", [True, False])
def test_compressed_meta_images_are_read_or_refused(tmp_path, wbits, local, stated):
    pytest.importorskip("itk")
    compressor = zlib.compressobj(wbits=wbits)
    data = compressor.compress(VOLUME[::-1, ::-1].tobytes("F")) + compressor.flush()
    size = f"CompressedDataSize = {len(data)}\n" if stated else ""
    header = META_IMAGE.replace("BinaryData =", f"CompressedData = True\n{size}BinaryData =")
    path = tmp_path / "a.mha"

    def write(content):
        (tmp_path / "a.zraw").write_bytes(content)
        path.write_bytes(header.encode() + content if local else header.replace("LOCAL", "a.zraw").encode())

    write(data)
    if local and not stated:
        with pytest.raises(ValueError, match=r"a\.mha cannot be read as MetaImage: it lacks CompressedDataSize\.$"):
            load(path)
        return
    np.testing.assert_array_equal(load(path), VOLUME)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 255
    short = zlib.compress(VOLUME.tobytes()[:-2])
    for content in (data[: len(data) // 2], damaged, short, b"not compressed"):
        write(bytes(content))
        with pytest.raises(
            ValueError, match=r"a\.mha cannot be read as MetaImage: its compressed data are damaged or cut off\.$"
        ):
            load(path)


def test_nrrd_and_meta_image_name_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("medvl.transforms.load_image.optional_import", lambda *_, **__: (None, False))
    for path in itk_files(tmp_path):
        with pytest.raises(
            ValueError, match=r'cannot be read as (NRRD|MetaImage): .*needs itk: pip install "medvl\[itk\]"\.$'
        ):
            load(path)


# MetaTensor


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channel", [False, True])
def test_a_meta_tensor_is_oriented_as_its_file(tmp_path, order, flip, channel):
    affine = np.eye(4)
    affine[:3, :3] = (np.diag([0.5, 0.5, 2]) * (-1 if flip else 1))[:, order]
    path = write_nifti(tmp_path / "a.nii", affine=affine, voxels=VOLUME.transpose(order))
    image = LoadImage(image_only=True, ensure_channel_first=channel)(path)
    transform = LoadStudyImage(keep_meta=True)
    torch.testing.assert_close(transform(image).as_tensor(), transform(path).as_tensor())
    torch.testing.assert_close(transform(image).affine, transform(path).affine)
    chain = image_preprocessing(8, spatial_dims=3)
    torch.testing.assert_close(chain({"image": image})["image"], chain({"image": path})["image"])
    assert load(image).shape == VOLUME.shape  # without keep_meta a plain tensor


@pytest.mark.parametrize("ras", [True, False])
def test_a_meta_tensor_of_a_dicom_series_is_oriented_as_its_folder(tmp_path, ras):
    folder = write_series(tmp_path / "a", VOLUME)
    image = EnsureChannelFirst(channel_dim="no_channel")(
        LoadImage(reader=PydicomReader(affine_lps_to_ras=ras), image_only=True)(folder)
    )
    transform = LoadStudyImage(keep_meta=True)
    np.testing.assert_array_equal(transform(image).as_tensor()[0], VOLUME)
    torch.testing.assert_close(transform(image).affine, transform(folder).affine)


def test_a_meta_tensor_of_one_slice_is_shown_as_its_file(tmp_path):
    path = write_nifti(tmp_path / "a.nii", affine=np.diag([2, 2, 5, 1]), voxels=VOLUME[:, :, :1])
    image = LoadImage(image_only=True, ensure_channel_first=True)(path)
    np.testing.assert_array_equal(load(image), load(path))


@pytest.mark.parametrize("options", [{}, {"ensure_channel_first": True}, {"reverse_indexing": False}])
def test_a_picture_that_monai_has_read_is_refused(tmp_path, options):
    Image.fromarray(PICTURE.astype(np.uint8)).save(tmp_path / "a.png")
    image = LoadImage(image_only=True, **options)(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"^image must be a path, or a tensor .* got a MetaTensor of a file, whose columns "
    ):
        LoadStudyImage()(image)
    if not options:
        np.testing.assert_array_equal(LoadStudyImage()(image.as_tensor().mT), LoadStudyImage()(tmp_path / "a.png"))


def test_a_meta_tensor_in_color_keeps_its_affine():
    affine = torch.diag(torch.tensor([-2.0, 1, 1, 1]))
    colors = torch.from_numpy(np.stack([VOLUME, VOLUME * 2, VOLUME * 3])).float()
    gray = LoadStudyImage(keep_meta=True)(MetaTensor(colors, affine=affine))
    np.testing.assert_allclose(gray[0], VOLUME[::-1] * (0.299 + 2 * 0.587 + 3 * 0.114), rtol=1e-5)
    assert gray.affine[0, 0] == 2


def test_the_file_that_pydicom_has_in_gzip():
    path = get_testdata_file("zipMR.gz")
    assert load(path).shape == (64, 64)


@pytest.mark.parametrize("value", [0.0, math.nan, 1.0])
def test_a_place_in_space_without_three_directions_is_refused(tmp_path, value):
    affine = torch.full((4, 4), value, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^the affine matrix must map the axes to three directions, got \[\["):
        LoadStudyImage()(MetaTensor(torch.rand(1, 4, 5, 6), affine=affine))


@pytest.mark.parametrize("image", [np.ones((4, 5), np.complex64), torch.ones(1, 4, 5, 6, dtype=torch.complex64)])
def test_complex_numbers_are_refused(image):
    with pytest.raises(ValueError, match=r"^image must hold real numbers, got type (torch\.)?complex64\.$"):
        LoadStudyImage()(image)


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.npy"])
def test_damage_that_the_format_can_tell_is_not_read(tmp_path, name):
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10), dtype=np.uint8)
    if name == "a.png":
        Image.fromarray(pixels).save(path)
        data = bytearray(path.read_bytes())
        data[data.index(b"IDAT") + 60] ^= 16
    elif name == "a.npy":
        np.save(path, pixels)
        data = path.read_bytes() + b"x"
    else:
        nibabel.save(nibabel.Nifti1Image(np.ones((5, 6, 7), np.float32), np.eye(4)), path)
        data = bytearray(path.read_bytes())
        data[-6] ^= 1  # of the checksum
    LoadStudyImage()(path)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^the file {path} cannot be read as "):
        LoadStudyImage()(path)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 0, 4), (1, 4, 4, 0)])
def test_an_array_without_a_pixel_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(
        ValueError, match=r"a\.npy cannot be read as NumPy: image must hold at least one pixel, got shape "
    ):
        load(tmp_path / "a.npy")
