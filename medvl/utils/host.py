"""This machine, and whether a process on it still runs."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


@cache
def machine_id() -> str:
    """Identify this machine since its start, and the container in it: the scope in which a process id names one process.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> machine_id() == machine_id(), len(machine_id())
        (True, 16)
    """
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text())
        except OSError:  # no such file outside Linux
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def process_start(pid: int) -> int | None:
    """When a process of this machine was started, in clock ticks since the machine was; None if that cannot be told."""
    status = _status(pid)
    return int(status[19]) if status else None


def is_running(pid: int, started: int | None = None) -> bool | None:
    """Whether a process of this machine still runs.

    Args:
        pid: its id.
        started: :func:`process_start` of it, where known: ids are given to new processes again.

    Returns:
        None if this system does not tell.

    Example:
        >>> is_running(os.getpid(), process_start(os.getpid()))
        True
    """
    if os.name == "nt":  # there, os.kill(pid, 0) ends the process
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:  # of another user
        pass
    status = _status(pid)
    if not status:
        return True
    return status[0] not in ("Z", "X") and started in (None, int(status[19]))


def _status(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the third, the state, on; None where there is no such file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
