"""Ctrl-C, SIGTERM and SIGHUP: a command stops, says in one line how to go on, and ends with 128 plus the signal's number."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import typer

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # there is no SIGHUP on Windows
AGAIN_SECONDS = 1.0


class StopSignals:
    """Lets signals end the block, whatever the program does at that moment.

    A signal raises ``KeyboardInterrupt`` in the main thread, so that the block is left in order: files are whole, worker
    processes end, locks are released. Where the exception is lost, as in a destructor or a callback, the signal is sent again
    every second. A second signal of the user ends the process at once. Outside the main thread nothing is changed.

    Example:
        >>> stop = StopSignals()
        >>> with stop:
        ...     pass
        >>> stop.received is None
        True
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._sent = 0  # how many of the signals were sent by ourselves
        self._seen = 0
        self._left = threading.Event()
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # nohup ignores SIGHUP, and shells ignore SIGINT of what runs in the background
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        for number, before in self._before.items():
            signal.signal(number, before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker process, which ends with the first
            os._exit(128 + number)
        self._seen += 1
        if self.received is None:
            self.received = number
            threading.Thread(target=self._send_again, daemon=True).start()
        elif self._seen > 1 + self._sent:
            os._exit(128 + self.received)
        raise KeyboardInterrupt

    def _send_again(self) -> None:
        while not self._left.wait(AGAIN_SECONDS):
            self._sent += 1
            os.kill(self._pid, self.received or signal.SIGINT)

    def wait(self, seconds: float = 0.5) -> bool:
        """Whether a signal has come, or comes soon: a worker process that it ended may be noticed first."""
        deadline = time.monotonic() + seconds
        try:
            while self.received is None and time.monotonic() < deadline:
                time.sleep(0.02)
        except KeyboardInterrupt:
            pass
        return self.received is not None

    def exit(self, arguments: list[str]) -> None:
        """Say that the command was stopped and how to go on, and end the process.

        Args:
            arguments: of the command line.
        """
        number = self.received or signal.SIGINT
        if os.environ.get("RANK", "0") == "0":  # one of several processes says it
            if sys.stderr.isatty():
                typer.echo(err=True)  # after a progress bar
            typer.echo(f"Stopped by {signal.Signals(number).name}. {how_to_go_on(arguments)}", err=True)
        sys.exit(128 + number)


def how_to_go_on(arguments: list[str]) -> str:
    """The sentence that says how to go on with a command that was stopped.

    Example:
        >>> how_to_go_on(["train", "convirt", "--data", "cases.csv"])
        'Go on by the same command with --resume.'
        >>> how_to_go_on(["evaluate", "runs/first"])
        'Nothing is left half written; give the same command again.'
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command == "demo" or (command == "train" and "--resume" in arguments):
        return "Go on by the same command."
    if command == "train":
        return "Go on by the same command with --resume."
    return "Nothing is left half written; give the same command again."
