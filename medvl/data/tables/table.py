"""A table of any format: its columns, and its rows as often as they are asked for, without holding them in memory."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from medvl.data.cells import normalize_name, strip_text
from medvl.data.tables.delimited import parse_delimited
from medvl.data.tables.files import TableFile, errors_of_gzip
from medvl.data.tables.header import describe_columns, is_header
from medvl.data.tables.json_rows import json_columns, parse_json, parse_json_lines
from medvl.data.tables.lines import TextLines
from medvl.data.tables.rows import Parsed, Row


class Progress(NamedTuple):
    """How much of a table has been read.

    Args:
        done: bytes or rows read.
        total: all of them; None if that is not known.
        unit: ``"B"`` for bytes, ``"row"`` for rows.
    """

    done: int
    total: int | None
    unit: str


class Table:
    """The columns and rows of a table: nothing is interpreted or dropped.

    Each iteration reads the file again, row by row, so that its size is not limited by memory (but for a ``.json`` file).

    Args:
        file: the file.

    Attributes:
        path: the file.
        name: its name, for messages.
        columns: the names in the header, in order; of a JSON or JSONL file, every key that occurs.
        folder: what relative paths in it are relative to.
        is_metadata: whether it is the ``metadata`` table of an image folder, whose columns are ``file_name`` and ``text``.
        encoding: what its lines were read as by the last iteration: ``"utf-8"``, ``"utf-16"``, ``"cp1252"`` ...
    """

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self.path, self.name = file.path, file.name
        self.folder = Path() if self.name == "standard input" else file.path.parent
        self.is_metadata = file.path.stem == "metadata"
        self._lines: TextLines | None = None
        self._json: list[Row] | None = None
        self._read = 0
        self._number_of_rows: int | None = None
        if file.format == "jsonl":
            self.columns = tuple(json_columns(self, self.name))
            return
        with errors_of_gzip(self.name), closing(file.open()) as content:
            columns, rows = self._parse(content)
            self.columns = tuple(columns)
            if next(rows, None) is None:
                raise ValueError(f"path: {self.name} has a header and no rows.")

    def __iter__(self) -> Iterator[Row]:
        self._read = 0
        with errors_of_gzip(self.name), closing(self._file.open()) as content:
            for row in self._parse(content).rows:
                self._read = row.number
                yield row

    @property
    def encoding(self) -> str:
        """What the lines were read as."""
        return "utf-8" if self._lines is None else self._lines.encoding

    @property
    def default_columns(self) -> dict[str, str]:
        """The columns of images and of reports where none are named, by the argument that names them."""
        names = {"image_column": ("image", "file_name"), "report_column": ("report", "text")}
        return {
            argument: other if self.is_metadata and other in self.columns and usual not in self.columns else usual
            for argument, (usual, other) in names.items()
        }

    @property
    def progress(self) -> Progress:
        """How much of the file the current iteration has read."""
        if self._file.format == "parquet":
            return Progress(self._read, self._count_rows(), "row")
        if self._file.format in ("json", "xlsx"):
            return Progress(self._read, None, "row")
        return Progress(self._file.position, self._file.size, "B")

    @property
    def unmatched(self) -> Counter[str]:
        """By the name of each joined table, the rows of the last iteration that have no row in it."""
        return Counter()

    def _count_rows(self) -> int:
        if self._number_of_rows is None:
            from medvl.data.tables.parquet import count_parquet_rows

            with closing(self._file.open()) as content:
                self._number_of_rows = count_parquet_rows(content)
        return self._number_of_rows

    def cells(self, column: str) -> Iterator[Any]:
        """The cells of one column, of the rows that can be read."""
        return (row.cells.get(column) for row in self if not row.problem)

    def resolve_column(self, column: str, argument: str) -> str:
        """The column, if the table has it.

        Args:
            column: name of the column.
            argument: the argument that names it, for the error.

        Raises:
            ValueError: If the table does not have the column, with those it has; or has another whose name differs only in
                case, spaces or underscores.
        """
        for name in (column, unicodedata.normalize("NFC", strip_text(column))):
            if name in self.columns:
                return self._only(name, argument)
        by_lower = {name.lower(): name for name in reversed(self.columns)}
        near = difflib.get_close_matches(column.lower(), by_lower, n=1)
        hint = f" (did you mean {by_lower[near[0]]!r}?)" if near and is_header(self.columns) else ""
        raise ValueError(f"{argument}: {self.name} has no column {column!r}{hint}; {describe_columns(self.columns)}.")

    def find_column(self, defaults: tuple[str, ...], argument: str) -> str | None:
        """The first of these columns that the table has; None if it has none of them."""
        return next((self._only(name, argument) for name in defaults if name in self.columns), None)

    def _only(self, column: str, argument: str) -> str:
        alike = [name for name in self.columns if name != column and normalize_name(name) == normalize_name(column)]
        if alike:
            raise ValueError(
                f"{argument}: {self.name} has the columns {column!r} and {alike[0]!r}, whose names differ only in case, "
                "spaces or underscores; rename one."
            )
        return column

    def _parse(self, content: BinaryIO) -> Parsed:
        """One pass over the file."""
        kind = self._file.format
        if kind == "parquet":
            from medvl.data.tables.parquet import parse_parquet

            return parse_parquet(content, self.name)
        if kind == "xlsx":
            from medvl.data.tables.workbook import parse_workbook

            return parse_workbook(content, self.name)
        if kind == "json" and self._json is not None:
            return Parsed(list(self.columns), iter(self._json))
        self._lines = TextLines(content, self.name, "" if kind in ("csv", "tsv") else "\n")
        if kind == "jsonl":
            return Parsed([], parse_json_lines(self._lines))
        if kind == "json":
            columns, rows = parse_json("".join(self._lines), self.name)
            self._json = list(rows)
            return Parsed(columns, iter(self._json))
        return parse_delimited(self._lines, self.name, "\t" if kind == "tsv" else None)


def read_table(path: str | Path) -> Table:
    """Open a table of ``.csv``, ``.tsv``, ``.tab``, ``.jsonl``, ``.ndjson``, ``.json``, ``.parquet`` or ``.xlsx``.

    The text formats may be compressed by gzip (``.csv.gz``). ``-`` is standard input, whose format is known by its content.

    A JSON file holds a list of objects or, as MONAI's datalists, one list for each split (``{"training": [...],
    "validation": [...]}``), whose name is then the column ``split`` of objects without one.

    A byte order mark, Windows line ends, quoted line breaks and a semicolon, a tab or ``|`` as the separator of a ``.csv``
    are supported. A line that is not UTF-8 is read as Windows-1252, a superset of Latin-1's letters, and a file with the byte
    order mark of UTF-16 or UTF-32 as that; see ``encoding``.

    A folder is that of images with a table ``metadata.jsonl`` (or ``.csv``, ``.parquet``), or with subfolders for the splits
    that have one each.

    Args:
        path: the file or folder.

    Returns:
        The :class:`Table`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the format is unknown, or the file has no row, repeats a column or is broken.
        medvl.utils.extras.MissingExtraError: If the format needs a package that is not installed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        from medvl.data.tables.folder import read_folder

        return read_folder(path)
    return Table(TableFile(path))
