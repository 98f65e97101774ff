"""The report of a row, from one column or several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medvl.data.cells import CellError, is_blank
from medvl.data.tables.table import Table
from medvl.text.headers import section_name
from medvl.utils.csv_files import original_text

_LANGUAGE = re.compile(r"[\s_](?:en|eng|english|text)$", re.IGNORECASE)


class ReportColumns:
    """Reads the report of each row.

    The text of one column is the report as it is. Of several, the texts follow each other, a blank line between them, each
    under a header where its column is named as a section of a report is (``findings``, ``Impression_EN``) and the text does not
    begin with one. An apostrophe that keeps a spreadsheet from running a text (:func:`~medvl.utils.csv_files.original_text`) is
    no part of it.

    Args:
        table: the table.
        columns: one or several of its columns.

    Example:
        >>> join_texts([("Findings_EN", "Clear lungs."), ("impression", "IMPRESSION: Normal."), ("remark", "Portable.")])
        'FINDINGS: Clear lungs.\\n\\nIMPRESSION: Normal.\\n\\nPortable.'
    """

    def __init__(self, table: Table, columns: str | Sequence[str]) -> None:
        named = [columns] if isinstance(columns, str) else list(columns)
        self.columns = list(dict.fromkeys(table.resolve_column(column, "report_column") for column in named))

    @property
    def name(self) -> str:
        """The columns, for errors."""
        return " + ".join(self.columns)

    def read(self, cells: Mapping[str, Any]) -> str | None:
        """The report; None where every column is blank.

        Raises:
            medvl.data.cells.CellError: If a cell holds something other than text.
        """
        texts = []
        for column in self.columns:
            cell = cells.get(column)
            if is_blank(cell):
                continue
            if not isinstance(cell, str):
                raise CellError(column, f"expected a str, got {type(cell).__name__}")
            texts.append((column, original_text(cell)))
        if len(self.columns) == 1:
            return texts[0][1] if texts else None
        return join_texts(texts) or None


def join_texts(texts: Sequence[tuple[str, str]]) -> str:
    """One report of the texts of several columns, see :class:`ReportColumns`.

    Args:
        texts: name of the column and its text.
    """
    return "\n\n".join(f"{_header(column, text)}{text.strip()}" for column, text in texts)


def _header(column: str, text: str) -> str:
    """The header of a text; ``""`` if it has one, or if its column is not named as a section is."""
    name = _LANGUAGE.sub("", column.strip()).replace("_", " ")
    begins = text.strip().partition(":")[0]
    if section_name(f"{name}:") is None or (":" in text and section_name(f"{begins}:") is not None):
        return ""
    return f"{name.upper()}: "
