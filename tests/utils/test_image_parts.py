"""The files of an image are those that its reader reads."""

from __future__ import annotations

import gzip
import os

import nibabel
import numpy as np
import pytest

from medvl.transforms import LoadStudyImage
from medvl.utils.image_parts import HEADER_BYTES, files_of_image, header_and_data

VOLUME = np.arange(1, 25, dtype=np.int16).reshape(2, 3, 4)
VOXELS = VOLUME.tobytes("F")
SLICES = [VOLUME[..., place].tobytes("F") for place in range(4)]

META_IMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
DimSize = 2 3 4
ElementType = MET_SHORT
ElementDataFile = """
NRRD = """NRRD0004
type: short
dimension: 3
sizes: 2 3 4
endian: little
encoding: raw
space: left-posterior-superior
space directions: (1,0,0) (0,1,0) (0,0,1)
note:=data file: no.raw
"""


def slices(pattern, numbers):
    return {pattern % number: content for number, content in zip(numbers, SLICES, strict=True)}


CASES = {
    "one file": ("a.mhd", META_IMAGE + "a.raw\n", {"a.raw": VOXELS}),
    "in a folder": ("a.mhd", META_IMAGE + "data/a b.raw\r\n", {"data/a b.raw": VOXELS}),
    "an absolute path": ("a.mhd", META_IMAGE + "FOLDER/a.raw\n", {"a.raw": VOXELS}),
    "without a line's end": ("a.mhd", META_IMAGE + "a.raw", {"a.raw": VOXELS}),
    "of the other suffix": ("a.mha", META_IMAGE + "a.raw\n", {"a.raw": VOXELS}),
    "behind the header": ("a.mha", META_IMAGE + "LOCAL\n", {}),
    "a list": ("a.mhd", META_IMAGE + "LIST\n4.raw\n1.raw\n2.raw\n3.raw\n\n", slices("%d.raw", (4, 1, 2, 3))),
    "a list of slices of a volume with a time": (
        "a.mhd", META_IMAGE.replace("2 3 4", "2 3 4 1").replace("= 3", "= 4") + "LIST 2\n3.raw\n1.raw\n2.raw\n4.raw\n",
        slices("%d.raw", (3, 1, 2, 4)),
    ),
    "numbers": ("a.mhd", META_IMAGE + "s%03d.raw\n", slices("s%03d.raw", range(1, 5))),
    "numbers from": ("a.mhd", META_IMAGE + "s%03d.raw 7\n", slices("s%03d.raw", range(7, 11))),
    "numbers from, to and by": ("a.mhd", META_IMAGE + "s%d.raw 7 13 2\n", slices("s%d.raw", range(7, 14, 2))),
    "numbers in a name with a space": ("a.mhd", META_IMAGE + "s %d.raw 1 9 1\n", slices("s %d.raw", range(1, 5))),
    "an NRRD file": ("a.nhdr", NRRD + "data file: a.raw\n", {"a.raw": VOXELS}),
    "another spelling": ("a.nrrd", NRRD + "DataFile: ./data/a b.raw\n", {"data/a b.raw": VOXELS}),
    "behind an NRRD header": ("a.nrrd", NRRD + "\n", {}),
    "a list in NRRD": ("a.nhdr", NRRD + "data file: LIST\n4.raw\n1.raw\n2.raw\n3.raw\n", slices("%d.raw", (4, 1, 2, 3))),
    "a list of volumes in NRRD": (
        "a.nhdr", NRRD + "data file: LIST 3\nb.raw\na.raw\n", {"b.raw": VOXELS[:24], "a.raw": VOXELS[24:]}
    ),
    "numbers in NRRD": ("a.nhdr", NRRD + "data file: s%03d.raw 1 4 1\n", slices("s%03d.raw", range(1, 5))),
    "falling numbers in NRRD": ("a.nhdr", NRRD + "data file: s%d.raw 9 3 -2 2\n", slices("s%d.raw", range(9, 2, -2))),
}  # fmt: skip
"""Name and content of a header, and the files with the voxels."""


@pytest.mark.parametrize("case", CASES)
def test_text_headers(tmp_path, case):
    pytest.importorskip("itk")
    name, header, data = CASES[case]
    path = tmp_path / name
    path.write_bytes(header.replace("FOLDER", str(tmp_path)).encode() + (b"" if data else VOXELS))
    for file, content in data.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    files = files_of_image(str(path))
    assert [os.path.normpath(file) for file in files] == [str(path), *(str(tmp_path / file) for file in data)]
    read = LoadStudyImage()(path)
    assert sorted(read.flatten().tolist()) == list(range(1, 25))
    for file in files[1:]:
        os.rename(file, tmp_path / "away")
        with pytest.raises(ValueError, match=f"{name} cannot be read as "):
            LoadStudyImage()(path)
        assert len(header_and_data(str(path))) == len(files), "a missing file is still one of the image"
        os.rename(tmp_path / "away", file)


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "A.HDR", "A.IMG", "a.hdr.gz", "a.img.gz"])
def test_nifti_pairs(tmp_path, name):
    path = tmp_path / name
    nibabel.Nifti1Pair(VOLUME, np.eye(4)).to_filename(path)
    files = sorted(tmp_path.iterdir())
    assert files_of_image(str(path)) == [str(file) for file in files]
    for file in files:
        content = file.read_bytes()
        file.unlink()
        with pytest.raises((ValueError, OSError)):
            LoadStudyImage()(path)
        file.write_bytes(content)
    assert LoadStudyImage()(path).shape == (1, 2, 3, 4)


def test_single_files_and_folders(tmp_path):
    for name in ("series/2.dcm", "series/1.dcm", "series/sub/3.dcm", "a.img", "a.nii", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"content")
    assert files_of_image(str(tmp_path / "series")) == [str(tmp_path / "series" / name) for name in ("1.dcm", "2.dcm")]
    for name in ("a.img", "a.nii", "a.png", "none.mhd", "none.hdr", "a\0.mhd", "a\0.hdr", ".img"):
        assert files_of_image(str(tmp_path / name)) == [str(tmp_path / name)]
    packed = f"/x.tar::0+9-{'0' * 16}::7:"
    for name in ("a.mhd", "a.hdr", "a.nrrd"):
        assert files_of_image(packed + name) == [packed + name]


@pytest.mark.parametrize("text", [
    "", "a.raw\n", "LISTS", "ElementDataFile =\n", "DimSize = 2 x\nElementDataFile = a.raw\n", "ElementDataFile = a%d.raw\n",
    "DimSize = 1\nElementDataFile = %9999999999d\n", "DimSize = 1\nElementDataFile = a%d%d 1 2 1\n",
    "DimSize = 1\nElementDataFile = a%q 1 2 1\n", "DimSize = 1\nElementDataFile = a%d 1 2 0\n", "data file:\n",
    "data file: a%d.raw\n", "data file: a%d.raw 1 2 0\n", "data file: a%d.raw 1 x 1\n",
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_damaged_headers_are_left_to_the_loading(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert header_and_data(str(tmp_path / name)) == [str(tmp_path / name)]


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.mhd")
    assert header_and_data(str(tmp_path / "a.mhd")) == [str(tmp_path / "a.mhd")]


def test_a_header_stands_for_a_bounded_number_of_files(tmp_path):
    path = tmp_path / "a.nhdr"
    path.write_text("data file: %d.raw 1 999999999 1\n")
    assert len(header_and_data(str(path))) < 10**5
    path.write_text("data file: LIST\n" + "a.raw\n" * HEADER_BYTES)
    assert len(header_and_data(str(path))) < HEADER_BYTES


def test_voxels_that_are_compressed_beside_a_header(tmp_path):
    pytest.importorskip("itk")
    (tmp_path / "a.mhd").write_text(META_IMAGE + "a.raw\n")
    (tmp_path / "a.raw.gz").write_bytes(gzip.compress(VOXELS))
    assert header_and_data(str(tmp_path / "a.mhd"))[1:] == [str(tmp_path / "a.raw.gz")]
    np.testing.assert_array_equal(LoadStudyImage()(tmp_path / "a.mhd").flip(1, 2)[0], VOLUME)
