"""Pipes, devices and files that unpack to far more than they are: refused in a sentence, before memory is taken."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import nibabel
import numpy as np
import openpyxl
import pyarrow.parquet
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medvl.data import OpenIReports, read_manifest
from medvl.data.tables import read_table
from medvl.networks import ImageEncoder, load_tokenizer
from medvl.text import load_vocabulary
from medvl.text.phrase_notation import expand_phrase
from medvl.transforms import LoadStudyImage
from medvl.utils.errors import StudyError
from medvl.utils.limits import DEFAULTS, bounded_file, check_regular_file, limit, read_bounded, read_small_text
from medvl.workflows.layers import config_files
from medvl.workflows.run_records import read_record

UNPACKED = r"must have at most \d+ bytes unpacked \(MEDVL_MAX_UNPACKED_BYTES\), got"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setenv("MEDVL_MAX_UNPACKED_BYTES", "1000000")
    monkeypatch.setenv("MEDVL_MAX_TEXT_BYTES", "100000")


READERS = {
    "image.png": LoadStudyImage(),
    "volume.nii.gz": LoadStudyImage(),
    "words.yaml": load_vocabulary,
    "recipe.yaml": config_files,
    "reports.tgz": OpenIReports,
    "environment.json": read_record,
    "small.txt": read_small_text,
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_devices_sockets_and_folders_are_not_waited_on(tmp_path, name, monkeypatch):
    read = READERS[name]
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / name
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"{name} must be a regular file, got a named pipe\.$"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"{name} must be a regular file, got a device\.$"):
        read(path)
    path.unlink()
    monkeypatch.chdir(tmp_path / "a")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        with pytest.raises(ValueError, match=rf"{name} must be a regular file, got a socket\.$"):
            read(path)


def test_a_pipe_in_a_table_is_an_error_of_its_row(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "cases.csv").write_text("image,report\na.png,Edema.\n/dev/zero,Edema.\n")
    manifest = read_manifest(tmp_path / "cases.csv", on_error="skip")
    assert [error.reason.split("got ")[1] for error in manifest.skipped] == ["a named pipe", "a device"]


def test_a_pipe_in_a_model_folder_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    os.mkfifo(tmp_path / "model.safetensors")
    for read in (load_tokenizer, lambda folder: ImageEncoder(str(folder))):
        with pytest.raises(ValueError, match=r"model\.safetensors must be a regular file, got a named pipe\.$"):
            read(tmp_path)


def nifti(path, shape, compressed=False, zeros=0):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    data = header.binaryblock + bytes(4) + bytes(zeros)
    path.write_bytes(gzip.compress(data) if compressed else data)


def npy(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def png(width, height):
    chunk = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", chunk), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def dicom(path, rows=4, columns=4, frames=1, deflated=0, **tags):
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else pydicom.uid.JPEGLSLossless
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, frames
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if deflated:
        dataset.PixelData = bytes(16)
        dataset.ImageComments = "x" * 10
        dataset.add_new(0x00091010, "OB", bytes(deflated))
    else:
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8"] * frames)
        dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


IMAGES = {
    "a.nii": lambda path: nifti(path, (1000, 1000, 1)),
    "a.nii.gz": lambda path: nifti(path, (30000, 30000, 10), compressed=True),
    "plain": lambda path: nifti(path, (2000, 2000, 100)),
    "packed": lambda path: nifti(path, (2, 2, 2), compressed=True, zeros=3_000_000),
    "a.npy": lambda path: path.write_bytes(npy((10**6, 10**6))),
    "b.npy": lambda path: path.write_bytes(npy((1000, 1000))),
    "a.png": lambda path: path.write_bytes(png(1000, 1000)),
    "a.dcm": lambda path: dicom(path, 60000, 60000),
    "b.dcm": lambda path: dicom(path, 100, 100, frames=5000),
    "deflated.dcm": lambda path: dicom(path, deflated=3_000_000),
    "gz.dcm": lambda path: path.write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(3_000_000))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_unpack_to_too_much_are_refused(tmp_path, small, name):
    path = tmp_path / name
    IMAGES[name](path)
    with pytest.raises(ValueError, match=rf"^the file {path} cannot be read as .*{UNPACKED} (more|\d+)\.$"):
        LoadStudyImage()(path)


def test_arrays_in_an_archive_are_refused_before_they_are_unpacked(tmp_path, small):
    for number, content in enumerate((npy((10**6, 10**6)), npy((1000,)) + bytes(3_000_000))):
        path = tmp_path / f"{number}.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("image.npy", content)
        with pytest.raises(ValueError, match=UNPACKED):
            LoadStudyImage()(path)


ROWS = [{"image": "a.png", "report": "Edema. " + " " * 3_000_000}, {"image": "b.png", "report": "No edema."}]


def table(path, rows):
    """Write a table that is compressed to a few kilobytes, by its suffix."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path.with_suffix(".parquet"), compression="gzip")
        return
    if kind == "xlsx":
        workbook = openpyxl.Workbook()
        for cells in [list(rows[0]), *(list(row.values()) for row in rows)]:
            workbook.active.append([cell[:32_000] for cell in cells])
        for _ in range(len(rows[0]["report"]) // 32_000):
            workbook.active.append(["a.png", "Edema." + " " * 32_000])
        content = io.BytesIO()
        workbook.save(content)
        data = content.getvalue()
    elif kind == "json":
        data = json.dumps(rows).encode()
    elif kind == "jsonl":
        data = "\n".join(map(json.dumps, rows)).encode()
    else:
        comma = {"csv": ",", "tsv": "\t"}[kind]
        data = "\n".join(comma.join(cells) for cells in [rows[0], *(row.values() for row in rows)]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


TABLES = ("a.csv.gz", "a.tsv.gz", "a.json.gz", "a.jsonl.gz", "a.parquet", "a.xlsx", "a.xlsx.gz")


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_unpack_to_too_much_are_refused(tmp_path, small, name):
    path = tmp_path / name
    table(path, ROWS)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=rf"^path: {name} {UNPACKED} (more|\d+)\.$"):
        list(read_table(path))
    small_rows = [{**ROWS[0], "report": "Edema."}, ROWS[1]]
    table(path, small_rows)
    assert [row.cells for row in read_table(path)] == small_rows


def test_cells_of_parquet_that_are_stored_once_are_bounded(tmp_path, small):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"report": ["Edema. " + "x" * 10_000] * 1000}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=rf"^path: a\.parquet {UNPACKED} \d+\.$"):
        list(read_table(path))


def test_a_bounded_file_is_read_and_sought_as_the_file_itself(small):
    content = bytes(range(256)) * 3000
    file = bounded_file(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content))), "it")
    assert file.seek(0, os.SEEK_END) == len(content)
    assert file.seek(-3, os.SEEK_END) == len(content) - 3
    assert file.read() == content[-3:]
    assert file.seek(300) == 300
    assert file.read(10) == content[300:310]
    assert (file.seek(-5, os.SEEK_CUR), file.read(2)) == (305, content[305:307])
    file = bounded_file(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content * 2))), "it")
    with pytest.raises(ValueError, match=rf"^it {UNPACKED} more\.$"):
        file.seek(0, os.SEEK_END)


def test_headers_of_nrrd_and_metaimage_are_read_first(tmp_path, small, monkeypatch):
    monkeypatch.setattr("medvl.transforms.load_image._itk_reader", lambda: pytest.fail("read before the check"))
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4000 4000 4000\nencoding: gzip\n\n")
    (tmp_path / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 4000 4000 4000\nElementDataFile = LOCAL\n"
    )
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(ValueError, match=UNPACKED):
            LoadStudyImage()(tmp_path / name)


def test_what_is_below_the_limit_is_read(tmp_path, small):
    nifti(tmp_path / "a.nii.gz", (20, 20, 20), compressed=True, zeros=16000)
    assert LoadStudyImage()(tmp_path / "a.nii.gz").shape == (1, 20, 20, 20)
    dicom(tmp_path / "a.dcm", deflated=1000)
    assert LoadStudyImage()(tmp_path / "a.dcm").shape == (1, 4, 4)
    np.save(tmp_path / "a.npy", np.ones((10, 10)))
    np.savez_compressed(tmp_path / "a.npz", np.ones((10, 10)))
    assert LoadStudyImage()(tmp_path / "a.npz").equal(LoadStudyImage()(tmp_path / "a.npy"))


ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol" * 100}">' for i in range(9))
BOMBS = {
    "long": b"<eCitation><uId id='CXR1'/>" + b" " * 200_000 + b"</eCitation>",
    "entities": f"<!DOCTYPE x [{ENTITIES}]><eCitation><uId id='&e8;'/></eCitation>".encode(),
    "external": b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><eCitation><uId id='CXR1'/><t>&e;</t></eCitation>",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_xml_is_bounded_and_a_bad_report_is_skipped(tmp_path, small, kind):
    good = b"<eCitation><uId id='CXR2'/><AbstractText Label='FINDINGS'>Edema.</AbstractText></eCitation>"
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "reports.tgz", "w:gz") as archive:
        for name, content in (("1.xml", BOMBS[kind]), ("2.xml", good)):
            (tmp_path / "folder" / name).write_bytes(content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for path in (tmp_path / "reports.tgz", tmp_path / "folder"):
        with pytest.raises(StudyError, match=r"^study '1\.xml', report: not valid XML: "):
            OpenIReports(path)
        reports = OpenIReports(path, on_error="skip")
        assert [study["study_id"] for study in reports] == ["CXR2"]
        assert len(reports.skipped) == 1


@pytest.mark.parametrize("phrase", ["(a|b)" * 20 + " x", "(a)?" * 20 + " x", "(" * 30 + "a" + ")" * 30, "(" * 5000])
def test_the_alternatives_of_a_phrase_are_bounded(phrase, tmp_path):
    with pytest.raises(ValueError, match=r"^a phrase must have at most \d+ "):
        expand_phrase(phrase)
    assert len(expand_phrase("(a|b)(c|d)(e|f)? x")) == 12


def test_texts_are_bounded(tmp_path, small):
    path = tmp_path / "words.yaml"
    path.write_text("a: b\n" * 30_000)
    for read in (load_vocabulary, config_files, read_record):
        with pytest.raises(ValueError, match=r"must have at most 100000 bytes \(MEDVL_MAX_TEXT_BYTES\), got 150000\.$"):
            read(path)


def test_limits_are_set_by_the_environment(monkeypatch):
    assert [limit(name) for name in DEFAULTS] == list(DEFAULTS.values())
    monkeypatch.setenv("MEDVL_MAX_TEXT_BYTES", "10")
    assert limit("MEDVL_MAX_TEXT_BYTES") == 10
    assert read_bounded(io.BytesIO(bytes(10)), "it", "MEDVL_MAX_TEXT_BYTES") == bytes(10)
    with pytest.raises(
        ValueError, match=r"^it must have at most 10 bytes unpacked \(MEDVL_MAX_TEXT_BYTES\), got more\.$"
    ):
        read_bounded(io.BytesIO(bytes(11)), "it", "MEDVL_MAX_TEXT_BYTES")
    for wrong in ("0", "-1", "many", "1e9"):
        monkeypatch.setenv("MEDVL_MAX_TEXT_BYTES", wrong)
        with pytest.raises(
            ValueError, match=r"^the environment variable MEDVL_MAX_TEXT_BYTES must be an integer of at"
        ):
            limit("MEDVL_MAX_TEXT_BYTES")
    check_regular_file("/no/such/file")


def test_a_bomb_takes_no_memory(tmp_path, peak_code):
    path = tmp_path / "packed.dcm"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(bytes(128) + b"DICM")
        for _ in range(150):
            file.write(bytes(2**20))
    code = (
        "import sys\nfrom medvl.transforms import LoadStudyImage\nbefore = peak()\n"
        "try:\n    LoadStudyImage()(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
        "print((peak() - before) // 1024)"
    )
    environment = {**os.environ, "MEDVL_MAX_UNPACKED_BYTES": str(50 * 2**20)}
    done = subprocess.run(
        [sys.executable, "-c", peak_code + code, path], capture_output=True, text=True, check=True, env=environment
    )
    sentence, grown = done.stdout.splitlines()
    assert "must have at most 52428800 bytes unpacked" in sentence
    assert int(grown) < 200
