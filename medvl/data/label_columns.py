"""Finding states from the cells of a table: 1 present, 0 absent, -1 uncertain, NaN not mentioned."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.tables import Table
from medvl.text import load_vocabulary
from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError

CHEXPERT_FINDINGS = load_vocabulary("chexpert14").names
"""The 14 findings in the order of CheXpert's CSV files; other projects order them differently, so match by name."""

MAX_NAME_LENGTH = 100
"""Characters of a class name; longer cells are reports of a column that was named by mistake."""

MISSING = frozenset({"", "nan", "none", "null", "n/a", "<na>"})

_STATE_WORDS = {"true": 1.0, "false": 0.0}  # as pandas writes booleans
_STATES = {"": math.nan, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}  # the usual cells, fast


class CellError(ValueError):
    """A cell that cannot be used: its column, and what was expected and found."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


@dataclass(frozen=True)
class LabelReader:
    """Turns a row's cells into its label.

    Args:
        names: finding names in the order of the label; empty for an unnamed list of numbers.
        parse: cells to float32 states (K,), or None if the row has no label; raises :class:`CellError`.
    """

    names: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], NDArray[np.float32] | None]


def is_missing(cell: Any) -> bool:
    """Whether a cell is empty: absent, null, NaN, white space, or a word such as "nan" or "none"."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return isinstance(cell, str) and cell.strip().lower() in MISSING


def label_reader(
    table: Table, label_column: str | Sequence[str] | None, label_names: Sequence[str] | None = None
) -> LabelReader | None:
    """Determine, once for the whole table, how its labels are written.

    Args:
        table: the table.
        label_column: one column a finding (a list), one column for all (a name), or None for the CheXpert columns if
            the table has at least two of them.
        label_names: finding names if one column holds all labels; fixes their order and number.

    Returns:
        The reader, or None if the table has no labels.
    """
    if label_column is None:
        by_key = {normalize_name(column): column for column in table.columns}
        found = {name: by_key[normalize_name(name)] for name in CHEXPERT_FINDINGS if normalize_name(name) in by_key}
        return _state_columns(found) if len(found) >= 2 else None
    if not isinstance(label_column, str) and len(label_column) == 1:
        label_column = label_column[0]
    if not isinstance(label_column, str):
        if label_names is not None and len(label_names) != len(label_column):
            expected = f"have {len(label_column)} names, one for each label column"
            raise ValueError(error_message("label_names", expected, len(label_names)))
        columns = [table.resolve_column(column, "label_column") for column in label_column]
        if not columns or len(set(columns)) != len(columns):
            raise ValueError(error_message("label_column", "name distinct columns", columns))
        return _state_columns(dict(zip(label_names or columns, columns, strict=True)))
    column = table.resolve_column(label_column, "label_column")
    cells = [tokens for row in table.rows if (tokens := _tokens(row.cells.get(column))) is not None]
    numeric = sum(map(_is_numeric, cells))
    by_name = any(str(token).strip() in (label_names or ()) for tokens in cells for token in tokens)
    if cells and not by_name and 2 * numeric >= len(cells):
        return _state_list(column, cells, label_names)
    return _class_names(column, cells, label_names)


def parse_states(row: Mapping[str, str | None], names: Sequence[str], study_id: str) -> NDArray[np.float32]:
    """Finding states from the cells of a row, by column name; a column that the row lacks is not mentioned.

    Args:
        row: column to cell, as :class:`csv.DictReader` gives it.
        names: columns to read, in the order of the result.
        study_id: for the error.

    Returns:
        float32 (K,): 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        medvl.utils.errors.StudyError: If a cell is not 1, 0, -1 or blank, or the row ends before it.

    Example:
        >>> parse_states({"Edema": "-1.0", "Fracture": ""}, ["Fracture", "Edema"], "s1").tolist()
        [nan, -1.0]
    """
    states = []
    for name in names:
        cell = row.get(name, "")
        if cell is None:  # what DictReader fills a truncated row with
            raise StudyError(study_id, name, "the row ends before this column")
        try:
            states.append(_state(cell, name))
        except CellError as error:
            raise StudyError(study_id, name, error.reason) from error
    return np.array(states, dtype=np.float32)


def normalize_name(name: str) -> str:
    """A column or finding name without its case, underscores and extra white space.

    Example:
        >>> normalize_name("Pleural_Effusion ")
        'pleural effusion'
    """
    return " ".join(name.replace("_", " ").lower().split())


def match_names(names: Sequence[str], order: Sequence[str]) -> list[int]:
    """The index in ``order`` of each name, whatever its case and underscores; -1 for a name that is not there."""
    index_of = {normalize_name(name): i for i, name in enumerate(order)}
    return [index_of.get(normalize_name(name), -1) for name in names]


def reorder_states(states: NDArray[np.float32], columns: Sequence[int], width: int) -> NDArray[np.float32]:
    """States (..., K) as (..., width), the k-th in column ``columns[k]`` and NaN in the other columns."""
    out = np.full((*np.shape(states)[:-1], width), np.nan, dtype=np.float32)
    out[..., list(columns)] = states
    return out


def _state_columns(columns: Mapping[str, str]) -> LabelReader:
    def parse(cells: Mapping[str, Any]) -> NDArray[np.float32] | None:
        return _vector([_state(cells.get(column), column) for column in columns.values()])

    return LabelReader(tuple(columns), parse)


def _state_list(column: str, cells: Sequence[Sequence[Any]], label_names: Sequence[str] | None) -> LabelReader:
    # The expected width is that of most rows, not that of the first.
    widths = Counter(len(tokens) for tokens in cells if _is_numeric(tokens))
    width = len(label_names) if label_names is not None else widths.most_common(1)[0][0]
    names = tuple(label_names) if label_names is not None else (column,) if width == 1 else ()
    source = "one for each name" if label_names is not None else "as in most rows"

    def parse(row: Mapping[str, Any]) -> NDArray[np.float32] | None:
        tokens = _tokens(row.get(column))
        if tokens is None:
            return None
        if len(tokens) != width:
            raise CellError(column, f"the label has {len(tokens)} values, expected {width} {source}")
        return _vector([_state(token, column) for token in tokens])

    return LabelReader(names, parse)


def _class_names(column: str, cells: Iterable[Sequence[Any]], label_names: Sequence[str] | None) -> LabelReader:
    texts = (token for tokens in cells for token in tokens if isinstance(token, str | int | float))
    present = {str(text).strip() for text in texts if not is_missing(text)}
    longest = max(map(len, present), default=0)
    if label_names is None and longest > MAX_NAME_LENGTH:  # the text itself may be a report
        expected = f"name a column of class names of at most {MAX_NAME_LENGTH} characters"
        raise ValueError(
            error_message("label_column", expected, f"{column!r} with texts of up to {longest} characters")
        )
    names = tuple(label_names) if label_names is not None else tuple(sorted(present))
    index_of = {name: i for i, name in enumerate(names)}

    def parse(row: Mapping[str, Any]) -> NDArray[np.float32] | None:
        tokens = _tokens(row.get(column))
        if tokens is None:
            return None
        label = np.zeros(len(names), dtype=np.float32)
        for token in tokens:
            if is_missing(token):
                continue
            if str(token).strip() not in index_of:
                raise CellError(column, f"the label is not one of the {len(names)} names {', '.join(names)}")
            label[index_of[str(token).strip()]] = 1
        return label if label.any() else None

    return LabelReader(names, parse)


def _tokens(cell: Any) -> list[Any] | None:
    """The parts of a cell that holds a whole label; None for a cell without one."""
    if isinstance(cell, str) and cell.strip().startswith("["):
        with contextlib.suppress(ValueError):
            cell = json.loads(cell)
    if isinstance(cell, list):
        return cell or None
    if is_missing(cell):
        return None
    if not isinstance(cell, str):
        return [cell]
    tokens = [token.strip() for token in re.split(r"[;|]", cell)]
    if len(tokens) == 1 and "," in cell and _is_numeric(cell.split(",")):
        return cell.split(",")
    return tokens


def _is_numeric(tokens: Sequence[Any]) -> bool:
    given = [token for token in tokens if not is_missing(token)]
    return all(_number(token) is not None for token in given)


def _number(token: Any) -> float | None:
    if isinstance(token, list | dict):
        return None
    if isinstance(token, str) and (word := token.strip().lower()) in _STATE_WORDS:
        return _STATE_WORDS[word]
    try:
        return float(token)
    except ValueError:
        return None


def _state(token: Any, column: str) -> float:
    if isinstance(token, str) and token in _STATES:
        return _STATES[token]
    if is_missing(token):
        return math.nan
    value = _number(token)
    if value is None or value not in (1.0, 0.0, -1.0):
        # The text itself is not shown: the column may be that of the reports by mistake.
        received = "a text" if value is None else f"{value:g}"
        raise CellError(
            column, f"expected 1 (present), 0 (absent), -1 (uncertain) or blank (not mentioned), got {received}"
        )
    return value


def _vector(states: Sequence[float]) -> NDArray[np.float32] | None:
    label = np.asarray(states, dtype=np.float32)
    return None if np.isnan(label).all() else label
