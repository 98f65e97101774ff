"""An interrupted command notices that an image has changed."""

from __future__ import annotations

import os

import pytest

from medvl.workflows.study_state import work_digest


@pytest.mark.parametrize(("image", "files"), [
    ("a.png", ["a.png"]),
    ("series", ["series/1.dcm", "series/2.dcm"]),
    ("a.hdr", ["a.hdr", "a.img"]),
    ("a.img", ["a.hdr", "a.img"]),
    ("a.mhd", ["a.mhd", "a.raw"]),
    ("a.nhdr", ["a.nhdr", "a.raw"]),
])  # fmt: skip
def test_every_file_of_an_image_counts(tmp_path, image, files):
    content = {"a.mhd": b"ElementDataFile = a.raw\n", "a.nhdr": b"NRRD0004\ndata file: a.raw\n"}
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content.get(name, b"content"))
        os.utime(tmp_path / name, ns=(10**18, 10**18))

    def digest():
        return work_digest("settings", [(0, {"study_id": "a", "image": str(tmp_path / image)})])

    before = digest()
    assert digest() == before
    for name in files:
        os.utime(tmp_path / name, ns=(10**18, 2 * 10**18))
        assert digest() != before, name
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    assert digest() == before
