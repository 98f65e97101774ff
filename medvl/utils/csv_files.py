"""CSV files that a spreadsheet opens without running what their cells hold."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

_UNSEEN = r"[\s\x00-\x1f\x7f-\x9f\xad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\u2800\ufeff]"
"""What a program may leave out at the beginning of a cell: white space, control characters, a mark of the byte order."""

_SIGNS = "=+@\uff0b\uff0d\uff1d\uff20\ufe62\ufe63\ufe66\ufe6b\u207a\u207b\u207c-"
_FORMULA = re.compile(rf"{_UNSEEN}*[{_SIGNS}]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def spreadsheet_cell(value: Any) -> Any:
    """A cell as a spreadsheet shows it: a text that it would run as a formula gets an apostrophe before it.

    These are texts that begin with ``=``, ``+``, ``-`` or ``@``, their full-width, small and raised forms, also behind
    characters that are not seen, or with a tab or line break, and that are no number. Other values are returned as they are.

    Example:
        >>> [spreadsheet_cell(value) for value in ("=1+2", "-1", "- no effusion", -1, "a=b")]
        ["'=1+2", '-1', "'- no effusion", -1, 'a=b']
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def original_text(text: str) -> str:
    """The text that :func:`spreadsheet_cell` put an apostrophe before; any other text as it is.

    A text between apostrophes is taken for a quoted one, and also returned as it is.

    Example:
        >>> [original_text(text) for text in ("'-1.png", "'- no effusion", "'70s", "'-a'", "-1")]
        ['-1.png', '- no effusion', "'70s", "'-a'", '-1']
    """
    if text[:1] != "'" or text[-1] == "'":
        return text
    return text[1:] if spreadsheet_cell(text[1:]) == text else text


class CsvWriter:
    """Write the rows of a CSV file, lines ended by a line feed.

    Args:
        file: a text file, opened with ``newline=""``.
        raw: write every cell as it is. By default each is written by :func:`spreadsheet_cell`, names of columns included.
        delimiter: the separator of cells.

    Example:
        >>> import sys
        >>> CsvWriter(sys.stdout).write_rows([["study_id", "Edema"], ["@SUM(1)", "-1"]])
        study_id,Edema
        '@SUM(1),-1
    """

    def __init__(self, file: IO[str], raw: bool = False, delimiter: str = ",") -> None:
        self.raw = raw
        self._writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")

    def write_row(self, cells: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow(cells if self.raw else map(spreadsheet_cell, cells))

    def write_rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write several rows."""
        for row in rows:
            self.write_row(row)
