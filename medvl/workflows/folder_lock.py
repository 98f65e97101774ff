"""A lock on a run folder: one process at a time writes to it."""

from __future__ import annotations

import atexit
import getpass
import json
import logging
import os
import secrets
import socket
import stat
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from medvl.utils.disk import name_full_disk
from medvl.utils.host import is_running, machine_id, process_start
from medvl.utils.io import partial_path, remove_partial_files

logger = logging.getLogger(__name__)

LOCK = "run.lock"
BEGINNING = '{"host"'
"""What every lock begins with, by which it is told from another file of that name."""

BEAT_SECONDS = 15.0
"""How often the process that holds a lock touches its file."""

STALE_SECONDS = 180.0
"""A lock of another machine counts as left behind if its file was not touched for so long."""

MOST_BYTES = 2**16
"""What is read of a lock at most; none is as long."""

_held: dict[Path, FolderLock] = {}


class FolderInUseError(ValueError):
    """Another process is writing to a run folder."""


class FolderLock:
    """A file ``run.lock`` in a folder, which says who holds it: machine, user, process and since when.

    It works without the file system's own locks, which network file systems often lack: the file is created under another
    name and linked, which fails if there is one. A lock is left behind, and taken over with a message, if its process does
    not run any more on this machine; on another machine, if the file was not touched for three minutes, by the clock of the
    file system. The holder touches it every 15 seconds and notices if the lock was taken from it (:meth:`check`).

    A process may take a lock that it holds already, as a notebook does whose cell was interrupted and runs again.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.path = self.folder / LOCK
        self.token = secrets.token_hex(8)
        self._pid = os.getpid()
        self._released = threading.Event()

    def check_unused(self) -> None:
        """Raise if another process holds the lock; nothing is written.

        Raises:
            FolderInUseError: If so.
        """
        self._left_behind()

    def acquire(self) -> None:
        """Take the lock; the folder is created.

        Raises:
            FolderInUseError: If another process holds it.
            OSError: If the folder cannot be written to.
        """
        with name_full_disk(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._take_away()
        _held[self.folder] = self
        with suppress(OSError):
            remove_partial_files(self.folder, LOCK)  # of processes that were killed while they asked for the lock
        threading.Thread(target=self._beat, name="medvl-lock", daemon=True).start()

    def check(self) -> None:
        """Raise if the lock is not this one any more.

        Raises:
            FolderInUseError: If another process has taken it over.
        """
        holder, _ = self._read()
        if holder.get("token") != self.token:
            by = f"taken over by {_describe(holder)}" if holder else "removed"
            raise FolderInUseError(
                f"The lock of {self.folder} was {by} while this run was held up, which therefore stops. "
                "It has not written this epoch."
            )

    def release(self) -> None:
        """Remove the lock if it is this one; a process forked from the holder does nothing."""
        if self._released.is_set() or os.getpid() != self._pid:
            return
        self._released.set()
        if _held.get(self.folder) is self:
            del _held[self.folder]
        with suppress(OSError, FolderInUseError):
            if self._read()[0].get("token") == self.token:
                self.path.unlink()

    def _create(self) -> bool:
        """Write the file if there is none."""
        content = json.dumps(_describe_self(self.token)) + "\n"
        own = self._beside("new")
        try:
            own.write_text(content)
        except OSError:
            own.unlink(missing_ok=True)
            raise
        try:
            os.link(own, self.path)
        except OSError as error:
            if own.stat().st_nlink == 2:  # linked, but a network file system has lost the answer
                return True
            return not isinstance(error, FileExistsError) and _create_exclusively(self.path, content)
        finally:
            own.unlink()
        return True

    def _take_away(self) -> None:
        """Remove a lock that was left behind.

        Raises:
            FolderInUseError: If it was not.
        """
        left = self._left_behind()
        if left is None:
            return
        away = self._beside("old")
        with suppress(FileNotFoundError):  # another process was faster
            os.rename(self.path, away)
            with away.open("rb") as file:
                holder = _parse(file.read(MOST_BYTES).decode(errors="replace"))
            if holder.get("token") != left.get("token"):  # of a process that took it over in between
                with suppress(OSError):
                    os.link(away, self.path)
                away.unlink()
                raise FolderInUseError(self._in_use(holder))
            away.unlink()
            if left.get("pid") != os.getpid():
                logger.warning("The run at %s was left locked by %s, which has ended.", self.folder, _describe(left))

    def _left_behind(self) -> dict[str, Any] | None:
        """What is in a lock that was left behind, or that this process holds; None if there is no lock.

        Raises:
            FolderInUseError: If another process holds it.
        """
        holder, touched = self._read()
        if touched is None:
            return None
        if holder.get("machine") == machine_id():
            running = is_running(int(holder["pid"]), holder.get("process_start"))
            if holder["pid"] == os.getpid() or running is False:
                return holder
            if running:
                raise FolderInUseError(self._in_use(holder))
        age = self._now() - touched
        if age < -STALE_SECONDS:
            raise FolderInUseError(
                f"{self._in_use(holder)} Its last sign of life is {-age:.0f} s ahead, as by a clock that was set back; if it "
                f"has ended, delete {self.path}."
            )
        age = max(0.0, age)
        if age > STALE_SECONDS:
            return holder
        raise FolderInUseError(
            f"{self._in_use(holder)} Its last sign of life was {age:.0f} s ago; if it has ended, the folder is free in "
            f"{STALE_SECONDS - age:.0f} s, or when you delete {self.path}."
        )

    def _beside(self, purpose: str) -> Path:
        """A file of this process beside the lock, named so that :func:`remove_partial_files` knows when it is left behind."""
        return partial_path(self.path, f".{self.token}-{purpose}.{machine_id()[:8]}-{os.getpid()}")

    def _now(self) -> float:
        """The time by the clock of the file system, which may be another machine's."""
        probe = self._beside("now")
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime
        except OSError:  # a folder that one may not write to
            return datetime.now().timestamp()
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], float | None]:
        """What the lock says, empty if it is damaged, and when it was touched; None if there is none.

        Raises:
            FolderInUseError: If the file is not a lock of a run, perhaps the user's own.
        """
        try:
            status = os.lstat(self.path)
            # A pipe would be waited on, and a link that leads nowhere tried for ever.
            if not stat.S_ISREG(status.st_mode):
                raise FolderInUseError(f"{self.path} is not the lock of a run; move it away, or choose another folder.")
            with self.path.open("rb") as file:
                text = file.read(MOST_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return {}, None
        if not BEGINNING.startswith(text[: len(BEGINNING)]):
            raise FolderInUseError(f"{self.path} is not the lock of a run; move it away, or choose another folder.")
        return _parse(text), status.st_mtime

    def _in_use(self, holder: dict[str, Any]) -> str:
        return f"{self.folder} is in use by {_describe(holder)}; wait for it, or choose another folder."

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            with suppress(OSError, FolderInUseError):
                if self._read()[0].get("token") == self.token:
                    os.utime(self.path)


def _create_exclusively(path: Path, content: str) -> bool:
    """Write a file if there is none, where the file system has no hard links."""
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def release_lock(folder: str | Path) -> None:
    """Remove the lock of a folder if this process holds it."""
    lock = _held.get(Path(folder).absolute())
    if lock is not None:
        lock.release()


@atexit.register
def _release_all() -> None:
    for lock in list(_held.values()):
        lock.release()


def _describe_self(token: str) -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user id without a name
        user = "an unknown user"
    return {
        "host": socket.gethostname(),
        "user": user,
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine_id(),
        "process_start": process_start(os.getpid()),
        "token": token,
    }


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return f"another process ({LOCK} does not say which)"
    return f"process {holder['pid']} of {holder['user']} on {holder['host']} since {holder['since']}"


def _parse(text: str) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    complete = isinstance(holder, dict) and {"host", "user", "pid", "since", "machine", "token"} <= set(holder)
    # Signals to 0 and to negative numbers reach groups of processes, which always run.
    return holder if complete and type(holder["pid"]) is int and holder["pid"] > 0 else {}
