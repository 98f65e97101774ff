"""A table that is written block by block, whole or not at all, and that a later run can go on with."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import gzip
import hashlib
import io
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from medvl.data.tables.files import STANDARD_INPUT, table_suffix
from medvl.utils.checks import error_message
from medvl.utils.checksums import read_sealed, sealed_text
from medvl.utils.csv_files import CsvWriter
from medvl.utils.disk import name_full_disk
from medvl.utils.extras import require_extra
from medvl.utils.io import is_stream, link_target, partial_path, replace_file, sync

STANDARD_OUTPUT = STANDARD_INPUT
OUTPUT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".xlsx")
_SECONDS_BETWEEN_RECORDS = 1.0
_EXCEL_ROWS, _EXCEL_CHARACTERS = 1_048_576, 32_767
_BATCH_ROWS = 4096


class TableOutput:
    """A context manager that writes a table to a file, to a device or pipe as it is, or for ``-`` to standard output.

    A file is written beside its place under another name (``labels.csv.partial``), with a record of how far it is, and renamed
    at the end; of a symbolic link, the file that it leads to. An error leaves the old file. Each block of rows gives the same
    bytes whether the run was interrupted or not.

    Args:
        path: the file. Its suffix is one of :data:`OUTPUT_SUFFIXES`; a device or pipe, and standard output, get CSV.
        columns: the names of the columns.
        integers: those of them with integers or blanks, which Parquet and Excel then hold as numbers.
        raw: whether CSV cells are written as they are, see :class:`~medvl.utils.csv_files.CsvWriter`.
        resume: whether to go on with what an interrupted run left, and to leave it if this one is interrupted.
        identity: what the rows depend on. A run with another one is not gone on with.

    Attributes:
        state: what :meth:`end_block` was given last, of this run or of the one that this one goes on with.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the suffix is unknown, a stream is to be resumed, or another run has left or is writing the file.
        medvl.utils.extras.MissingExtraError: If the format needs a package that is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        integers: Iterable[str] = (),
        raw: bool = False,
        resume: bool = False,
        identity: str = "",
    ) -> None:
        self.path, self.columns, self.integers = Path(path), list(columns), frozenset(integers)
        self.state: dict[str, Any] | None = None
        self._streamed = str(path) == STANDARD_OUTPUT or is_stream(path)
        self._suffix = ".csv" if self._streamed else table_suffix(self.path)
        if self._streamed and resume:
            raise ValueError(error_message("output", "be a file where a run is resumed", str(path)))
        check_output(path)
        self._binary = self._suffix in (".parquet", ".xlsx")
        self._raw = raw or self._binary  # the work file of a binary format is CSV
        self._resume, self._identity = resume, identity
        self._recorded = 0.0
        self._bytes = self._safe_bytes = 0
        self._digest = self._safe_digest = hashlib.sha256()  # of so many bytes

    def __enter__(self) -> TableOutput:
        if self._streamed:
            standard = str(self.path) == STANDARD_OUTPUT
            if standard and sys.stdout is None:
                raise ValueError(error_message("output", "be a file where standard output is closed", repr("-")))
            self._file: IO[bytes] = sys.stdout.buffer if standard else self.path.open("wb")
        else:
            self._target = link_target(self.path)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._partial = partial_path(self._target)
            self._record = partial_path(self._target, ".progress")
            # Of one name each, so that those of a run that was killed are replaced.
            self._next_record = partial_path(self._target, ".next")
            self._converted = partial_path(self._target, ".whole")
            self._file = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            self._lock()
            self._find_start()
        if self.state is None:
            self.write_rows([self.columns])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._streamed:
            if error is None:
                self._file.flush()
            if str(self.path) != STANDARD_OUTPUT:
                self._file.close()
            return
        keep = self._resume and self.state is not None  # unless the table is whole at the end
        try:
            if error is None:
                with name_full_disk(self.path):
                    self._finish()
                keep = False
            elif keep:
                with contextlib.suppress(OSError):  # a full disk; the earlier record holds
                    self._write_record()
        finally:
            left = (self._partial, self._record, self._next_record, self._converted)
            for path in left[2:] if keep else left:
                path.unlink(missing_ok=True)
            with name_full_disk(self.path):  # where the last rows are not written yet
                self._file.close()

    def write_rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write a block of rows."""
        buffer = io.StringIO(newline="")
        CsvWriter(buffer, self._raw, "\t" if self._suffix.startswith(".tsv") else ",").write_rows(rows)
        data = buffer.getvalue().encode("utf-8", "backslashreplace")
        if self._suffix.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        with name_full_disk(self.path):
            self._file.write(data)
        self._bytes += len(data)
        self._digest.update(data)

    def end_block(self, state: dict[str, Any]) -> None:
        """Note that what was written so far is what ``state``, a JSON value, describes."""
        if self._streamed:
            self._file.flush()
            return
        with name_full_disk(self.path):
            self._end_block(state)

    def _end_block(self, state: dict[str, Any]) -> None:
        self.state, self._safe_bytes, self._safe_digest = state, self._bytes, self._digest.copy()
        if time.monotonic() - self._recorded >= _SECONDS_BETWEEN_RECORDS:
            self._write_record()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ValueError(f"output: another run is writing {self.path}.") from error
        except OSError:  # a file system without locks
            pass

    def _find_start(self) -> None:
        """Take up the state of an interrupted run where it is asked for, else begin anew."""
        found = self._read_record() if self._resume else None
        if found is not None and found["identity"] != self._identity:
            self._file.close()
            raise ValueError(
                f"output: {self._partial.name} was begun by a run with other options, columns or rules; run without --resume "
                "to begin anew."
            )
        if found is not None and self._is_written(found["bytes"], found["sha256"]):
            self.state, self._bytes = found["state"], found["bytes"]
            self._safe_bytes, self._safe_digest = self._bytes, self._digest.copy()
        else:
            self._record.unlink(missing_ok=True)
        self._file.truncate(self._bytes)
        self._file.seek(self._bytes)

    def _read_record(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = read_sealed(self._record)
        except (OSError, ValueError):  # there is none, or it is damaged
            return None
        return found

    def _is_written(self, count: int, sha256: str) -> bool:
        """Whether the first bytes of the file are those that were written, which are then hashed."""
        digest = hashlib.sha256()
        self._file.seek(0)
        left = count
        while left and (block := self._file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        if left or digest.hexdigest() != sha256:
            return False
        self._digest = digest
        return True

    def _write_record(self) -> None:
        sync(self._file)
        record = {"identity": self._identity, "bytes": self._safe_bytes, "sha256": self._safe_digest.hexdigest()}
        with self._next_record.open("w") as file:
            file.write(sealed_text({**record, "state": self.state}))
            sync(file)
        os.replace(self._next_record, self._record)
        self._recorded = time.monotonic()

    def _finish(self) -> None:
        sync(self._file)
        if not self._binary:
            replace_file(self._partial, self._target)
            return
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, encoding="utf-8", newline="")
        reader = csv.reader(text)
        next(reader)
        rows = ([self._typed(column, cell) for column, cell in zip(self.columns, row, strict=True)] for row in reader)
        write = _write_parquet if self._suffix == ".parquet" else _write_workbook
        try:
            with self._converted.open("wb") as file:
                write(file, self.columns, self.integers, rows)
                sync(file)
        finally:
            text.detach()  # else it closes the file, which may be gone on with
        replace_file(self._converted, self._target)

    def _typed(self, column: str, cell: str) -> Any:
        return cell if column not in self.integers else int(cell) if cell else None


def check_output(path: str | Path) -> None:
    """Raise where a table cannot be written to a path, before there is something to write.

    Raises:
        ValueError: If its suffix is none of :data:`OUTPUT_SUFFIXES`, or it is a folder.
        medvl.utils.extras.MissingExtraError: If the format needs a package that is not installed.
    """
    if str(path) == STANDARD_OUTPUT or is_stream(path):
        return
    suffix = table_suffix(Path(path))
    if suffix not in OUTPUT_SUFFIXES:
        expected = f"end in one of {', '.join(OUTPUT_SUFFIXES)}, or be a pipe, or - for standard output"
        raise ValueError(error_message("output", expected, repr(Path(path).name)))
    if Path(path).is_dir():
        raise ValueError(error_message("output", "be a file", f"the folder {path}"))
    if suffix in (".parquet", ".xlsx"):
        require_extra(f"Writing {Path(path).name}", "tables")


def _write_parquet(
    file: IO[bytes], columns: Sequence[str], integers: frozenset[str], rows: Iterator[list[Any]]
) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, pyarrow.int64() if name in integers else pyarrow.string()) for name in columns])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            arrays = [
                pyarrow.array(cells, kind) for cells, kind in zip(zip(*batch, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _write_workbook(
    file: IO[bytes], columns: Sequence[str], integers: frozenset[str], rows: Iterator[list[Any]]
) -> None:
    import openpyxl
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.utils.exceptions import IllegalCharacterError

    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("labels")

    def cell(value: Any, number: int) -> Any:
        if isinstance(value, str) and len(value) > _EXCEL_CHARACTERS:
            raise ValueError(
                f"output: row {number} has a text of {len(value)} characters; Excel holds {_EXCEL_CHARACTERS}."
            )
        try:
            made = WriteOnlyCell(sheet, value)
        except IllegalCharacterError as error:
            raise ValueError(f"output: row {number} has a control character, which Excel cannot hold.") from error
        if isinstance(value, str):
            made.data_type = "s"  # a text that begins with = is no formula
        return made

    try:
        sheet.append([cell(name, 0) for name in columns])
        for number, row in enumerate(rows, start=1):
            if number >= _EXCEL_ROWS:
                raise ValueError(f"output: an Excel sheet holds {_EXCEL_ROWS - 1} rows; write .csv or .parquet.")
            sheet.append([cell(value, number) for value in row])
        workbook.save(file)
    finally:
        with contextlib.suppress(Exception):  # where it is closed; else the end of the process complains that it is not
            sheet.close()
