"""A table with the columns of others, joined by a key."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medvl.data.cells import CellError, is_missing, read_id, strip_text
from medvl.data.tables.rows import Row
from medvl.data.tables.table import Progress, Table, read_table
from medvl.utils.checks import error_message
from medvl.utils.counts import count_of

logger = logging.getLogger(__name__)


class Join(NamedTuple):
    """What is joined.

    Args:
        path: the other table.
        key: the column of the first table whose cells say which row of the other belongs to a row.
        other_key: the column of the other table with the same ids, each in one row.
    """

    path: str
    key: str
    other_key: str


def parse_join(text: str) -> Join:
    """Parse ``TABLE:KEY`` or ``TABLE:KEY=KEY_OF_THE_OTHER``.

    Raises:
        ValueError: If it is not of that form.

    Example:
        >>> parse_join("labels.csv:VolumeName"), parse_join("labels.csv:study=id")
        (Join(path='labels.csv', key='VolumeName', other_key='VolumeName'),
         Join(path='labels.csv', key='study', other_key='id'))
    """
    path, colon, keys = text.rpartition(":")
    key, sign, other = keys.partition("=")
    if not colon or not path.strip() or not key.strip() or (sign and not other.strip()):
        raise ValueError(error_message("join", "be TABLE:KEY or TABLE:KEY=KEY_OF_TABLE", repr(text)))
    return Join(path.strip(), key.strip(), (other if sign else key).strip())


def absolute_join(text: str) -> str:
    """The same join from any folder."""
    path, key, other = parse_join(text)
    return f"{os.path.abspath(os.path.expanduser(path))}:{key}" + (f"={other}" if other != key else "")


class JoinedTable(Table):
    """A table whose rows have the cells of another table's row of the same key.

    Several rows may have one key, but in the other table each key is in one row. Keys are compared as ids are: ``7``, ``7.0``
    and ``="7"`` are one. A row without a row in the other table, or with a key that is no id, has blank cells in its columns,
    and is counted in ``unmatched``; a warning counts the keys of the other table that are no ids. A column that both tables
    have is a problem of the rows where they differ.

    Args:
        table: the first table.
        join: the other table and the keys.

    Raises:
        ValueError: If a key is no column of its table, or is in several rows of the other table; on iterating, if no row has a
            row in the other table.
    """

    def __init__(self, table: Table, join: Join) -> None:
        self._table = table
        self.path, self.name, self.folder, self.is_metadata = table.path, table.name, table.folder, table.is_metadata
        other = read_table(join.path)
        self._other_name = other.name
        self._key = table.resolve_column(join.key, "join")
        other_key = other.resolve_column(join.other_key, "join")
        self._added = [column for column in other.columns if column != other_key or other_key not in table.columns]
        self._common = [column for column in self._added if column in table.columns]
        self.columns = (*table.columns, *(column for column in self._added if column not in table.columns))
        self._rows = self._by_key(other, other_key)
        self._unmatched = 0

    def _by_key(self, other: Table, key: str) -> dict[str, tuple[Any, ...]]:
        rows: dict[str, tuple[Any, ...]] = {}
        bad: list[CellError] = []
        places: dict[str, int] = {}
        repeated: dict[str, int] = {}
        known: dict[Any, Any] = {}  # one object for each short text, of which labels and splits have few
        for row in other:
            if row.problem:
                raise ValueError(f"join: {other.name}, {row.position}: {row.problem}.")
            try:
                value = read_id(row.cells.get(key), key)
            except CellError as error:
                bad.append(error)
                continue
            if not value:
                continue
            if value in rows:
                repeated.setdefault(value, row.number)
            cells = (row.cells.get(column) for column in self._added)
            rows[value] = tuple(known.setdefault(c, c) if isinstance(c, str) and len(c) < 9 else c for c in cells)
            places.setdefault(value, row.number)
        if bad:
            logger.warning(
                "join: %s has %s in the column %r; the first: %s.",
                other.name,
                count_of(len(bad), "key that is no id", "keys that are no ids"),
                key,
                bad[0].reason,
            )
        if repeated:
            first, second = next(iter(repeated.items()))
            raise ValueError(
                error_message(
                    f"join: {other.name}",
                    f"have each key of the column {key!r} in one row",
                    f"{len(repeated)} in several, the first in the rows {places[first]} and {second}",
                )
            )
        return rows

    def __iter__(self) -> Iterator[Row]:
        self._unmatched = rows = 0
        blank = (None,) * len(self._added)
        for row in self._table:
            rows += 1
            try:
                found = self._rows.get(read_id(row.cells.get(self._key), self._key))
            except CellError:
                found = None
            self._unmatched += found is None
            values = dict(zip(self._added, blank if found is None else found, strict=True))
            problem = row.problem
            for column in self._common:
                own, joined = row.cells.get(column), values.pop(column)
                if is_missing(own) or is_missing(joined):
                    values[column] = joined if is_missing(own) else own
                elif not problem and strip_text(str(own)) != strip_text(str(joined)):
                    problem = f"the column {column!r} differs between the table and {self._other_name}"
            yield Row(row.number, row.line, {**row.cells, **values}, problem)
        if rows and self._unmatched == rows:
            raise ValueError(
                f"join: no row of {self.name} has a row in {self._other_name} by the column {self._key!r}."
            )

    @property
    def encoding(self) -> str:
        """What the lines of the first table were read as."""
        return self._table.encoding

    @property
    def progress(self) -> Progress:
        """How much of the first table has been read."""
        return self._table.progress

    @property
    def unmatched(self) -> Counter[str]:
        """By the name of each joined table, the rows of the last iteration that have no row in it."""
        return self._table.unmatched + Counter({self._other_name: self._unmatched})


def read_joined_table(path: str | Path, joins: str | Sequence[str] = ()) -> Table:
    """A table with the columns of others.

    Args:
        path: the table, as for :func:`read_table`.
        joins: one or several ``TABLE:KEY`` or ``TABLE:KEY=KEY_OF_TABLE``.

    Returns:
        The :class:`Table`; a :class:`~medvl.data.tables.join.JoinedTable` if there are joins.
    """
    table = read_table(path)
    for join in [joins] if isinstance(joins, str) else joins or ():
        table = JoinedTable(table, parse_join(join))
    return table
