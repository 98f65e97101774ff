"""One process at a time writes to a run folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from medvl.utils.errors import DiskFullError
from medvl.utils.host import is_running, machine_id, process_start
from medvl.workflows import FolderInUseError, FolderLock, RunFolder
from medvl.workflows.folder_lock import STALE_SECONDS

FORK = multiprocessing.get_context("fork")


def write_lock(folder, age=0.0, **changes):
    """A lock as another process leaves it."""
    holder = {
        "host": "node7", "user": "alice", "pid": os.getpid() + 1, "since": "2026-01-01T00:00:00+00:00",
        "machine": machine_id(), "process_start": 1, "token": "t", **changes,
    }  # fmt: skip
    path = folder / "run.lock"
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age,) * 2)
    return path


def hold(folder, ready, end):
    lock = FolderLock(folder)
    lock.acquire()
    ready.set()
    end.wait()


def start_holder(folder):
    ready, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(folder, ready, end), daemon=True)
    process.start()
    ready.wait()
    return process, end


def test_another_process_is_told_who_writes(tmp_path):
    process, end = start_holder(tmp_path)
    with pytest.raises(FolderInUseError) as caught:
        RunFolder(tmp_path, config={"data": "cases.csv"}).acquire()
    assert str(caught.value).startswith(f"{tmp_path} is in use by process {process.pid} of ")
    assert str(caught.value).endswith("; wait for it, or choose another folder.")
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    end.set()
    process.join()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_message(tmp_path, caplog):
    process, _ = start_holder(tmp_path)
    process.kill()
    process.join()
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert f"was left locked by process {process.pid} of " in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    lock.check()
    lock.release()
    assert not list(tmp_path.iterdir())


def die_at(folder, event, number):
    """Ask for the lock of a folder, in a process that is killed before its ``number``-th operation of a kind on files."""
    left = number

    def audit(name, _):
        nonlocal left
        left -= name == event
        if name == event and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    FolderLock(folder).acquire()


@pytest.mark.parametrize(
    ("event", "number"), [("os.link", 1), ("os.link", 2), ("os.rename", 1), *(("os.remove", i) for i in range(1, 5))]
)
def test_a_process_that_is_killed_while_it_asks_leaves_nothing(tmp_path, event, number):
    write_lock(tmp_path, age=STALE_SECONDS + 60, machine="another")
    process = FORK.Process(target=die_at, args=(tmp_path, event, number), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    FolderLock(tmp_path).acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_process_number_that_was_given_again_is_another_process(tmp_path):
    write_lock(tmp_path, pid=os.getppid(), process_start=process_start(os.getppid()))
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).acquire()
    write_lock(tmp_path, pid=os.getppid(), process_start=1)
    FolderLock(tmp_path).acquire()


def test_a_lock_of_another_machine_is_left_behind_when_it_is_not_touched(tmp_path):
    path = write_lock(tmp_path, age=STALE_SECONDS - 60, machine="another")
    with pytest.raises(
        FolderInUseError, match=r"process \d+ of alice on node7 since 2026.* the folder is free in \d+ s"
    ):
        FolderLock(tmp_path).acquire()
    assert path.exists()
    write_lock(tmp_path, age=STALE_SECONDS + 60, machine="another")
    FolderLock(tmp_path).acquire()
    path.write_text('{"host": "node')  # damaged: nobody can be asked
    with pytest.raises(FolderInUseError, match="another process"):
        FolderLock(tmp_path).acquire()
    os.utime(path, (0, 0))
    FolderLock(tmp_path).acquire()


@pytest.mark.parametrize("content", ["the user's own", "{}", '{"a": 1}'])
def test_a_file_that_is_not_a_lock_is_left_alone(tmp_path, content):
    path = tmp_path / "run.lock"
    path.write_text(content)
    os.utime(path, (0, 0))
    with pytest.raises(
        FolderInUseError, match=r"run\.lock is not the lock of a run; move it away, or choose another folder\.$"
    ):
        FolderLock(tmp_path).acquire()
    assert path.read_text() == content


def test_who_lost_the_lock_notices(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    second.acquire()  # the same process may, as a notebook whose cell was interrupted
    with pytest.raises(FolderInUseError, match="was taken over by process"):
        first.check()
    first.release()
    second.check()
    second.release()
    with pytest.raises(FolderInUseError, match="was removed"):
        second.check()


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    lock = FolderLock(tmp_path)
    lock.acquire()
    write_lock(tmp_path, pid=os.getppid(), process_start=process_start(os.getppid()))
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).acquire()


def wait_for_ever():
    while True:
        signal.pause()


def race(folder, begin, told):
    begin.wait()
    try:
        FolderLock(folder).acquire()
        told.put("runs")
        wait_for_ever()  # holds it until all are told, however slow they are; then it is killed
    except FolderInUseError:
        told.put("is told")


@pytest.mark.parametrize("left", [False, True])
def test_of_many_at_once_one_runs(tmp_path, left):
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        if left:
            write_lock(folder, process_start=1, pid=2**22 + 1)
        begin, told = FORK.Event(), FORK.Queue()
        processes = [FORK.Process(target=race, args=(folder, begin, told), daemon=True) for _ in range(4)]
        for process in processes:
            process.start()
        begin.set()
        assert sorted(told.get() for _ in processes) == ["is told", "is told", "is told", "runs"]
        for process in processes:
            process.kill()
            process.join()


def test_running_processes():
    process = FORK.Process(target=wait_for_ever, daemon=True)
    process.start()
    assert is_running(process.pid)
    process.kill()
    while is_running(process.pid):  # a zombie counts as ended
        time.sleep(0.01)
    process.join()
    assert is_running(2**22 + 1) is False


@pytest.mark.parametrize("pid", [0, -1, True, 1.5, "7", None])
def test_a_lock_without_a_process_is_left_behind_when_it_is_not_touched(tmp_path, pid):
    write_lock(tmp_path, pid=pid)
    with pytest.raises(FolderInUseError, match=r"in use by another process \(run\.lock does not say which\)"):
        FolderLock(tmp_path).check_unused()
    write_lock(tmp_path, age=STALE_SECONDS + 60, pid=pid)
    FolderLock(tmp_path).check_unused()


def test_a_lock_that_is_nested_or_a_pipe_is_not_waited_on(tmp_path):
    (tmp_path / "run.lock").write_text('{"host"' + ":[" * 99999)
    with pytest.raises(FolderInUseError, match="does not say which"):
        FolderLock(tmp_path).check_unused()
    (tmp_path / "run.lock").unlink()
    os.mkfifo(tmp_path / "run.lock")
    with pytest.raises(FolderInUseError, match=r"run\.lock is not the lock of a run; move it away"):
        FolderLock(tmp_path).check_unused()


def test_a_lock_that_is_a_link_is_not_tried_for_ever(tmp_path):
    """A link that leads nowhere can neither be created nor read."""
    os.symlink("nowhere", tmp_path / "run.lock")
    process = FORK.Process(target=hold, args=(tmp_path, FORK.Event(), FORK.Event()), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 1
    with pytest.raises(FolderInUseError, match="is not the lock of a run"):
        FolderLock(tmp_path).check_unused()


def test_a_lock_that_is_longer_than_memory_is_not_read_whole(tmp_path):
    path = write_lock(tmp_path, machine="another")
    os.truncate(path, 2**40)
    with pytest.raises(FolderInUseError, match="does not say which"):
        FolderLock(tmp_path).acquire()


def test_a_lock_of_a_clock_that_was_set_back_is_not_said_to_end(tmp_path):
    path = write_lock(tmp_path, age=-86400.0, machine="another")
    with pytest.raises(FolderInUseError) as caught:
        FolderLock(tmp_path).acquire()
    assert "as by a clock that was set back" in str(caught.value)
    assert "the folder is free in" not in str(caught.value)
    assert str(caught.value).endswith(f"delete {path}.")


def test_a_full_disk_leaves_nothing_of_a_lock(tmp_path, monkeypatch):
    def write(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(DiskFullError, match=r"run\.lock"):
        FolderLock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())
