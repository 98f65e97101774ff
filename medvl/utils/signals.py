"""Signals that end a process, as exceptions, so that it leaves nothing half done."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
AGAIN_SECONDS = 5.0
"""How long after a signal it is sent again where the program goes on."""

SECOND_SECONDS = 1.0
"""A signal that comes so long after the first is another one; some programs send each signal twice."""


class StopRequested(KeyboardInterrupt):
    """A signal asks the program to stop.

    Python ends a program by SIGINT, whatever its exit code, if ``KeyboardInterrupt`` itself has passed through an ``eval`` of
    a string, as MONAI's configurations are run by. A subclass does not count.
    """


class StopSignals:
    """Let Ctrl-C, SIGTERM and SIGHUP raise :class:`StopRequested` in the block, whatever the program does at that moment.

    The block is left in order: files are whole, worker processes end, locks are released. Where the exception is lost, as in a
    destructor or a callback, the signal is sent again after five seconds. A second signal ends the process at once. Nothing is
    changed outside the main thread, and a signal that is ignored (``nohup``) stays ignored.

    Attributes:
        received: the number of the first signal; None where there was none.

    Example:
        >>> stop = StopSignals()
        >>> try:
        ...     with stop:
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ... except KeyboardInterrupt:
        ...     128 + stop.received
        143
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = 0.0
        self._again = False
        self._left = threading.Event()
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for name in NAMES:
                number = getattr(signal, name, None)  # there is no SIGHUP on Windows
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        for number, before in self._before.items():
            signal.signal(number, before)

    def wait(self, seconds: float = 1.0) -> bool:
        """Whether a signal has come, or comes soon: that it ended a worker process may be noticed first."""
        deadline = time.monotonic() + seconds
        try:
            while self.received is None and time.monotonic() < deadline:
                time.sleep(0.02)
        except KeyboardInterrupt:
            pass
        return self.received is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker has nothing to put in order
            os._exit(128 + number)
        if self.received is None:
            self.received, self._at = number, time.monotonic()
            threading.Thread(target=self._send_again, name="medvl-signals", daemon=True).start()
            raise StopRequested
        if self._again:
            self._again = False
            raise StopRequested
        if time.monotonic() - self._at > SECOND_SECONDS:
            os._exit(128 + self.received)

    def _send_again(self) -> None:
        while not self._left.wait(AGAIN_SECONDS):
            self._again = True
            os.kill(self._pid, self.received or signal.SIGINT)
