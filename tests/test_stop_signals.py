"""Ctrl-C, SIGTERM and SIGHUP stop the command at any moment: one line, the signal's exit code, and a run that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from medvl.cli.messages import how_to_go_on
from medvl.utils import signals
from medvl.utils.signals import StopSignals


def start(output, *more):
    command = [
        sys.executable, "-m", "medvl", "train", "convirt", "--data", "synthetic", "--output", output, "--epochs", 500,
        "--image-size", 64, "--batch-size", 4, "--device", "cpu", "--set", "synthetic_length=40", "--set", "progress=false",
        *more,
    ]  # fmt: skip
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_line_and_the_signals_code(tmp_path, name):
    run = start(tmp_path / "run", "--num-workers", 1 if name == "SIGTERM" else 0)
    while not (tmp_path / "run" / "checkpoints").is_dir() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(getattr(signal, name))
    out, err = run.communicate(timeout=600)
    assert run.returncode == 128 + getattr(signal, name), err
    assert err.splitlines()[-1] == f"Stopped by {name}. Go on by the same command with --resume."
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / "run.lock").exists()
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.usefixtures("default_signals")
def test_a_signal_that_is_lost_is_sent_again(monkeypatch):
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.1)

    class Swallows:
        def __del__(self):  # what is raised here goes nowhere
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):
                pass

    lost = [Swallows()]
    stop = StopSignals()
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    def lose():
        lost.clear()
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt), stop:
        lose()
    assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
    handlers = []

    def inside():
        with StopSignals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.usefixtures("default_signals")
def test_a_forked_process_ends_at_once():
    with StopSignals():
        pid = os.fork()
        if pid == 0:
            try:
                time.sleep(30)
            finally:
                os._exit(0)  # reached only if the signal is an exception here
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM


def test_how_to_go_on():
    assert how_to_go_on(["demo"]) == how_to_go_on(["train", "convirt", "--resume"]) == "Go on by the same command."
    assert (
        how_to_go_on(["label", "a.csv"])
        == how_to_go_on([])
        == "Nothing is left half written; give the same command again."
    )
