"""A row of a table, and the names of its columns."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from medvl.data.cells import is_missing, strip_text
from medvl.data.tables.header import is_header


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Args:
        number: 1 for the first row below the header.
        line: the line of the file on which the row ends (quoted cells may hold line breaks); 0 in a file without lines.
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


class Parsed(NamedTuple):
    """One pass over a file: the names of its columns, and its rows as they are read."""

    columns: list[str]
    rows: Iterator[Row]


def column_name(cell: Any) -> str:
    """A cell of the header as the name of its column; ``""`` for a column without a name."""
    return "" if cell is None else unicodedata.normalize("NFC", strip_text(str(cell)))


def check_columns(columns: Sequence[str], name: str) -> None:
    """Raise ``ValueError`` if two columns have one name."""
    repeated = sorted(column for column, number in Counter(columns).items() if column and number > 1)
    if repeated:
        shown = (
            f"named {', '.join(map(shown_name, repeated))}"
            if is_header(columns)
            else "of one name, if its first row is a header"
        )
        raise ValueError(f"path: {name} has more than one column {shown}.")


def shown_name(name: str) -> str:
    """A name of a column as an error shows it: cut, since without a header it is a cell, which may be a report."""
    return repr(name if len(name) <= 30 else f"{name[:29]}…")


def name_cells(columns: Sequence[str], cells: Sequence[Any]) -> tuple[dict[str, Any], str]:
    """The cells of a row by their columns, and why the row cannot be read; ``""`` if it can.

    A row of the names of all columns, in whatever order, is a problem, since it is the header of a table that was put behind
    another. A cell in a column without a name is one, since it may be the end of a text with a separator; but for the first
    column, where pandas writes the numbers of rows. Cells may be missing in columns without a name at the end of the header.
    """
    if len(cells) < len(columns) and not any(columns[len(cells) :]):
        cells = [*cells, *[""] * (len(columns) - len(cells))]
    named = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
    if len(cells) != len(columns):
        hint = "; is a text with the separator not in quotes?" if len(cells) > len(columns) else ""
        return named, f"the row has {len(cells)} cells, expected {len(columns)} as in the header{hint}"
    if _is_repeated_header(named):
        return named, "the row repeats the names of the columns, as where two tables were put into one file"
    if len(named) < len(columns):
        for number, (column, cell) in enumerate(zip(columns, cells, strict=True), start=1):
            if not column and number > 1 and not is_missing(cell):
                return (
                    named,
                    f"cell {number} is in a column without a name; is a text with the separator not in quotes?",
                )
    return named, ""


def _is_repeated_header(named: Mapping[str, Any]) -> bool:
    """Whether the cells are the names of the columns; numbers are none."""
    names = set()
    for column, cell in named.items():
        name = column_name(cell) if isinstance(cell, str) else ""
        if name not in named and name.casefold() != column.casefold():
            return False  # of almost all rows the first cell says so
        names.add(name)
    return len(names) == len(named) and any(char.isalpha() for name in names for char in name)
