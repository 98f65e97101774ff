"""The columns that splits, patients and studies are read from where none are named."""

from __future__ import annotations

import logging
from typing import Any

from medvl.data.cells import is_missing, normalize_name, strip_text
from medvl.data.tables import Table

logger = logging.getLogger(__name__)

_DEFAULTS = {
    "patient_column": ("patient_id", "patient", "subject_id"),
    "study_column": ("study_id", "study"),
    "split_column": ("split",),
}

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


def split_name(cell: Any) -> str | None:
    """``train``, ``val`` or ``test`` for a cell that says so; None for any other."""
    return _SPLIT_NAMES.get(strip_text(str(cell)).lower())


def default_column(table: Table, argument: str) -> str | None:
    """The column of patients, studies or splits where none is named.

    It is the first of the usual names that the table has. If it has none of them, a name of two words is taken in whatever
    case, spaces and signs (``PatientID``), and ``Split`` if it holds nothing but names of splits. A single word in another
    spelling may mean something else (``Study``, with the names of trials), so it is not used, and a warning says so.

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
    for name in names:
        if "_" in name or argument == "split_column":
            found = [column for column in columns_like(table, name) if "_" in name or _holds_splits(table, column)]
            if len(found) > 1:
                raise ValueError(
                    f"{argument}: {table.name} has the columns {found[0]!r} and {found[1]!r}, whose names differ only in "
                    "case, spaces or signs; rename one."
                )
            if found:
                return found[0]
    warn_of_unused(table, names, argument)
    return None


def warn_of_unused(table: Table, names: tuple[str, ...], argument: str) -> None:
    """Warn if the table has a column that is not used, though its name differs only in case, spaces or signs from one of these.

    Args:
        table: the table.
        names: those that would be used.
        argument: what names another column.
    """
    for name in names:
        for column in columns_like(table, name):
            logger.warning(
                "%s: the column %r is not used, since its name is not %r; if it is meant, name it as %s.",
                table.name,
                column,
                name,
                argument,
            )


def columns_like(table: Table, name: str) -> list[str]:
    """The columns whose names have the letters and digits of this one."""
    return [column for column in table.columns if _letters_and_digits(column) == _letters_and_digits(name)]


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, normalize_name(name)))


def _holds_splits(table: Table, column: str) -> bool:
    """Whether each cell is missing or names a split, and one does."""
    named = [split_name(cell) is not None for cell in table.cells(column) if not is_missing(cell)]
    return bool(named) and all(named)
