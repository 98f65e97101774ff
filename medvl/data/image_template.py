"""Paths of images made of several columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from medvl.data.cells import CellError, is_missing, read_path_part
from medvl.data.tables import Table
from medvl.utils.checks import error_message

_LONG = re.compile(r"\d{5}")


class ImageTemplate:
    """Makes the path of each row's image, as ``{split}/{VolumeName}``.

    A name in braces is a column. A format may follow it, as that of Python's strings: ``{patient:0>5}`` fills up to five
    characters by zeros, ``{patient:.2}`` is the first two. ``{{`` and ``}}`` are braces.

    Args:
        template: the path.
        table: the table with the columns.

    Raises:
        ValueError: If the template names no column, or one that the table does not have, or is not well-formed.
    """

    def __init__(self, template: str, table: Table) -> None:
        self.text = template
        self.name = "image_template"
        self._parts: list[tuple[str, str | None, str]] = []
        for text, field, spec in template_parts(template):
            column = None if field is None else table.resolve_column(field, "image_template")
            self._parts.append((text, column, spec))

    def path(self, cells: Mapping[str, Any]) -> str | None:
        """The path of a row's image; None where a column is blank.

        Raises:
            medvl.data.cells.CellError: If a cell holds a list or an object, or does not fit its format.
        """
        made = ""
        for text, column, spec in self._parts:
            made += text
            if column is None:
                continue
            if is_missing(cells.get(column)):
                return None
            value = read_path_part(cells[column], column)
            try:
                made += format(value, spec)
            except ValueError as error:
                raise CellError(column, f"expected a text for the format {spec!r} of image_template") from error
        return made


def template_parts(template: str) -> list[tuple[str, str | None, str]]:
    """The parts of a template: a text, the column behind it (None for the end) and the column's format.

    Raises:
        ValueError: If the template names no column or is not well-formed.

    Example:
        >>> template_parts("p{patient:.2}/{dicom}.jpg")
        [('p', 'patient', '.2'), ('/', 'dicom', ''), ('.jpg', None, '')]
    """
    expected = "be a path with columns in braces, as {split}/{VolumeName}"
    try:
        parsed = list(Formatter().parse(template))
        if any(conversion for *_, conversion in parsed):
            raise ValueError("It has a conversion, as in {name!r}.")
        parts = [(text, field, spec or "") for text, field, spec, _ in parsed]
    except ValueError as error:
        raise ValueError(error_message("image_template", expected, repr(template))) from error
    if any(_LONG.search(spec) for *_, spec in parts):
        raise ValueError(error_message("image_template", "fill up to fewer than 10000 characters", repr(template)))
    if not any(field for _, field, _ in parts) or any(field is not None and not field.strip() for _, field, _ in parts):
        raise ValueError(error_message("image_template", expected, repr(template)))
    return parts
