"""Files inside uncompressed tar files, each read by its place there, without the rest of the tar file."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from typing import NamedTuple

from medvl.utils.http_ranges import is_url, read_url
from medvl.utils.limits import check_regular_file
from medvl.utils.range_cache import cached, keep

_PLACE = re.compile(r"(.+\.tar)::(\d+)\+(\d+)-([0-9a-f]{16})::(\d+):(.*)", re.DOTALL)
OPEN_FILES = 32
"""Tar files that a thread keeps open."""

_local = threading.local()


class TarMember(NamedTuple):
    """The place of a file in a tar file, which as a text takes the place of a path.

    Args:
        tar: path or URL of the tar file.
        offset: the first byte of the file's content.
        size: number of bytes.
        digest: hash of the content (:func:`short_digest`).
        source_size: bytes of the file that the content was made from.
        source_name: its name.

    Example:
        >>> member = TarMember("/data/shard-000000.tar", 512, 9, "0123456789abcdef", 7000, "17.dcm")
        >>> str(member)
        '/data/shard-000000.tar::512+9-0123456789abcdef::7000:17.dcm'
        >>> TarMember.parse(str(member)) == member, TarMember.parse("/data/17.dcm")
        (True, None)
    """

    tar: str
    offset: int
    size: int
    digest: str
    source_size: int = 0
    source_name: str = ""

    def __str__(self) -> str:
        return f"{self.tar}::{self.offset}+{self.size}-{self.digest}::{self.source_size}:{self.source_name}"

    @classmethod
    def parse(cls, path: str) -> TarMember | None:
        """The place that a text names; None for any other path."""
        found = _PLACE.fullmatch(path) if ".tar::" in path else None
        if found is None:
            return None
        tar, offset, size, digest, source_size, source_name = found.groups()
        return cls(tar, int(offset), int(size), digest, int(source_size), source_name)

    @property
    def folder(self) -> str:
        """The folder of the tar file, a path or a URL."""
        return self.tar.rpartition("/")[0] if is_url(self.tar) else os.path.dirname(self.tar)

    def read(self) -> bytes:
        """The content.

        Raises:
            OSError: If the tar file cannot be read.
            ValueError: If it is cut off, or the content is not what was written.
        """
        web = is_url(self.tar)
        if web and (content := cached(self.digest, self.size)) is not None and short_digest(content) == self.digest:
            return content
        for _ in range(2):
            content = read_range(self.tar, self.offset, self.size)
            if short_digest(content) == self.digest:
                if web:
                    keep(self.digest, content)
                return content
            close_files()  # the file may have been replaced since it was opened
        raise ValueError(
            f"{self.tar} is damaged: the {self.size} bytes from byte {self.offset} on are not those that were written; "
            "medvl pack --verify examines all of it."
        )


def short_digest(content: bytes) -> str:
    """A hash of 64 bits as 16 hexadecimal digits.

    Example:
        >>> short_digest(b"")
        'e4a6a0577479b2b4'
    """
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def read_range(path: str, offset: int, size: int) -> bytes:
    """Bytes of a file, or of a file on a web server.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file ends before.
    """
    if is_url(path):
        return read_url(path, offset, size)
    try:
        descriptor = _descriptor(path)
        left = os.fstat(descriptor).st_size - offset
        if left < size:  # before memory is reserved for it
            raise ValueError(f"{path} is cut off: it has {max(left, 0)} of the {size} bytes from byte {offset} on.")
        content = _pread(descriptor, size, offset)
        while len(content) < size and (more := _pread(descriptor, size - len(content), offset + len(content))):
            content += more
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) < size:
        raise ValueError(f"{path} is cut off: it has {len(content)} of the {size} bytes from byte {offset} on.")
    return content


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows, where no process is forked with the file open
    return os.read(descriptor, size)


def _descriptor(path: str) -> int:
    """An open file; reading at an offset moves nothing, so that a forked process may use it too."""
    files: OrderedDict[str, int] = _local.__dict__.setdefault("files", OrderedDict())
    if path in files:
        files.move_to_end(path)
        return files[path]
    if len(files) >= OPEN_FILES:
        os.close(files.popitem(last=False)[1])
    check_regular_file(path)  # a pipe would be waited on
    files[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    return files[path]


def close_files() -> None:
    """Close the tar files that this thread has open."""
    files: OrderedDict[str, int] = _local.__dict__.setdefault("files", OrderedDict())
    while files:
        os.close(files.popitem()[1])
