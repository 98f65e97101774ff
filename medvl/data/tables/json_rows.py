"""Rows of JSON and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from medvl.data.tables.rows import Parsed, Row

_NO_OBJECT = "is not a JSON object; expected {...} with one key a column"


def parse_json(text: str, name: str) -> Parsed:
    """Read a list of objects or, as MONAI's datalists, one list for each split, whose name is then the cell ``split``.

    Raises:
        ValueError: If the text is not JSON, or holds no list of objects.
    """
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"path: {name} is not valid JSON ({_reason(error)}).") from error
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
    rows = [
        Row(number, 0, entry) if isinstance(entry, dict) else Row(number, 0, {}, f"it {_NO_OBJECT}")
        for number, entry in enumerate(value, start=1)
    ]
    return Parsed(list(dict.fromkeys(column for row in rows for column in row.cells)), iter(rows))


def parse_json_lines(lines: Iterable[str]) -> Iterator[Row]:
    """Read one object a line; blank lines are passed over."""
    number = 0
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number += 1
        cells: dict[str, Any] = {}
        problem = ""
        try:
            value = _loads(line)
            if isinstance(value, dict):
                cells = value
            else:
                problem = f"the line {_NO_OBJECT}"
        except (ValueError, RecursionError) as error:
            problem = f"the line is not valid JSON ({_reason(error)})"
        yield Row(number, line_number, cells, problem)


def json_columns(rows: Iterable[Row], name: str) -> list[str]:
    """Every key that occurs, in order of appearance.

    Raises:
        ValueError: If no row is an object.
    """
    columns: dict[str, None] = {}
    first = None
    for row in rows:
        columns.update(dict.fromkeys(row.cells))
        first = first or row
    if not columns:
        reason = f"; {first.position}: {first.problem}" if first is not None and first.problem else ""
        raise ValueError(f"path: {name} has no line that is a JSON object{reason}.")
    return list(columns)


class _DuplicateKeyError(ValueError):
    msg = "one key is given twice"


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that is given twice would be lost once."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _DuplicateKeyError
    return value


def _reason(error: BaseException) -> str:
    """Only the decoder's message: the error's document, the line, may be a patient's report."""
    return getattr(error, "msg", type(error).__name__)
