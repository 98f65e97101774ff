"""Checksums of a saved folder, as ``sha256sum`` has them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from medvl.utils.checksums import (
    read_checksums,
    read_sealed,
    verify_checksums,
    verify_file,
    write_checksums,
    write_listed,
    write_sealed,
)


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


def test_a_listed_file_is_noticed_at_every_flipped_byte(tmp_path):
    path = tmp_path / "a.json"
    write_listed(path, '{"patient_id": 1}')
    write_listed(tmp_path / "b.txt", b"\xff\x00")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 32]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"a\.json is damaged: its content is not what was saved\."):
            verify_file(path)
    verify_file(tmp_path / "b.txt")


def test_an_edited_file_is_accepted_once_its_line_is_deleted(tmp_path):
    write_listed(tmp_path / "a.json", "1")
    write_listed(tmp_path / "b.json", "2")
    (tmp_path / "a.json").write_text("3")
    with pytest.raises(ValueError, match=rf"delete its line in {tmp_path}/SHA256SUMS\.$"):
        verify_file(tmp_path / "a.json")
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.open() if "a.json" not in line))
    verify_file(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("3")
    with pytest.raises(ValueError, match=r"b\.json is damaged"):  # the other file is still examined
        verify_file(tmp_path / "b.json")
    write_listed(tmp_path / "b.json", "4")
    assert "a.json" not in sums.read_text()
    verify_file(tmp_path / "b.json")


@pytest.mark.parametrize("operation", range(3))
def test_a_kill_at_any_operation_leaves_a_list_that_holds(tmp_path, monkeypatch, operation):
    write_listed(tmp_path / "a.json", "old")
    renamed = []

    def rename_until(old, new):
        renamed.append(new)
        if len(renamed) > operation:
            raise KeyboardInterrupt
        os.rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", rename_until)
        with pytest.raises(KeyboardInterrupt):
            write_listed(tmp_path / "a.json", "new")
    verify_file(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == ("new" if operation == 2 else "old")
    write_listed(tmp_path / "a.json", "newer")
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 1


def test_a_list_of_the_user_keeps_its_lines(tmp_path):
    (tmp_path / "image.png").write_bytes(b"pixels")
    digest = hashlib.sha256(b"pixels").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest} *image.png\n")
    write_listed(tmp_path / "a.json", "1")
    verify_file(tmp_path / "image.png")
    assert f"{digest}  image.png" in (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text("notes\n")
    with pytest.raises(ValueError, match=r"SHA256SUMS is damaged: line 1 is not a hash and the name of a file\.$"):
        write_listed(tmp_path / "a.json", "2")
    assert (tmp_path / "a.json").read_text() == "1"


def test_processes_that_write_at_the_same_time_lose_no_line(tmp_path):
    script = (
        "import sys; from medvl.utils.checksums import write_listed\n"
        "for i in range(30): write_listed(sys.argv[1] + '/same', f'{sys.argv[2]}{i}'); "
        "write_listed(sys.argv[1] + '/' + sys.argv[2], str(i))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(read_checksums(tmp_path)) == ["a", "b", "c", "same"]
    verify_checksums(tmp_path)


@pytest.mark.parametrize("name", ["a.json", "SHA256SUMS"])
def test_pipes_in_place_of_files_are_not_waited_on(tmp_path, name):
    write_listed(tmp_path / "a.json", "1")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    for use in (lambda: verify_file(tmp_path / "a.json"), lambda: write_listed(tmp_path / "a.json", "2")):
        with pytest.raises(ValueError, match=rf"{name} must be a regular file, got a named pipe\.$"):
            use()


def test_a_sealed_file_is_noticed_at_every_flipped_byte(tmp_path):
    path = tmp_path / "state"
    write_sealed(path, {"rows": [1, "é"]})
    assert read_sealed(path) == {"rows": [1, "é"]}
    whole = path.read_bytes()
    for damaged in [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))] + [b"", whole[:-1]]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state is damaged: its content is not what was saved\.$"):
            read_sealed(path)
