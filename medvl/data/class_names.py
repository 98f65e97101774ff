"""Labels from one column of class names: several names in a cell, one class in several spellings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import (
    CellError,
    class_key,
    is_blank,
    normalize_name,
    split_cell,
    split_commas,
    strip_ends,
    strip_text,
)
from medvl.text import finding_names
from medvl.utils.checks import error_message

MAX_NAME_LENGTH = 100
"""Characters of a class name; longer cells are reports of a column that was named by mistake."""

# What joins the names of two classes; a hyphen, a colon or a stop may also be part of one (PET-CT, Lung: nodule).
_JOINTS = re.compile(r"[/\\&+\u2044\u2215]|(?<![^\s/])(?:and|or|with|plus|und|oder|mit|et|ou|avec|y|e|o|con)(?![^\s/])")

_SPACES = re.compile(r"[^\S\t]+")  # but for tabs, which may separate names


class ClassNames:
    """The classes of a column, and the label of each of its cells.

    Spellings that differ by case, white space, underscores or punctuation at their ends are one class, under its most frequent
    spelling. A comma separates names where both sides are classes: of the column's other cells, or findings of CheXpert. A
    cell whose comma may also be part of a name is an error, and so is one of classes of other cells joined by ``/``, ``&``,
    ``+``, "and", "or" and the like; with ``label_names`` there is no doubt.

    Args:
        column: name of the column.
        cells: its distinct cells, each with the number of rows that have it.
        label_names: the classes. Default: the names that occur, sorted.

    Attributes:
        names: the K classes.

    Raises:
        ValueError: If two of ``label_names`` are one class, or the cells are too long for names.
    """

    def __init__(self, column: str, cells: Sequence[tuple[Any, int]], label_names: Sequence[str] | None) -> None:
        self.column = column
        self._given = label_names is not None
        self._known: set[str] = set()
        self._occurring: set[str] = set()
        self._split_texts: dict[str, list[str]] = {}  # the cells of a column repeat
        if label_names is not None:
            names = [str(name) for name in label_names]
            self._known = {class_key(name) for name in names}
            if len(self._known) < len(names):
                raise ValueError(error_message("label_names", "name distinct classes", names))
        else:
            names = self._names_of(cells)
        self.names = tuple(names)
        self._index = {class_key(name): number for number, name in enumerate(names)}

    def parse(self, cell: Any) -> NDArray[np.float32] | None:
        """The label of a cell: float32 (K,), 1 for its classes and 0 for the others; None if it names none.

        Raises:
            CellError: If the cell has an unknown name or cannot be split into names.
        """
        label = np.zeros(len(self.names), dtype=np.float32)
        for name in self._split(cell):
            if class_key(name) not in self._index:
                reason = f"the label is not one of the {len(self.names)} names {', '.join(self.names)}"
                raise CellError(self.column, reason)
            label[self._index[class_key(name)]] = 1
        return label if label.any() else None

    def _names_of(self, cells: Sequence[tuple[Any, int]]) -> list[str]:
        """The names that occur, each in its most frequent spelling."""
        whole, with_comma = _collect(cells, self.column)
        parts = Counter(key for cell in with_comma for key in {class_key(part) for part in split_commas(cell)})
        self._occurring = {class_key(name) for name in whole} | {key for key, number in parts.items() if number > 1}
        self._known = self._occurring | {class_key(name) for name in finding_names("chexpert14")}
        spellings: dict[str, Counter[str]] = {}
        longest = 0
        for cell, number in cells:
            try:
                names = self._split(cell)
            except CellError:
                longest = max(longest, len(str(cell)))
                continue
            for name in names:
                spellings.setdefault(class_key(name), Counter())[strip_ends(name)] += number
                longest = max(longest, len(name))
        if longest > MAX_NAME_LENGTH:  # the text itself may be a report
            expected = f"name a column of class names of at most {MAX_NAME_LENGTH} characters"
            received = f"{self.column!r} with texts of up to {longest} characters"
            raise ValueError(error_message("label_column", expected, received))
        return sorted(min(found, key=lambda name: (-found[name], name)) for found in spellings.values())

    def _split(self, cell: Any) -> list[str]:
        """The class names in a cell."""
        if not isinstance(cell, str):
            return self._split_new(cell)
        if cell not in self._split_texts:
            self._split_texts[cell] = self._split_new(cell)
        return self._split_texts[cell]

    def _split_new(self, cell: Any) -> list[str]:
        if self._given and isinstance(cell, str) and class_key(cell) in self._known:
            return [cell]
        parts, is_list = split_cell(cell, self.column)
        names: list[str] = []
        for part in parts:
            name = _name(part)
            if self._given and class_key(name) in self._known:
                names.append(name)
            elif is_blank(name):
                continue
            elif not is_list and self._joins_classes(name):
                reason = (
                    "a name that joins other classes, as by / or 'and', may be one class or several; separate names by | or ;, "
                    "or give label_names"
                )
                raise CellError(self.column, reason)
            elif is_list or len(split := split_commas(name)) < 2:
                names.append(name)
            elif all(class_key(one) in self._known for one in split):
                names += split
            elif self._given:
                names.append(name)
            else:
                reason = "a name with a comma or tab may be one class or several; separate names by | or ;, or give label_names"
                raise CellError(self.column, reason)
        return names

    def _joins_classes(self, name: str) -> bool:
        """Whether a name consists of several that are classes of other cells."""
        parts = [class_key(part) for part in _JOINTS.split(normalize_name(name)) if not is_blank(part)]
        return len(parts) > 1 and self._occurring.issuperset(parts)


def _collect(cells: Sequence[tuple[Any, int]], column: str) -> tuple[list[str], set[str]]:
    """The names without a comma or from a list, and the distinct texts with one."""
    whole: list[str] = []
    with_comma: set[str] = set()
    for cell, _ in cells:
        try:
            parts, is_list = split_cell(cell, column)
        except CellError:
            continue  # an error of its row
        for name in map(_name, parts):
            if is_blank(name):
                continue
            if is_list or len(split_commas(name)) < 2:
                whole.append(name)
            else:
                with_comma.add(name)
    return whole, with_comma


def _name(part: Any) -> str:
    """A part of a label as a name: ``2`` for 2.0, and ``""`` for null."""
    if part is None or (isinstance(part, float) and part != part):
        return ""
    if isinstance(part, float) and part.is_integer():
        return str(int(part))
    return _SPACES.sub(" ", strip_text(str(part)))
