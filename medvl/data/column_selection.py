"""The options of reading a table that are given once, and that each table takes as far as it can."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvl.data.default_columns import warn_of_unused
from medvl.data.image_template import template_parts
from medvl.data.tables import Table, read_joined_table, read_table
from medvl.data.tables.join import absolute_join, parse_join

#: Options of :func:`~medvl.data.read_manifest` that hold for one table and not for another with the same columns.
OF_ONE_TABLE = ("image_root", "join")
_OF_EVERY_TABLE = ("label_names", "image_root", "image_suffix")


def applicable_options(options: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Any], Table]:
    """The options that a table can take, and the table with what is joined to it.

    Args:
        options: arguments of :func:`~medvl.data.read_manifest` that name columns or say where images are.
        path: the table.
    """
    own = read_table(path)
    joins = [join for join in listed(options.get("join")) if parse_join(join).key in own.columns]
    table = read_joined_table(path, joins) if joins else own
    present = set(table.columns)
    found = {
        name: value
        for name, value in options.items()
        if value is not None
        and name != "join"
        and (name in _OF_EVERY_TABLE or set(_columns_of(name, value)) <= present)
    }
    return {**found, **({"join": joins} if joins else {})}, table


def missing_columns(options: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """Arguments that say of a table without images or without reports that it has none."""
    missing = {
        argument: None
        for argument, default in table.default_columns.items()
        if argument not in options
        and default not in table.columns
        and not (argument == "image_column" and "image_template" in options)
    }
    named = [column for name, value in options.items() if name.endswith("_column") for column in listed(value)]
    for argument in missing:
        warn_of_unused(table, argument, None, named)
    return missing


def absolute_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options from any folder: paths are absolute, "~" is the home folder."""
    out = dict(options)
    if out.get("image_root"):
        out["image_root"] = os.path.abspath(os.path.expanduser(out["image_root"]))
    if out.get("join"):
        out["join"] = list(map(absolute_join, listed(out["join"])))
    return out


class ColumnSelection:
    """Options that are given once for several tables; each table takes those whose columns it has.

    Args:
        options: arguments of :func:`~medvl.data.read_manifest` that name columns or say where images are; those that are None
            are ignored.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = {argument: value for argument, value in options.items() if value is not None}
        self._found: set[str] = set()
        self._tables: list[str] = []

    def for_table(self, path: str | Path) -> tuple[dict[str, Any], Table]:
        """The arguments whose columns this table has, and the table."""
        found, table = applicable_options(self.options, path)
        self._tables.append(table.name)
        self._found |= set(found)
        return found, table

    def check_all_found(self) -> None:
        """Raise ``ValueError`` if a column is in none of the tables."""
        for argument, value in self.options.items():
            if argument not in self._found and value not in ("", [], ()):
                tables = ", ".join(self._tables) or "any source (public data sets have columns of their own)"
                if argument in _OF_EVERY_TABLE:
                    raise ValueError(f"{argument}: there is no table among the sources to apply it to.")
                what = value if argument not in ("join", "image_template") else _columns_of(argument, value)
                raise ValueError(f"{argument}: there is no column {what!r} in {tables}.")


def _columns_of(argument: str, value: Any) -> Iterable[str]:
    """The columns that an option names."""
    if argument == "image_template":
        return [field for _, field, _ in template_parts(value) if field is not None]
    if argument == "join":
        return [parse_join(join).key for join in listed(value)]
    return listed(value)


def listed(value: Any) -> list[str]:
    """The names of an option that takes one, several or none."""
    return [value] if isinstance(value, str) else list(value or ())
