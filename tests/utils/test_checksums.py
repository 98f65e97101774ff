"""Checksums of a saved folder, as ``sha256sum`` has them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from medvl.utils.checksums import verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("weights", "inner/prompts", "README.md"):
        (tmp_path / name).write_bytes(b"content of " + name.encode())
    write_checksums(tmp_path)
    return tmp_path


def test_every_flipped_byte_is_noticed(folder):
    verify_checksums(folder)
    for name in ("weights", "inner/prompts", "SHA256SUMS"):
        whole = (folder / name).read_bytes()
        for position in range(len(whole)):
            (folder / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(ValueError, match=r"is damaged|is missing"):
                verify_checksums(folder)
        (folder / name).write_bytes(whole)
    (folder / "README.md").write_text("edited")
    verify_checksums(folder)
    (folder / "weights").unlink()
    with pytest.raises(ValueError, match=r"weights is missing, which SHA256SUMS lists\.$"):
        verify_checksums(folder)


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\x0b", b"\n\n", b"\x0c\n", b"\xe2\x80\xa8"])
def test_only_whole_lines_are_read(folder, end):
    sums = folder / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().removesuffix(b"\n") + end)
    with pytest.raises(ValueError, match=r"SHA256SUMS is damaged|is missing"):
        verify_checksums(folder)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_reads_it(folder):
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
