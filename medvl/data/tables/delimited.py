"""Rows of CSV and TSV text; a missing quote or a separator in a text without quotes is a problem, never half a row."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from medvl.data.tables.rows import Parsed, Row, check_columns, column_name, name_cells

MAX_CELL_CHARACTERS = 10_000_000
"""Characters of a cell; a longer one is the rest of a file behind a quote that is not closed."""

_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # how Excel is told
_QUOTED = re.compile(r'"[^"]*"')
_DIGITS, _LETTERS = re.compile(r"\d+"), re.compile(r"[^\W\d_]+")


def parse_delimited(lines: Iterable[str], name: str, delimiter: str | None) -> Parsed:
    """Read the header, and the rows as they are asked for.

    Args:
        lines: the lines, with their ends.
        name: the file's name, for errors.
        delimiter: between two cells; None for the one of comma, semicolon, tab and ``|`` that the first lines agree on.

    Raises:
        ValueError: If there is no header or two columns have one name; on reading rows, if a quote is not closed.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    lines = iter(lines)
    first = list(islice(lines, 1))
    skipped = 0
    if first and (stated := _SEPARATOR_LINE.fullmatch(first[0])):
        delimiter, first, skipped = stated[1], [], 1
    if delimiter is None:
        first += islice(lines, 20)
        delimiter = _find_delimiter(first)
    reader = _Records(chain(first, lines), name, delimiter, skipped)
    columns: list[str] = []
    for _, cells in reader:
        columns = list(map(column_name, cells))
        break
    check_columns(columns, name)
    return Parsed([column for column in columns if column], _rows(reader, columns))


def _rows(reader: _Records, columns: Sequence[str]) -> Iterator[Row]:
    for number, (lines, cells) in enumerate(reader, start=1):
        named, problem = name_cells(columns, cells)
        if not problem and lines > 1:
            problem = _missing_quote(columns, cells, reader)
        if not problem and reader.has_nul:
            problem = "the row holds NUL bytes"
        yield Row(number, reader.line, named, problem)


class _Records:
    """The records of a CSV text that are not blank, as the number of their lines and their cells."""

    def __init__(self, lines: Iterable[str], name: str, delimiter: str, skipped: int) -> None:
        self.name, self.delimiter, self.has_nul, self._skipped = name, delimiter, False, skipped
        self._number = -1  # of records; the header is 0
        # Strict: otherwise a quote that is never closed silently swallows the rest of the table.
        self._reader = csv.reader(self._watched(lines), delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """The line on which the last record ended."""
        return self._reader.line_num + self._skipped

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            start = self.line
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                row = f"row {self._number + 1}" if self._number >= 0 else "the header"
                raise ValueError(
                    f"path: {self.name} cannot be read as a table from {row} on (line {start + 1}): {_explain(error)}."
                ) from error
            if cells is None:
                return
            if any(cell and not cell.isspace() for cell in cells):
                self._number += 1
                yield self.line - start, cells
            self.has_nul = False

    def _watched(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if "\0" in line:
                self.has_nul = True
            yield line


def _explain(error: csv.Error) -> str:
    """What is wrong, in words."""
    text = str(error)
    if "unexpected end" in text:
        return "a quote is never closed"
    if "field larger" in text:
        return f"a cell has more than {MAX_CELL_CHARACTERS} characters, so a quote is probably not closed"
    if "expected after" in text:
        return "a quoted cell goes on behind its closing quote, so a quote is missing or not doubled"
    return text


def _find_delimiter(lines: Sequence[str]) -> str:
    """The separator of the header; where it may have several, the one by which most rows have as many cells as the header."""
    header = next((line for line in lines if line.strip()), "")
    plain = _QUOTED.sub("", header)
    found = [separator for separator in _SEPARATORS if separator in plain]
    if "|" in found and len(found) > 1:
        found.remove("|")
    if len(found) < 2:
        return found[0] if found else ","

    def agreement(separator: str) -> tuple[float, int]:
        widths: list[int] = []
        with contextlib.suppress(csv.Error):
            widths += (len(cells) for cells in csv.reader(lines, delimiter=separator) if cells)
        rows = widths[1:]
        return (sum(width == widths[0] for width in rows) / len(rows) if rows else 0, plain.count(separator))

    return max(found, key=agreement)


def _missing_quote(columns: Sequence[str], cells: Sequence[str], reader: _Records) -> str:
    """Why a record of several lines is probably several rows; ``""`` if it is not.

    A line inside a cell that has as many cells as a row, and numbers where this row has numbers, is a row: the quote before it
    is not closed, and that of a later row closed it.
    """
    for place, cell in enumerate(cells):
        inner = cell.splitlines()[1:]
        for number, line in enumerate(inner, start=1):
            if reader.delimiter not in line:
                continue
            parts = next(csv.reader([line], delimiter=reader.delimiter), [])
            last = number == len(inner)  # behind its quote, the rest of this row follows
            parts = [*parts, *cells[place + 1 :]] if last else parts
            others = [
                j for j, other in enumerate(cells) if (j < place or (j > place and not last)) and _DIGITS.search(other)
            ]
            if len(parts) != len(columns) or not others:
                continue
            if 2 * sum(_shape(parts[j]) == _shape(cells[j]) for j in others) >= len(others):
                return (
                    f"the cell in the column {columns[place]!r} holds a line that looks like a row; is a quote missing?"
                )
    return ""


def _shape(cell: str) -> str:
    """A cell with runs of digits as ``9`` and of letters as ``a``: ``a9/a9.a`` of ``p07/s12.png``."""
    return _LETTERS.sub("a", _DIGITS.sub("9", cell.strip()))
