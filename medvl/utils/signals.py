"""Signals that end a process, as exceptions, so that it leaves nothing half done."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
AGAIN_SECONDS = 5.0
"""How long after a signal it is sent again where the program goes on."""

SECOND_SECONDS = 1.0
"""A signal that comes so long after the first is another one; some programs send each signal twice."""

BLOCKED_SECONDS = 5.0
"""How long after a signal the process is ended if the main thread has not even begun to handle it."""

LEAVE_SECONDS = 20.0
"""How long after a signal the process is ended if the block is still not left; ``torchrun`` sends SIGKILL after 30 seconds."""

LAST_WORDS_SECONDS = 3.0
"""How long a process that is ended may take to say so."""


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

    Python handles a signal only between two steps of the main thread's Python code. Where that waits in compiled code, as for
    another process of ``torch.distributed`` that has ended, a thread ends the process: five seconds after the signal if the
    main thread has not begun to handle it, and twenty seconds after it if the block is still not left.

    Args:
        last_words: called with the number of the signal, in another thread, before the process is ended that way.

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

    def __init__(self, last_words: Callable[[int], Any] | None = None) -> None:
        self.received: int | None = None
        self._last_words = last_words
        self._at = 0.0
        self._handled = self._again = self._held = False
        self._left = threading.Event()
        self._sending = threading.Lock()
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._wakeup_before = -1
        self._wakeup: socket.socket | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            reader, self._wakeup = socket.socketpair()
            self._wakeup.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
            for name in NAMES:
                number = getattr(signal, name, None)  # there is no SIGHUP on Windows
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
            _entered.append(self)
            threading.Thread(target=self._watch, args=(reader,), name="medvl-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._sending:
            self._left.set()
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._wakeup is not None:
            _entered.remove(self)
            signal.set_wakeup_fd(self._wakeup_before)
            self._wakeup.close()  # which ends the thread, if it has not seen a signal
            self._wakeup = None

    def hold(self) -> None:
        """From now on a signal raises nothing: the work is over, and only what is said at its end is left to do."""
        self._held = True

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
        self._handled = True  # no lock is taken here, which the interrupted code may hold
        if self._left.is_set():
            return
        if self.received is None:
            self.received, self._at = number, time.monotonic()
            if not self._held:
                raise StopRequested
            return
        if self._again:
            self._again = False
            if not self._held:
                raise StopRequested
            return
        if time.monotonic() - self._at > SECOND_SECONDS:
            os._exit(128 + self.received)

    def _watch(self, reader: socket.socket) -> None:
        """Wait for a signal, of which the operating system's handler writes the number, and see that it has an effect."""
        with reader:
            number = None
            while number not in self._before:
                received = reader.recv(1)
                if not received:
                    return
                number = received[0]
            deadline = time.monotonic() + LEAVE_SECONDS
            blocked = time.monotonic() + BLOCKED_SECONDS
            while not self._handled and not self._left.wait(0.05):
                if time.monotonic() > blocked:
                    self._end(number)
            while not self._left.wait(AGAIN_SECONDS):
                if time.monotonic() > deadline:
                    self._end(number)
                with self._sending:
                    if not self._left.is_set():
                        self._again = True
                        os.kill(self._pid, number)

    def _end(self, number: int) -> None:
        """End the process, whose main thread does not come back: no file is left half written, as after SIGKILL."""
        if self._last_words is not None:  # which may be blocked too
            speaker = threading.Thread(target=self._last_words, args=(number,), daemon=True)
            speaker.start()
            speaker.join(LAST_WORDS_SECONDS)
        os._exit(128 + number)


_entered: list[StopSignals] = []


def _forget_wakeup() -> None:
    """In a forked process: signals that it gets are not its parent's."""
    if _entered:
        with suppress(ValueError):  # a fork of another thread
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_wakeup)
