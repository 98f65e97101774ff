"""Files are written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from medvl.utils.checksums import write_listed_lines
from medvl.utils.host import machine_id
from medvl.utils.io import (
    atomic_write,
    file_sha256,
    read_json_lines,
    remove_partial_files,
    write_json,
    write_text,
)


def test_text_is_utf8_and_folders_are_created(tmp_path):
    path = tmp_path / "new" / "folder" / "notes.txt"
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert os.listdir(path.parent) == ["notes.txt"]


def test_an_old_file_is_replaced_only_at_the_end(tmp_path):
    path = tmp_path / "notes.txt"
    write_text(str(path), "old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == ["notes.txt", f"notes.txt.{machine_id()[:8]}-{os.getpid()}.partial"]
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path):
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def fail():
        with atomic_write(path) as file:
            file.write("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match=r"^stop$"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_content_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: events.append("sync") or sync(number))
    monkeypatch.setattr(os, "replace", lambda *names: events.append("replace") or replace(*names))
    write_text(tmp_path / "notes.txt", "whole")
    assert events == ["sync", "replace"]


def test_bytes_and_options_of_open(tmp_path):
    with atomic_write(tmp_path / "bytes", "wb") as file:
        file.write(b"\x00\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    with atomic_write(tmp_path / "table", newline="\r\n") as file:
        file.write("a\n")
    assert (tmp_path / "table").read_bytes() == b"a\r\n"
    with atomic_write(tmp_path / "latin", encoding="latin-1") as file:
        file.write("é")
    assert (tmp_path / "latin").read_bytes() == b"\xe9"


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "value.json", {"a": [1]})
    assert (tmp_path / "value.json").read_text() == json.dumps({"a": [1]}, indent=2) + "\n"
    write_json(tmp_path / "value.json", {"a": [1]}, indent=None)
    assert (tmp_path / "value.json").read_text() == '{"a": [1]}\n'


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256_of_a_file(tmp_path, size):
    content = b"x" * size
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(str(tmp_path / "file")) == hashlib.sha256(content).hexdigest()


def test_what_killed_processes_left_is_removed(tmp_path):
    def left(name, machine=None, pid=2**22 + 1, age=0.0):
        path = tmp_path / f"{name}.{machine or machine_id()[:8]}-{pid}.partial"
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
        return path.name

    left("notes.txt"), left("other.txt"), left("old.txt", "0123abcd", age=2 * 86400)
    kept = {left("live.txt", pid=os.getpid()), left("new.txt", "0123abcd"), "labels.csv.partial", "notes.txt"}
    (tmp_path / "labels.csv.partial").write_text("to be resumed")
    write_text(tmp_path / "notes.txt", "whole")
    assert not list(tmp_path.glob("notes.txt.*"))
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_json_has_no_number_that_is_not_finite(tmp_path):
    write_listed_lines(
        tmp_path / "a.jsonl", [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": (float("inf"), 1.0)}]
    )
    assert (tmp_path / "a.jsonl").read_text() == '{"epoch": 1, "loss": null}\n{"epoch": 2, "loss": [null, 1.0]}\n'
    (tmp_path / "a.jsonl").write_text('{"epoch": 1}\n{"epoch": 2, "loss": NaN}\n')
    with pytest.raises(ValueError, match=r"line 2 is damaged"):
        read_json_lines(tmp_path / "a.jsonl", bool)


@pytest.mark.parametrize("kind", ["link", "broken", "pipe"])
def test_what_is_not_followed_is_replaced(tmp_path, kind):
    path, own = tmp_path / "record.json", tmp_path / "own"
    own.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(own if kind == "link" else tmp_path / "nowhere")
    write_text(path, "new", follow_links=False)
    assert path.read_text() == "new"
    assert not path.is_symlink()
    assert own.read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["own", "record.json"]


def test_bytes_of_a_file_name_that_are_no_utf8_are_escaped(tmp_path):
    write_text(tmp_path / "names.csv", os.fsdecode(b"scan\xff.png\n"))
    assert (tmp_path / "names.csv").read_text() == "scan\\udcff.png\n"
