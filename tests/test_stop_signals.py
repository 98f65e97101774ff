"""Ctrl-C, SIGTERM and SIGHUP stop the command at any moment: one line, the signal's exit code, and a run that goes on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch.distributed as dist
from fork_server import Forked

from medvl.cli import messages
from medvl.cli.messages import how_to_go_on
from medvl.utils import distributed, signals
from medvl.utils.signals import StopSignals

pytestmark = pytest.mark.slow


def start(kind, output, *more):
    command = [
        sys.executable, "-m", "medvl", "train", "convirt", "--data", "synthetic", "--output", output, "--epochs", 100_000,
        "--image-size", 64, "--batch-size", 4, "--device", "cpu", "--set", "synthetic_length=40", "--set", "progress=false",
        *more,
    ]  # fmt: skip
    return kind(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_line_and_the_signals_code(tmp_path, name):
    kind = subprocess.Popen if name == "SIGINT" else Forked
    run = start(kind, tmp_path / "run", "--num-workers", 1 if name == "SIGTERM" else 0)
    while not (tmp_path / "run" / "checkpoints").is_dir() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(getattr(signal, name))
    out, err = run.communicate()
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
        while True:
            signal.pause()

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
    waits, begun = os.pipe()
    with StopSignals():
        pid = os.fork()
        if pid == 0:
            try:
                os.write(begun, b".")
                while True:
                    signal.pause()
            finally:
                os._exit(0)  # reached only if the signal is an exception here
        os.read(waits, 1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM


def test_how_to_go_on():
    assert how_to_go_on(["demo"]) == how_to_go_on(["train", "convirt", "--resume"]) == "Go on by the same command."
    assert (
        how_to_go_on(["label", "a.csv"])
        == how_to_go_on([])
        == "Nothing is left half written; give the same command again."
    )


BLOCKED = """
import sys
import threading
import time
from datetime import timedelta
import torch.distributed as dist
from medvl.utils import signals

def say_when_it_waits(frame, line):
    while frame.f_lineno != line:
        time.sleep(0.01)
    print("waiting", flush=True)

signals.BLOCKED_SECONDS, signals.LEAVE_SECONDS = 0.5, 1e6
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
with signals.StopSignals(lambda number: print("ended by", number, file=sys.stderr, flush=True)):
    keys, limit = ["nobody sets this"], timedelta(days=1)
    threading.Thread(target=say_when_it_waits, args=(sys._getframe(), sys._getframe().f_lineno + 1), daemon=True).start()
    store.wait(keys, limit)  # compiled code, which no signal interrupts, and in which alone another thread finds this line
"""


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_process_that_is_blocked_in_compiled_code_ends(name):
    run = subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "waiting\n"
    begun = time.monotonic()
    run.send_signal(getattr(signal, name))
    _, err = run.communicate()
    number = getattr(signal, name)
    assert run.returncode == 128 + number
    assert err.count(f"ended by {int(number)}") == 1
    assert time.monotonic() - begun > 0.5


UNLEFT = """
import sys, time
from medvl.utils import signals
signals.LEAVE_SECONDS = signals.AGAIN_SECONDS = 0.3
with signals.StopSignals(lambda number: time.sleep(3600)):
    said = False
    while True:
        try:
            while True:
                try:
                    if not said:
                        print("waiting", flush=True)
                    said = True
                    time.sleep(60)
                except KeyboardInterrupt:
                    print("not now", file=sys.stderr)
        except KeyboardInterrupt:  # raised while the first was caught
            pass
"""


@pytest.mark.usefixtures("default_signals")
def test_a_block_that_is_not_left_and_last_words_that_do_not_end():
    script = UNLEFT.replace("signals.LEAVE", "signals.LAST_WORDS_SECONDS = signals.LEAVE")
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "waiting\n"
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate()
    assert run.returncode == 128 + signal.SIGTERM
    assert err.startswith("not now")


@pytest.mark.usefixtures("default_signals")
def test_nothing_is_raised_while_the_end_is_said():
    with StopSignals() as stop:
        stop.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert stop.received == signal.SIGTERM


@pytest.mark.usefixtures("default_signals")
def test_a_signal_while_an_error_is_said_changes_no_word(medvl, monkeypatch, tmp_path):
    from medvl import cli

    said = cli.error_sentence

    def interrupted(error):
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does when another process has ended
        return said(error)

    monkeypatch.setattr(cli, "error_sentence", interrupted)
    code, _, err = medvl("label", tmp_path / "no.csv")
    assert code == 2
    assert err.count("Error: ") == 1
    assert len(err.strip().splitlines()) == 1


@pytest.mark.usefixtures("default_signals")
def test_a_signal_of_a_forked_process_is_not_ones_own():
    with StopSignals(lambda _: None) as stop:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        time.sleep(0.1)
        assert any(thread.name == "medvl-signals" for thread in threading.enumerate())
        assert stop.received is None
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def patient(monkeypatch):
    """A store that is there answers, however slow the machine is."""
    monkeypatch.setattr(distributed, "STORE_SECONDS", 600.0)


@pytest.mark.usefixtures("patient")
def test_what_several_processes_say_is_said_once(monkeypatch, capsys):
    """Rank 1 says its error first; that it has ended is then no news, and a warning of both is said once."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**environment, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    before = warnings.showwarning
    lost = RuntimeError("Connection closed by peer")
    try:
        for rank in ("1", "0"):
            monkeypatch.setenv("RANK", rank)
            messages.set_up_messages()  # as a process of its own
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning("rare words", UserWarning, "", 0)
            logging.getLogger("medvl").warning("batch norm")
            messages.say_error("data must be a file." if rank == "1" else "no.", expected=True)
            assert messages.say_process_lost(lost, ["train"]) == 1
            assert messages.say_stopped(signal.SIGTERM, ["train"]) == 143
    finally:
        warnings.showwarning = before
    said = capsys.readouterr().err.splitlines()
    assert said == ["Warning: rare words", "batch norm", "Error: data must be a file.", "Error: no."]


@pytest.mark.usefixtures("patient")
def test_a_lost_process_is_said_once_whichever_is_left(monkeypatch, capsys):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**environment, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    for rank in ("2", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(messages, "_said", set())
        messages.say_process_lost(RuntimeError("Connection closed by peer"), ["train"])
    assert capsys.readouterr().err.count("Go on by the same command with --resume.") == 1
