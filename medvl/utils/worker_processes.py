"""What processes that a command starts for its work have in common."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """How worker processes are started: forked where that is possible, so that they have what is imported and read already."""
    return multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")


def begin_worker() -> None:
    """Called first in a worker process: signals are those of its parent to handle, with which it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when the one that started it has ended, even by SIGKILL; nothing where it was not started by one."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
