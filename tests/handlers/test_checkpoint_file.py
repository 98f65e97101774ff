"""Checkpoint files: one byte that is not as it was written is noticed, and the run goes on from the file before."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zipfile

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from medvl.handlers import BestCheckpoint, FiniteWeights, RunCheckpoint
from medvl.handlers.checkpoint_file import load_checkpoint, remove_old, save_checkpoint, verify_checkpoint
from medvl.utils.errors import DiskFullError


def write(path, value=1.0):
    save_checkpoint({"network": {"w": torch.full((50,), value)}, "epoch": 3}, path)
    return path


def test_any_flipped_byte_is_noticed(tmp_path):
    path = write(tmp_path / "epoch-0003.pt")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"epoch-0003\.pt is damaged"):
            verify_checkpoint(path)
    for other in (b"", whole[:-1], whole + b"x", whole[1:], whole[:40], whole[: len(whole) // 2]):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="is damaged"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert load_checkpoint(path)["epoch"] == 3


def test_torch_and_zip_read_the_file_as_any_other(tmp_path):
    path = write(tmp_path / "epoch-0003.pt")
    assert torch.load(path, weights_only=True)["network"]["w"].sum() == 50
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def run_to(folder, epochs, network, keep=2, stop=None):
    checkpoint = RunCheckpoint(folder, {"network": network}, keep=keep)
    engine = Engine(lambda *_: network.weight.data.add_(1))
    checkpoint.attach(engine)
    if checkpoint.restore() is None or engine.state.epoch < epochs:
        engine.run([0], max_epochs=epochs)
    return checkpoint


def test_falls_back_and_says_to_which_epoch(tmp_path, caplog):
    run_to(tmp_path, 4, nn.Linear(1, 1))
    newest = tmp_path / "epoch-0004.pt"
    newest.write_bytes(newest.read_bytes()[:-70] + b"\0" * 70)
    assert RunCheckpoint(tmp_path, {}).newest().name == "epoch-0003.pt"
    assert "cannot be resumed after epoch 4 (" in caplog.text
    assert "is damaged: its content is not what was saved) and falls back to epoch 3." in caplog.text
    network = nn.Linear(1, 1)
    run_to(tmp_path, 4, network)
    verify_checkpoint(newest)


def test_all_damaged_starts_from_the_beginning_and_keeps_what_it_writes(tmp_path, caplog):
    run_to(tmp_path, 4, nn.Linear(1, 1))
    for path in tmp_path.iterdir():
        path.write_bytes(b"x")
    network = nn.Linear(1, 1)
    run_to(tmp_path, 1, network)
    assert "and starts from the beginning." in caplog.text
    assert RunCheckpoint(tmp_path, {}).newest().name == "epoch-0001.pt"


def test_more_than_9999_epochs_are_in_order(tmp_path):
    for epoch in (9999, 10000, 10001):
        write(tmp_path / f"epoch-{epoch}.pt")
    remove_old(tmp_path.glob("*.pt"), 2, 10001)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-10000.pt", "epoch-10001.pt"]
    assert RunCheckpoint(tmp_path, {}).newest().name == "epoch-10001.pt"


def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(tmp_path):
    best = BestCheckpoint(tmp_path, nn.Linear(1, 1), Engine(lambda *_: None))
    for epoch in (1, 2):
        write(tmp_path / f"best-{epoch:04d}.pt")
        save_checkpoint({"best": {"epoch": epoch, "value": 0.5}}, tmp_path / f"epoch-{epoch:04d}.pt")
    checkpoint = RunCheckpoint(tmp_path, {"best": best})
    assert checkpoint.newest().name == "epoch-0002.pt"
    for damage in (lambda path: path.write_bytes(b"x"), lambda path: path.unlink()):
        damage(tmp_path / "best-0002.pt")
        assert checkpoint.newest().name == "epoch-0001.pt"


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    network = nn.BatchNorm1d(2)
    engine = Engine(lambda *_: None)
    RunCheckpoint(tmp_path, {"network": network}).attach(engine)
    engine.run([0], max_epochs=1)
    network.running_var[1] = torch.inf
    with pytest.raises(
        ValueError, match=r"^The weights are not finite after epoch 1 \(running_var\), and are not saved"
    ):
        engine.run([0], max_epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.pt"]


def test_a_step_that_diverges_at_the_end_of_an_epoch_stops_before_the_epochs_end(tmp_path):
    engine = Engine(lambda *_: None)
    engine.network = nn.Linear(1, 1)
    ended = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: ended.append(1))

    @engine.on(Events.ITERATION_COMPLETED(once=4))
    def diverge():
        engine.network.bias.data.fill_(torch.nan)

    FiniteWeights().attach(engine)
    engine.network.weight.data.fill_(1)
    with pytest.raises(
        ValueError, match=r"\(bias\) after the step in epoch 2, iteration 4, on the studies a, b\. They"
    ):
        engine.run([{"study_id": ["a", "b"]}] * 2, max_epochs=3)
    assert ended == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_names_file_and_disk_and_leaves_the_old_checkpoint(tmp_path):
    code = f"""
import resource, torch
from medvl.handlers.checkpoint_file import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
try:
    save_checkpoint({{"w": torch.zeros(100000)}}, {str(tmp_path / "epoch-0002.pt")!r})
except OSError as error:
    print(type(error).__name__, error.filename, error.strerror)
"""
    write(tmp_path / "epoch-0001.pt")
    said = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(
        f"DiskFullError {tmp_path / 'epoch-0002.pt'} The file is larger than this user or file system"
    )
    assert " permits, on the disk mounted at /" in said
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.pt"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_no_space_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medvl.utils.io.os.fsync", full)
    with pytest.raises(DiskFullError, match=r"No space left on the disk mounted at /.* GB free"):
        write(tmp_path / "epoch-0001.pt")
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import os, sys
from collections import Counter
import torch
from medvl.handlers.checkpoint_file import save_checkpoint

path, states = sys.argv[1], {"network": {"w": torch.zeros(100)}, "epoch": 1}

def save(interrupted_at):
    steps = 0
    def trace(frame, event, argument):
        nonlocal steps
        steps += 1
        if steps == interrupted_at:
            raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        save_checkpoint(states, path)
    finally:
        sys.settrace(None)
    return steps

save_checkpoint(states, path)
ends = Counter()
for number in range(1, save(0), 3):
    pid = os.fork()
    if pid == 0:
        end = "raised something else"
        try:
            save(number)
            end = "lost"  # where it was raised in a destructor
        except KeyboardInterrupt:
            end = "stopped"
        finally:
            os._exit(["stopped", "lost", "raised something else"].index(end))
    ends[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
print(ends[0], ends[1], sum(ends.values()), os.listdir(os.path.dirname(path)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each moment")
def test_a_signal_at_any_moment_of_saving_is_a_signal(tmp_path):
    """It neither ends the process by an error in torch's destructor nor is hidden behind another error."""
    path = tmp_path / "epoch-0001.pt"
    done = subprocess.run(
        [sys.executable, "-B", "-c", INTERRUPTED, path], capture_output=True, text=True, check=True, timeout=600
    )
    stopped, lost, moments, left = done.stdout.split(maxsplit=3)
    assert int(moments) > 300
    assert int(lost) < 5
    assert int(stopped) + int(lost) == int(moments), done.stderr
    verify_checkpoint(path)
    assert left.strip() == str([path.name])


def test_an_error_that_is_being_handled_is_not_taken_for_that_of_saving(tmp_path):
    handled = KeyError("another")
    try:
        raise handled
    except KeyError:
        with pytest.raises(RuntimeError, match="not picklable"):
            save_checkpoint({"w": _Unpicklable()}, tmp_path / "epoch-0001.pt")


class _Unpicklable:
    def __reduce__(self):
        raise RuntimeError("not picklable")
