"""What an error may show of a table's first row: names of columns, and never the cells of a row of data."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHOWN, _LENGTH = 30, 30
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# Words of which the names of columns are made, and the cells of studies are not.
_HEADER_TEXT = """
accession age caption class col column date description dicom exam file filename finding findings gender height id ids
image images img impression index indication join key label labels mask masks mrn name number path paths patient patients
person projection race reason report reports row section sex site source split study studies subject text texts time title
uid url view weight width year bericht befund beurteilung patientin geschlecht alter datum
"""
_HEADER_WORDS = frozenset(_HEADER_TEXT.split())


def is_header(columns: Sequence[str]) -> bool:
    """Whether a first row is surely one of names: some cell of it consists of the words of such names alone.

    Example:
        >>> is_header(["PatientID", "y"]), is_header(["Smith, John", "No effusion."])
        (True, False)
    """
    return any(map(_is_name, columns))


def _is_name(cell: str) -> bool:
    words = [word for word in _WORD.findall(cell) if not word.isdigit()]
    return bool(words) and not re.search(r"[.!?]", cell) and all(word.lower() in _HEADER_WORDS for word in words)


def describe_columns(columns: Sequence[str]) -> str:
    """The columns for an error, or that they are not shown, since the table may have no header.

    Example:
        >>> describe_columns(["image", "x"]), describe_columns(["a.png", "No effusion."])
        ('its columns are image, x', 'its first row has 2 cells and may be no header, so that it is not shown')
    """
    if not is_header(columns):
        return f"its first row has {len(columns)} cells and may be no header, so that it is not shown"
    names = ", ".join("".join(c if c.isprintable() else "?" for c in name[:_LENGTH]) for name in columns[:_SHOWN])
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"its columns are {names}{more}"
