"""Rows of a CSV, TSV, JSON or JSONL file as strings, with the position of each row for error messages."""

from __future__ import annotations

import csv
import difflib
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvl.data.cells import strip_text
from medvl.utils.checks import error_message

_DELIMITERS = {".csv": None, ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        number: 1 for the first row below the header.
        line: the line of the file on which the row ends (quoted cells may hold line breaks); 0 in a JSON file.
        cells: column name to value; strings, or any JSON value in a JSON or JSONL file.
        problem: why the row cannot be read; empty if it can.
    """

    number: int
    line: int
    cells: dict[str, Any]
    problem: str = ""

    @property
    def position(self) -> str:
        """``"row 3 (line 4)"``."""
        return f"row {self.number} (line {self.line})" if self.line else f"row {self.number}"


@dataclass(frozen=True)
class Table:
    """The columns and rows of a table as strings: nothing is interpreted or dropped.

    Args:
        path: the file.
        columns: the names in the header, in order; of a JSON or JSONL file, every key that occurs.
        rows: the rows.
        encoding: the file's encoding.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row] = field(repr=False)
    encoding: str = "utf-8"

    def resolve_column(self, column: str, argument: str) -> str:
        """The column, if the table has it.

        Args:
            column: name of the column.
            argument: the argument that names it, for the error.

        Raises:
            ValueError: If the table does not have the column; the message lists those it has.
        """
        for name in (column, unicodedata.normalize("NFC", strip_text(column))):
            if name in self.columns:
                return name
        by_lower = {name.lower(): name for name in reversed(self.columns)}
        near = difflib.get_close_matches(column.lower(), by_lower, n=1)
        hint = f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
        # Truncated, because without a header the columns are the first row, which may hold a report.
        names = ", ".join(name[:30] for name in self.columns[:30])
        more = f" and {len(self.columns) - 30} more" if len(self.columns) > 30 else ""
        raise ValueError(f"{argument}: {self.path.name} has no column {column!r}{hint}; its columns are {names}{more}.")


def read_table(path: str | Path) -> Table:
    """Read a table of ``.csv``, ``.tsv``, ``.tab``, ``.jsonl``, ``.ndjson`` or ``.json``.

    A JSON file holds a list of objects or, as MONAI's datalists, one list for each split (``{"training": [...],
    "validation": [...]}``), whose name is then the column ``split`` of objects without one.

    A byte order mark, Windows line ends, quoted line breaks and a semicolon or tab as the separator of a ``.csv`` are
    supported. A file that is not UTF-8 is read as UTF-16 if it has that byte order mark, else as Windows-1252, a superset
    of Latin-1's letters; see ``encoding``.

    Args:
        path: the file.

    Returns:
        The :class:`Table`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the format is unknown, or the file has no row, repeats a column or is broken.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _DELIMITERS and suffix not in _JSON_LINES and suffix != ".json":
        suffixes = ", ".join((*_DELIMITERS, *_JSON_LINES, ".json"))
        raise ValueError(error_message("path", f"end in one of {suffixes}", repr(path.name)))
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}.")
    text, encoding = _decode(path.read_bytes())
    if not text.strip():
        raise ValueError(f"path: {path.name} is empty; expected a header and at least one row.")
    if suffix == ".json":
        columns, rows = _parse_json(text, path.name)
    elif suffix in _JSON_LINES:
        columns, rows = _parse_json_lines(text, path.name)
    else:
        columns, rows = _parse_delimited(text, path.name, _DELIMITERS[suffix])
    if not rows:
        raise ValueError(f"path: {path.name} has a header and no rows.")
    return Table(path, tuple(columns), rows, encoding)


def _decode(data: bytes) -> tuple[str, str]:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace"), "utf-16"
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:  # five bytes are undefined in Windows-1252, none in Latin-1
        return data.decode("latin-1"), "latin-1"


def _parse_delimited(text: str, name: str, delimiter: str | None) -> tuple[list[str], list[Row]]:
    if delimiter is None:
        header = text.lstrip().split("\n", 1)[0]
        delimiter = max(",;\t", key=header.count)
    # Strict: otherwise a quote that is never closed silently swallows the rest of the table.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [unicodedata.normalize("NFC", strip_text(cell)) for cell in cells]
                _check_columns(columns, name)
                continue
            problem = ""
            if len(cells) != len(columns):
                problem = f"the row has {len(cells)} cells, expected {len(columns)} as in the header"
            named = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
            rows.append(Row(len(rows) + 1, reader.line_num, named, problem))
    except csv.Error as error:
        raise ValueError(
            f"path: {name} cannot be read as a table from row {len(rows) + 1} on (line {reader.line_num}): {error}."
        ) from error
    return [column for column in columns if column], rows


def _check_columns(columns: Sequence[str], name: str) -> None:
    repeated = sorted({column for column in columns if column and columns.count(column) > 1})
    if repeated:
        raise ValueError(f"path: {name} has more than one column named {', '.join(map(repr, repeated))}.")


def _parse_json(text: str, name: str) -> tuple[list[str], list[Row]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Only the decoder's message, as below.
        raise ValueError(f"path: {name} is not valid JSON ({getattr(error, 'msg', type(error).__name__)}).") from error
    if isinstance(value, dict):
        sections = {split: entries for split, entries in value.items() if isinstance(entries, list)}
        value = [
            {"split": split, **entry} if isinstance(entry, dict) else entry
            for split, entries in sections.items()
            for entry in entries
        ]
    if not isinstance(value, list) or not any(isinstance(entry, dict) for entry in value):
        raise ValueError(
            f"path: {name} holds no list of objects; expected one object a study, or such a list for each split."
        )
    problem = "it is not a JSON object; expected {...} with one key a column"
    rows = [
        Row(number, 0, entry) if isinstance(entry, dict) else Row(number, 0, {}, problem)
        for number, entry in enumerate(value, start=1)
    ]
    return list(dict.fromkeys(column for row in rows for column in row.cells)), rows


def _parse_json_lines(text: str, name: str) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        cells: dict[str, Any] = {}
        problem = ""
        try:
            value = json.loads(line)
            if isinstance(value, dict):
                cells = value
            else:
                problem = "the line is not a JSON object; expected {...} with one key a column"
        except (ValueError, RecursionError) as error:
            # Only the decoder's message: the error's document, the line, may be a patient's report.
            problem = f"the line is not valid JSON ({getattr(error, 'msg', type(error).__name__)})"
        columns.update(dict.fromkeys(cells))
        rows.append(Row(len(rows) + 1, line_number, cells, problem))
    if not columns:
        raise ValueError(f"path: {name} has no line that is a JSON object; expected one in each line.")
    return list(columns), rows
