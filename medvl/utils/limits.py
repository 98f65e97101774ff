"""Limits of what is read from files of anybody: regular files alone, and a bounded size once unpacked.

The limits are environment variables, so that a machine with more memory can raise them:

=============================== ======== ================================================================================
variable                        default  what
=============================== ======== ================================================================================
``MEDVL_MAX_UNPACKED_BYTES``    4 GiB    the pixels of an image or volume, and each file that is unpacked, tables among them
``MEDVL_MAX_TEXT_BYTES``        64 MiB   a report as XML, a vocabulary, a recipe, a record of a run
``MEDVL_MAX_ALTERNATIVES``      500000   the word sequences of one phrase of a vocabulary
=============================== ======== ================================================================================
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from medvl.utils.checks import error_message

DEFAULTS = {
    "MEDVL_MAX_UNPACKED_BYTES": 4 * 2**30,
    "MEDVL_MAX_TEXT_BYTES": 64 * 2**20,
    "MEDVL_MAX_ALTERNATIVES": 500_000,
}
UNPACKED, TEXT, ALTERNATIVES = DEFAULTS
_KINDS = {
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
    stat.S_ISDIR: "a folder",
}
_BLOCK = 2**20


def limit(name: str) -> int:
    """The value of a limit.

    Raises:
        ValueError: If its environment variable is not a positive integer.

    Example:
        >>> limit("MEDVL_MAX_ALTERNATIVES")
        500000
    """
    text = os.environ.get(name, "")
    if not text:
        return DEFAULTS[name]
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(error_message(f"the environment variable {name}", "be an integer of at least 1", repr(text)))
    return int(text)


def check_size(size: float, what: str, name: str = UNPACKED) -> None:
    """Raise ``ValueError`` if something of ``size`` bytes is above a limit.

    Example:
        >>> check_size(10**13, "the volume")
        Traceback (most recent call last):
        ValueError: the volume must have at most 4294967296 bytes unpacked (MEDVL_MAX_UNPACKED_BYTES), got 10000000000000.
    """
    if not 0 <= size <= limit(name):
        unpacked = " unpacked" if name == UNPACKED else ""
        raise ValueError(error_message(what, f"have at most {limit(name)} bytes{unpacked} ({name})", f"{size:.0f}"))


def read_bounded(file: IO[bytes], what: str, name: str = UNPACKED) -> bytes:
    """The rest of a stream.

    Raises:
        ValueError: If it is above a limit.
    """
    blocks, size, most = [], 0, limit(name)
    while block := file.read(_BLOCK):
        size += len(block)
        if size > most:
            raise ValueError(error_message(what, f"have at most {most} bytes unpacked ({name})", "more"))
        blocks.append(block)
    return b"".join(blocks)


def bounded_file(file: IO[bytes], what: str, name: str = UNPACKED) -> BinaryIO:
    """A file that is unpacked while it is read, as one that raises ``ValueError`` where it grows above a limit.

    Args:
        file: the file, such as a ``gzip.GzipFile``, which is closed with the result.
        what: its name, for the error.
        name: the limit.

    Example:
        >>> bounded_file(io.BytesIO(b"whole"), "the file").read()
        b'whole'
    """
    return cast(BinaryIO, io.BufferedReader(_BoundedFile(file, what, name), _BLOCK))


class _BoundedFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], what: str, name: str) -> None:
        self._file, self._what, self._name = file, what, name
        self._most = limit(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._check(self._file.tell())
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:  # found by reading, since the size is not known before
            while self._file.read(_BLOCK):
                self._check(self._file.tell())
        start = 0 if whence == os.SEEK_SET else self._file.tell()
        self._check(start + offset)
        return self._file.seek(start + offset)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()

    def _check(self, position: int) -> None:
        if position > self._most:
            raise ValueError(f"{self._what} must have at most {self._most} bytes unpacked ({self._name}), got more.")


def check_regular_file(path: str | Path) -> None:
    """Raise ``ValueError`` if a path leads to a pipe, a device, a socket or a folder, which reading may wait on for ever.

    A path that leads nowhere passes: opening it says so.

    Example:
        >>> check_regular_file("/dev/zero")
        Traceback (most recent call last):
        ValueError: /dev/zero must be a regular file, got a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS.items() if is_kind(mode)), "something else")
        raise ValueError(error_message(str(path), "be a regular file", kind))


def read_small_file(path: str | Path) -> bytes:
    """The bytes of a file that a person writes, such as a vocabulary.

    Raises:
        ValueError: If it is not a regular file, or above ``MEDVL_MAX_TEXT_BYTES``.
        OSError: If it cannot be read.
    """
    check_regular_file(path)
    with open(path, "rb") as file:
        check_size(os.fstat(file.fileno()).st_size, str(path), TEXT)
        return read_bounded(file, str(path), TEXT)


def read_small_text(path: str | Path) -> str:
    """As :func:`read_small_file`, as UTF-8.

    Raises:
        ValueError: Also if it is not UTF-8.
    """
    try:
        return read_small_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text in UTF-8, which it is not at byte {error.start}.") from error
