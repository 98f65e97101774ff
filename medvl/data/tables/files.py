"""Files of tables: their format by suffix and content, standard input and pipes, and gzip."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from medvl.utils.checks import error_message
from medvl.utils.io import is_stream
from medvl.utils.limits import bounded_file

STANDARD_INPUT = "-"
TEXT_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
BINARY_FORMATS = {".parquet": "parquet", ".xlsx": "xlsx"}
_NAMES = {
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON lines",
    "json": "JSON",
    "parquet": "Parquet",
    "xlsx": "Excel (.xlsx)",
}
_GZIP = b"\x1f\x8b"
# What a file begins with, and what it is; those that are read have a format.
_SIGNATURES = {
    b"version https://git-lfs": ("a pointer of Git LFS, which git lfs pull replaces by the file", ""),
    b"PAR1": ("a Parquet file", "parquet"),
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook (.xlsx)", "xlsx"),
    b"\xd0\xcf\x11\xe0": ("a workbook of old Excel (.xls); save it as .xlsx", ""),
    b"%PDF": ("a PDF file", ""),
    b"\x89PNG": ("a PNG image", ""),
    b"\xff\xd8\xff": ("a JPEG image", ""),
    b"GIF8": ("a GIF image", ""),
    b"II*\x00": ("a TIFF image", ""),
    b"MM\x00*": ("a TIFF image", ""),
    b"BZh": ("compressed by bzip2", ""),
    b"\xfd7zXZ": ("compressed by xz", ""),
    b"7z\xbc\xaf": ("a 7-Zip archive", ""),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", ""),
    b"SQLite format 3": ("an SQLite database", ""),
    b"\x89HDF": ("an HDF5 file", ""),
    b"{\\rtf": ("a document in RTF", ""),
}
_JSON_START = re.compile(rb"""(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*[{\]])""")
_MARKUP_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|\?xml|table|svg)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_HEAD_BYTES = 4096


class TableFile:
    """A file that can be read from its start as often as needed.

    Standard input and pipes, which can be read once, are kept in a temporary file without a name, and so vanish with the
    process, however it ends.

    Args:
        path: the file; ``-`` for standard input, whose format is known by its content, as is that of a pipe.

    Attributes:
        name: what errors call it.
        format: ``csv``, ``tsv``, ``jsonl``, ``json``, ``parquet`` or ``xlsx``.
        size: bytes of the file as it is stored.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not a table of the format that its suffix says. No byte of it is in the message.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        streamed = str(path) == STANDARD_INPUT or is_stream(path)
        self.name = "standard input" if str(path) == STANDARD_INPUT else self.path.name
        suffix = table_suffix(self.path)
        if not streamed:
            if suffix.removesuffix(".gz") not in (*TEXT_FORMATS, *BINARY_FORMATS):
                raise ValueError(error_message("path", f"end in one of {format_list()}", repr(self.path.name)))
            if not self.path.is_file():
                raise FileNotFoundError(f"path: there is no file {self.path}.")
        self._spool = _spool(str(path)) if streamed else None
        self._raw: BinaryIO | None = None
        with self._open_raw() as file:
            self.size = (
                os.fstat(file.fileno()).st_size if self._spool is None else os.fstat(self._spool.fileno()).st_size
            )
        head = self.head(_HEAD_BYTES)
        if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
            raise ValueError(f"path: {self.name} is empty; expected a header and at least one row.")
        stated = {**TEXT_FORMATS, **BINARY_FORMATS}.get(suffix.removesuffix(".gz"), "")
        self.format = stated if not streamed and stated else _format_of(head)
        self._check_content(head)

    def open(self) -> BinaryIO:
        """The bytes from the start, decompressed where the content is gzip, up to ``MEDVL_MAX_UNPACKED_BYTES``."""
        raw = self._open_raw()
        self._raw = raw
        start = raw.read(2)
        raw.seek(0)
        if start != _GZIP:
            return raw
        return bounded_file(cast(BinaryIO, _GzipFile(raw)), f"path: {self.name}")

    def head(self, number: int) -> bytes:
        """The first bytes, decompressed."""
        with self.open() as file, errors_of_gzip(self.name):
            return file.read(number)

    @property
    def position(self) -> int:
        """Bytes of the stored file that the last :meth:`open` has been read up to."""
        with contextlib.suppress(ValueError):  # closed: read to its end
            return self._raw.tell() if self._raw is not None else 0
        return self.size

    def _open_raw(self) -> BinaryIO:
        if self._spool is None:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(_SharedFile(self._spool.fileno())))

    def _check_content(self, head: bytes) -> None:
        """Raise where the content is not of the format."""
        kind, known = next(
            (what for start, what in _SIGNATURES.items() if head.startswith(start)),
            ("a DICOM file", "") if head[128:132] == b"DICM" else ("", ""),
        )
        expected = _NAMES[self.format]
        if self.format in BINARY_FORMATS.values():
            if known != self.format:
                raise ValueError(
                    error_message(f"path: {self.name}", f"be a file of {expected}", kind or "other content")
                )
            return
        unicode = head[:2] in (b"\xff\xfe", b"\xfe\xff")
        if not kind and self.format in ("csv", "tsv"):
            if _JSON_START.match(head):
                kind = "JSON; name it .json, or .jsonl where each line is an object"
            elif _MARKUP_START.match(head):
                kind = "HTML or XML"
        if not kind and not unicode and len(_CONTROL.findall(head)) > max(8, len(head) / 20):
            hint = " (UTF-16 needs its byte order mark)" if head.count(0) > len(head) / 5 else ""
            kind = f"bytes that are no text{hint}"
        if kind:
            raise ValueError(error_message(f"path: {self.name}", f"hold a table as {expected}", kind))


def table_suffix(path: Path) -> str:
    """The suffix in lower case, with ``.gz`` and the one before it: ``.csv.gz``."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix == ".gz" else suffix


def format_list() -> str:
    """The suffixes that are read, for messages."""
    return f"{', '.join((*TEXT_FORMATS, *BINARY_FORMATS))} (and .gz, as .csv.gz)"


@contextlib.contextmanager
def errors_of_gzip(name: str) -> Iterator[None]:
    """Raise ``ValueError`` in one sentence where compressed data is damaged."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"path: {name} is compressed by gzip and damaged or cut off.") from error


def _format_of(head: bytes) -> str:
    """The format of content without a name."""
    for start, (_, known) in _SIGNATURES.items():
        if known and head.startswith(start):
            return known
    if _JSON_START.match(head):
        return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else "jsonl"
    return "csv"


@cache
def _spool(path: str) -> BinaryIO:
    """What a stream holds, in a temporary file without a name."""
    kept = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the process
    if path == STANDARD_INPUT:
        shutil.copyfileobj(sys.stdin.buffer, kept, 2**20)
    else:
        with open(path, "rb") as stream:
            shutil.copyfileobj(stream, kept, 2**20)
    kept.flush()
    return kept


class _GzipFile(gzip.GzipFile):
    """A compressed file that is closed with its content."""

    def __init__(self, raw: BinaryIO) -> None:
        self._stored = raw
        super().__init__(fileobj=raw)

    def close(self) -> None:
        super().close()
        self._stored.close()


class _SharedFile(io.RawIOBase):
    """A reader with a position of its own of an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._position = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position
