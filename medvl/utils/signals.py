"""Signals that end a process, as exceptions, so that it leaves nothing half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``SystemExit`` in the block, so that its ``finally`` clauses run.

    The exit status is 128 and the signal's number, as of a process that the signal ends. It does nothing outside the main
    thread, or where the signals are handled or ignored already (``nohup``).

    Example:
        >>> import os
        >>> try:
        ...     with exit_on_signals():
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ... except SystemExit as exit:
        ...     exit.code
        143
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    own = threading.current_thread() is threading.main_thread()
    taken = [
        getattr(signal, name) for name in names if own and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt what is being put in order
    raise SystemExit(128 + number)
