"""The columns that splits, patients and studies are read from where none are named."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import islice
from typing import Any

from medvl.data.cells import is_missing, normalize_name, strip_text
from medvl.data.tables import Table

logger = logging.getLogger(__name__)

_DEFAULTS = {
    "patient_column": ("patient_id", "patient", "subject_id"),
    "study_column": ("study_id", "study"),
    "split_column": ("split",),
}
#: Names that mean nothing else in any spelling: the id of a study may be a trial's or a participant's, a single word anything.
_IN_ANY_SPELLING = ("patient_id", "subject_id", "split")

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_ROWS = 100
"""Rows by which a column that may hold splits is noticed."""


def split_name(cell: Any) -> str | None:
    """``train``, ``val`` or ``test`` for a cell that says so; None for any other."""
    return _SPLIT_NAMES.get(strip_text(str(cell)).lower())


def default_column(table: Table, argument: str) -> str | None:
    """The column of patients, studies or splits where none is named.

    It is the first of the usual names that the table has. If it has none of them, ``PatientID``, ``Subject ID`` and the like
    are taken in whatever case, spaces and signs, and so is ``Split`` if all of its cells name a split.

    Args:
        table: the table.
        argument: ``"patient_column"``, ``"study_column"`` or ``"split_column"``.

    Returns:
        The column; None if there is none.

    Raises:
        ValueError: If it is not certain which column is meant, since the names of two differ only in case, spaces or signs.
    """
    names = _DEFAULTS[argument]
    if (column := table.find_column(names, argument)) is not None:
        return column
    for name in filter(_IN_ANY_SPELLING.__contains__, names):
        alike = columns_like(table, name)
        if argument == "split_column":
            alike = [column for column in alike if _holds_splits(table, column)]
        if len(alike) > 1:
            raise ValueError(
                f"{argument}: {table.name} has the columns {alike[0]!r} and {alike[1]!r}, whose names differ only in case, "
                "spaces or signs; rename one."
            )
        if alike:
            return alike[0]
    return None


def warn_of_unused(table: Table, argument: str, column: str | None, used: Collection[str | None]) -> None:
    """Warn of columns that may be meant and are not used: their names differ from a usual one only in case, spaces or signs, or
    their first cells name splits.

    Args:
        table: the table.
        argument: what the columns would be, as for :func:`default_column`, or ``"image_column"`` or ``"report_column"``.
        column: what is used; None if none is.
        used: columns that are something else.
    """
    names = _DEFAULTS.get(argument) or (table.default_columns[argument],)
    if column is not None:
        names = (column,) if column in _IN_ANY_SPELLING else ()
    unused = {other: f", since its name is not {name!r}" for name in names for other in columns_like(table, name)}
    if argument == "split_column" and column is None:
        unused = dict.fromkeys([*unused, *_seeming_splits(table)], "; it may hold splits")
    for other, reason in unused.items():
        if other != column and other not in used:
            logger.warning("%s: the column %r is not used as %s%s.", table.name, other, argument, reason)


def columns_like(table: Table, name: str) -> list[str]:
    """The columns whose names have the letters and digits of this one."""
    return [column for column in table.columns if _letters_and_digits(column) == _letters_and_digits(name)]


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, normalize_name(name)))


def _holds_splits(table: Table, column: str) -> bool:
    """Whether every cell names a split."""
    return all(split_name(cell) is not None for cell in table.cells(column))


def _seeming_splits(table: Table) -> list[str]:
    """The columns whose first cells that are not missing name splits."""
    found = dict.fromkeys(table.columns, False)
    for row in islice(table, _ROWS):
        for column in list(found):
            cell = row.cells.get(column)
            if split_name(cell) is not None:
                found[column] = True
            elif not is_missing(cell):
                del found[column]
    return [column for column, names_one in found.items() if names_one]
