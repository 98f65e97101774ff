"""The hash of what a training sees covers the content of every image file."""

from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from medvl.data import fingerprint as fingerprint_module
from medvl.data.fingerprint import BLOCK_BYTES, studies_fingerprint

FULL, SAMPLED = 2**30, 0


def fingerprint(path, limit=FULL):
    return studies_fingerprint((), [{"study_id": "a", "image": str(path)}], limit)


def change(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("limit", [FULL, SAMPLED])
@pytest.mark.parametrize("size", [10, 8 * BLOCK_BYTES, 10**6])
def test_a_changed_byte_of_the_same_size_is_seen(tmp_path, size, limit):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(size))
    before = fingerprint(path, limit)
    assert fingerprint(path, limit) == before
    everywhere = limit == FULL or size <= 8 * BLOCK_BYTES
    for position in (0, size - 1, *([size // 3] if everywhere else [(size - BLOCK_BYTES) * 3 // 7 + 5])):
        change(path, position)
        assert fingerprint(path, limit) != before, position
        change(path, position)
    assert fingerprint(path, limit) == before
    path.write_bytes(bytes(size + 1))
    assert fingerprint(path, limit) != before


def test_folders_and_several_views(tmp_path):
    for name in ("series/1.dcm", "series/2.dcm", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"pixels" + name.encode())
    studies = [{"study_id": "a", "image": [str(tmp_path / "series"), str(tmp_path / "b.png")]}]
    before = studies_fingerprint((), studies)
    for name in ("series/2.dcm", "b.png"):
        change(tmp_path / name, 2)
        assert studies_fingerprint((), studies) != before
        change(tmp_path / name, 2)
    assert studies_fingerprint((), studies) == before


@pytest.mark.parametrize("limit", [FULL, SAMPLED])
@pytest.mark.parametrize(("name", "header", "data"), [
    ("a.hdr", b"header", "a.img"),
    ("a.mhd", b"DimSize = 4 4 2\nElementDataFile = a.raw\n", "a.raw"),
    ("a.nhdr", b"NRRD0004\ndata file: a.raw\n", "a.raw"),
])  # fmt: skip
def test_voxels_beside_their_header(tmp_path, name, header, data, limit):
    (tmp_path / name).write_bytes(header)
    missing = fingerprint(tmp_path / name, limit)
    (tmp_path / data).write_bytes(b"voxels")
    before = fingerprint(tmp_path / name, limit)
    assert before != missing
    for file in (name, data):
        change(tmp_path / file, -1)
        assert fingerprint(tmp_path / name, limit) != before, file
        change(tmp_path / file, -1)
    assert fingerprint(tmp_path / name, limit) == before


def test_pipes_and_missing_files_are_left_to_the_loading(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert fingerprint(tmp_path / "pipe") != fingerprint(tmp_path / "none")


def test_no_object_is_held_for_each_file(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint_module, "BLOCK_PATHS", 500)
    one_thread = nullcontext(SimpleNamespace(map=map))  # what several hold at once depends on their turns
    monkeypatch.setattr(fingerprint_module, "ThreadPoolExecutor", lambda _: one_thread)
    studies = []
    for number in range(5000):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
        studies.append({"study_id": str(number), "image": str(tmp_path / str(number))})

    def peak(number):
        tracemalloc.start()
        try:
            studies_fingerprint((), studies[:number])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported then
    assert peak(5000) - peak(1000) < 300 * 4000  # bytes, 80 measured; with a path and a text for each file 1,300


def test_a_study_is_known_by_the_order_of_its_id_and_not_by_the_id():
    def of(*ids):
        return studies_fingerprint((), [{"study_id": name} for name in ids])

    assert of("a", "b", "a") == of("z", "y", "z") != of("a", "b", "b")


def test_a_small_file_is_read_with_a_small_buffer(tmp_path):
    (tmp_path / "image").write_bytes(b"x" * 1000)
    study = {"study_id": "a", "image": str(tmp_path / "image")}
    studies_fingerprint((), [study])  # what is imported then
    tracemalloc.start()
    try:
        studies_fingerprint((), [study])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000  # eight threads with buffers of a mebibyte each held up to 8 MB


@pytest.mark.parametrize("stated", [0, 10, 2**20])
def test_a_file_that_is_longer_than_stated_is_read_in_few_steps(tmp_path, monkeypatch, stated):
    """As one of a file system that states no sizes, or one that grows."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(3 * 2**20))
    reads = []

    class Counted(io.FileIO):
        def read(self, number):
            reads.append(number)
            return super().read(number)

    monkeypatch.setattr(fingerprint_module, "_size", lambda _: stated)
    monkeypatch.setattr(fingerprint_module, "open", lambda file, _: Counted(file), raising=False)
    expected = hashlib.sha256(str(stated).encode() + path.read_bytes()).hexdigest()
    assert fingerprint_module._digest(str(path), whole=True) == expected
    assert len(reads) < 60
