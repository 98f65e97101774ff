"""Finding states from the cells of a table: 1 present, 0 absent, -1 uncertain, NaN not mentioned."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import CellError, class_key, describe_cell, is_missing, normalize_name, split_cell
from medvl.data.class_names import ClassNames
from medvl.data.tables import Table
from medvl.text import finding_names
from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError

CHEXPERT_FINDINGS = finding_names("chexpert14")
"""The 14 findings in the order of CheXpert's CSV files; other projects order them differently, so match by name."""

_STATE_WORDS = {"true": 1.0, "false": 0.0}  # as pandas writes booleans
_ANSWERS = frozenset(
    {"yes", "no", "y", "n", "t", "f", "positive", "negative", "pos", "neg", "present", "absent", "maybe"}
    | {"uncertain", "unclear", "possible", "equivocal", "not mentioned", "+", "-"}
)
"""Words that say whether a finding is present, which are no names of classes."""

_NO_NAME = re.compile(r"[<>~]?\s*[+-]?\d+([.,]\d+)?\s*%|\d{4}-\d\d?-\d\d?(t.*| .*)?|\d\d?[./]\d\d?[./]\d{2,4}")
"""A percentage or a date."""

_AMBIGUOUS = re.compile(r"\s*[+-]?[01],0+\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_STATES = {"": math.nan, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}  # the usual cells, fast


@dataclass(frozen=True)
class LabelReader:
    """Turns a row's cells into its label.

    Args:
        names: finding names in the order of the label; empty for an unnamed list of numbers.
        width: K, the number of findings.
        parse: cells to float32 states (K,), or None if the row has no label; raises :class:`CellError`.
    """

    names: tuple[str, ...]
    width: int
    parse: Callable[[Mapping[str, Any]], NDArray[np.float32] | None]


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
        by_key: dict[str, list[str]] = {}
        for column in table.columns:
            by_key.setdefault(normalize_name(column), []).append(column)
        found = {name: by_key[normalize_name(name)] for name in CHEXPERT_FINDINGS if normalize_name(name) in by_key}
        if len(found) < 2:
            return None
        for name, columns in found.items():
            if len(columns) > 1:
                given = ", ".join(map(repr, columns))
                raise ValueError(f"{table.name} has {len(columns)} columns of the finding {name}: {given}.")
        return _state_columns({name: columns[0] for name, columns in found.items()})
    if not isinstance(label_column, str) and len(label_column) == 1:
        label_column = label_column[0]
    if not isinstance(label_column, str):
        if label_names is not None and len(label_names) != len(label_column):
            expected = f"have {len(label_column)} names, one for each label column"
            raise ValueError(error_message("label_names", expected, len(label_names)))
        columns = [table.resolve_column(column, "label_column") for column in label_column]
        for argument, what, names in (("label_column", "columns", columns), ("label_names", "findings", label_names)):
            if names is not None and (not names or len(set(map(normalize_name, names))) != len(names)):
                raise ValueError(error_message(argument, f"name distinct {what}", list(names)))
        return _state_columns(dict(zip(label_names or columns, columns, strict=True)))
    column = table.resolve_column(label_column, "label_column")
    cells = _count_cells(table.cells(column))
    tokens = [(parts, number) for cell, number in cells if (parts := _tokens_or_none(cell, column)) is not None]
    known = {class_key(name) for name in label_names or ()}
    by_name = any(class_key(part) in known for parts, _ in tokens for part in parts) if known else False
    stated = [(parts, number) for parts, number in tokens if not all(map(is_missing, parts))]
    numeric = sum(number for parts, number in stated if _is_numeric(parts))
    if tokens and not by_name and 2 * numeric >= sum(number for _, number in stated):
        texts = [cell for cell, _ in cells if not is_missing(cell)]
        if label_names is None and all(isinstance(cell, str) and _AMBIGUOUS.fullmatch(cell) for cell in texts):
            expected = "have states without a decimal comma, or two label_names for lists of two"
            raise ValueError(error_message(f"label_column: {column!r}", expected, repr(texts[0].strip())))
        return _state_list(column, tokens, label_names)
    return _class_names(column, cells, label_names)


def _count_cells(cells: Iterable[Any]) -> list[tuple[Any, int]]:
    """The distinct cells, lists and objects among them, each with its number of rows."""
    counts: Counter[Hashable] = Counter()
    unhashable: dict[Hashable, Any] = {}
    for cell in cells:
        key: Hashable = (type(cell).__name__, repr(cell)) if isinstance(cell, list | dict) else cell
        if key is not cell:
            unhashable[key] = cell
        counts[key] += 1
    return [(unhashable.get(key, key), number) for key, number in counts.items()]


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


def match_names(names: Sequence[str], order: Sequence[str]) -> list[int]:
    """The index in ``order`` of each name, whatever its case and underscores; -1 for a name that is not there."""
    index_of = {normalize_name(name): i for i, name in enumerate(order)}
    return [index_of.get(normalize_name(name), -1) for name in names]


def _state_columns(columns: Mapping[str, str]) -> LabelReader:
    def parse(cells: Mapping[str, Any]) -> NDArray[np.float32] | None:
        return _vector([_state(cells.get(column), column) for column in columns.values()])

    return LabelReader(tuple(columns), len(columns), parse)


def _state_list(
    column: str, cells: Sequence[tuple[Sequence[Any], int]], label_names: Sequence[str] | None
) -> LabelReader:
    # The expected width is that of most rows, not that of the first.
    widths = Counter[int]()
    for tokens, number in cells:
        widths[len(tokens)] += number if _is_numeric(tokens) else 0
    width = len(label_names) if label_names is not None else widths.most_common(1)[0][0]
    names = tuple(label_names) if label_names is not None else (column,) if width == 1 else ()
    source = "one for each name" if label_names is not None else "as in most rows"

    def parse(row: Mapping[str, Any]) -> NDArray[np.float32] | None:
        tokens = _tokens(row.get(column), column)
        if tokens is None:
            return None
        if len(tokens) != width:
            raise CellError(column, f"the label has {len(tokens)} values, expected {width} {source}")
        return _vector([_state(token, column) for token in tokens])

    return LabelReader(names, width, parse)


def _class_names(column: str, cells: Sequence[tuple[Any, int]], label_names: Sequence[str] | None) -> LabelReader:
    classes = ClassNames(column, cells, label_names)
    if label_names is None and classes.names and all(map(_is_answer, classes.names)):
        expected = "have names of classes, or states 1, 0, -1 of one finding, unless label_names are given"
        received = "percentages, dates, or words such as yes and no"
        raise ValueError(error_message(f"label_column: {column!r}", expected, received))
    return LabelReader(classes.names, len(classes.names), lambda row: classes.parse(row.get(column)))


def _is_answer(name: str) -> bool:
    name = normalize_name(name)
    return name in _ANSWERS or _NO_NAME.fullmatch(name) is not None


def _tokens(cell: Any, column: str) -> list[Any] | None:
    """The parts of a cell that holds a whole label; None for a cell without one."""
    return split_cell(cell, column)[0] or None


def _tokens_or_none(cell: Any, column: str) -> list[Any] | None:
    try:
        return _tokens(cell, column)
    except CellError:
        return None  # an error of its row


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


def _decimal_comma(token: Any) -> Any:
    """``1.0`` for ``1,0``, as spreadsheets of many countries write it."""
    return token.replace(",", ".") if isinstance(token, str) and _DECIMAL_COMMA.fullmatch(token) else token


def _state(token: Any, column: str) -> float:
    if isinstance(token, str) and token in _STATES:
        return _STATES[token]
    if is_missing(token):
        return math.nan
    value = _number(_decimal_comma(token))
    if value is None or value not in (1.0, 0.0, -1.0):
        expected = "1 (present), 0 (absent), -1 (uncertain) or blank (not mentioned)"
        raise CellError(column, f"expected {expected}, got {describe_cell(token)}")
    return value


def _vector(states: Sequence[float]) -> NDArray[np.float32] | None:
    label = np.asarray(states, dtype=np.float32)
    return None if np.isnan(label).all() else label
