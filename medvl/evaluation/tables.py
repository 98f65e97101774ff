"""One model of a table for every protocol, rendered as text, JSON, CSV and HTML."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medvl.utils.checks import error_message
from medvl.utils.csv_files import CsvWriter

if TYPE_CHECKING:
    from medvl.evaluation.statistics.bootstrap import Estimate

CSV_COLUMNS = (
    "protocol",
    "table",
    "row",
    "column",
    "value",
    "low",
    "high",
    "text",
    "chance",
    "untrained",
    "untrained_low",
    "untrained_high",
)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a number with its confidence interval, or a text.

    Args:
        value: the number, NaN where it is undefined; None for a cell of text or an empty one.
        interval: lower and upper end; None without an interval.
        text: what is shown in place of the number.
        note: a remark shown below it.
        spec: format of the number.
        chance: the number that guessing gives; None where it is not shown.
        untrained: the same cell of a model with random weights; None without one.

    Example:
        >>> print(Cell(0.8125, (0.75, 0.875)), Cell(math.nan), Cell(12, spec="d"), Cell(text="edema"), sep=" | ")
        0.812 [0.750, 0.875] | n/a | 12 | edema
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    text: str = ""
    note: str = ""
    spec: str = ".3f"
    chance: float | None = None
    untrained: Cell | None = None

    @classmethod
    def of(cls, estimate: Estimate, spec: str = ".3f", chance: float | None = None, note: str = "") -> Cell:
        """The cell of an estimate."""
        interval = (estimate.low, estimate.high) if estimate.has_interval else None
        return cls(float(estimate.value), interval, note=note, spec=spec, chance=chance)

    @property
    def is_number(self) -> bool:
        """Whether it holds a number that is defined."""
        return self.value is not None and not math.isnan(self.value)

    @property
    def value_text(self) -> str:
        """The number or the text, without the interval."""
        if self.value is None or self.text:
            return self.text
        return format(self.value, self.spec) if self.is_number else "n/a"

    @property
    def interval_text(self) -> str:
        """The interval as ``low–high``, or ``low to high`` where an end has a sign; empty without one."""
        if self.interval is None or not self.is_number:
            return ""
        low, high = (format(end, self.spec) for end in self.interval)
        return f"{low} to {high}" if {"-", "+"} & set(low + high) else f"{low}–{high}"

    def to_dict(self) -> dict[str, Any]:
        """What the cell holds, without what is empty; NaN as None."""
        content: dict[str, Any] = {}
        if self.value is not None:
            content["value"] = _finite(self.value)
            content["interval"] = None if self.interval is None else [_finite(end) for end in self.interval]
        optional = {"text": self.text, "note": self.note, "chance": self.chance}
        content |= {name: _finite(part) for name, part in optional.items() if part not in (None, "")}
        return content | ({"untrained": self.untrained.to_dict()} if self.untrained is not None else {})

    def __str__(self) -> str:
        if self.interval is None or not self.is_number or self.text:
            return self.value_text
        return f"{self.value_text} [{', '.join(format(end, self.spec) for end in self.interval)}]"


@dataclass(frozen=True)
class Column:
    """A column of numbers or texts.

    Args:
        name: its title.
        compared: whether the same column of an untrained model is shown beside the table.
        chart: whether its values, from 0 to 1, are also drawn with their intervals.
    """

    name: str
    compared: bool = False
    chart: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its name, a cell for each column, a remark below the name, and whether it summarizes those above."""

    name: str
    cells: Sequence[Cell]
    note: str = ""
    summary: bool = False


@dataclass(frozen=True)
class Table:
    """A table of results.

    Args:
        name: identifies the table within an evaluation: lower case with hyphens, such as ``"linear-probe"``.
        title: heading.
        header: title of the column of row names.
        columns: of the cells.
        rows: each with one cell a column.
        description: what the table shows and how it was computed, in a sentence or two.
        note: what must be known to read it; shown below in the report.
        caption: tells the tables of one title apart.

    Raises:
        ValueError: If a row does not have one cell a column.

    Example:
        >>> cells = [Cell(0.75, (0.5, 1.0), chance=0.5), Cell(4, spec="d")]
        >>> table = Table("demo", "Demo", "Finding", [Column("AUROC", compared=True), Column("Cases")], [Row("Edema", cells)])
        >>> print(table.with_untrained(table).to_text())
        Finding                 AUROC  Chance  Cases       Untrained AUROC
        -------  --------------------  ------  -----  --------------------
        Edema    0.750 [0.500, 1.000]   0.500      4  0.750 [0.500, 1.000]
    """

    name: str
    title: str
    header: str
    columns: Sequence[Column]
    rows: Sequence[Row] = field(default_factory=list)
    description: str = ""
    note: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                expected = f"have a cell for each of the {len(self.columns)} columns of {self.name}"
                raise ValueError(error_message(f"row {row.name!r}", expected, len(row.cells)))

    def with_untrained(self, other: Table | None) -> Table:
        """The table with the cells of another model's table beside those of the compared columns."""
        if other is None:
            return self
        names = [column.name for column in other.columns]
        others = {row.name: dict(zip(names, row.cells, strict=True)) for row in other.rows}
        rows = []
        for row in self.rows:
            paired = zip(self.columns, row.cells, strict=True)
            cells = [
                replace(cell, untrained=others.get(row.name, {}).get(column.name)) if column.compared else cell
                for column, cell in paired
            ]
            rows.append(replace(row, cells=cells))
        return replace(self, rows=rows)

    @property
    def titles(self) -> list[str]:
        """Titles of the columns as rendered, a column of chance beside its own, those of the untrained model last."""
        chance = [column.name for i, column in enumerate(self.columns) if self._has(i, "chance")]
        titles = []
        for column in self.columns:
            titles.append(column.name)
            if column.name in chance:
                titles.append("Chance" if len(chance) == 1 else f"Chance {_inside(column.name)}")
        return titles + [
            f"Untrained {_inside(column.name)}" for i, column in enumerate(self.columns) if self._has(i, "untrained")
        ]

    def rendered(self, row: Row) -> list[Cell]:
        """The cells of a row, one for each of :attr:`titles`."""
        cells = []
        for place, cell in enumerate(row.cells):
            cells.append(cell)
            if self._has(place, "chance"):
                cells.append(Cell(cell.chance, spec=cell.spec))
        return cells + [
            cell.untrained or Cell() for place, cell in enumerate(row.cells) if self._has(place, "untrained")
        ]

    @property
    def heading(self) -> str:
        """The title, and the caption after it where there is one."""
        return f"{self.title}: {self.caption}" if self.caption else self.title

    def to_text(self) -> str:
        """The table for a terminal."""
        rows = [[row.name, *map(str, self.rendered(row))] for row in self.rows]
        rule = bool(self.rows) and self.rows[-1].summary
        return text_table([self.header, *self.titles], rows, rule_before_last=rule)

    def to_csv(self) -> str:
        """The table as it is read, for a spreadsheet: a line a row, the ends of an interval in columns of their own."""
        rendered = [self.rendered(row) for row in self.rows]
        has_interval = [any(cells[i].interval is not None for cells in rendered) for i in range(len(self.titles))]
        header = [self.header]
        for title, wide in zip(self.titles, has_interval, strict=True):
            header += [title, f"{title}, low", f"{title}, high"] if wide else [title]
        buffer = io.StringIO()
        writer = CsvWriter(buffer)
        writer.write_row(header)
        for row, cells in zip(self.rows, rendered, strict=True):
            line: list[Any] = [row.name]
            for cell, wide in zip(cells, has_interval, strict=True):
                line.append(cell.text or _finite(cell.value))
                line += [_finite(end) for end in cell.interval or (None, None)] if wide else []
            writer.write_row(line)
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """The table as plain dictionaries: by row, by column, the cell."""
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "columns": names,
            "rows": {
                row.name: dict(zip(names, (cell.to_dict() for cell in row.cells), strict=True)) for row in self.rows
            },
        }

    def records(self) -> Iterable[dict[str, Any]]:
        """One record per cell that is not empty: :data:`~medvl.evaluation.tables.CSV_COLUMNS` but ``protocol``."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.value is None and not cell.text:
                    continue
                low, high = cell.interval or (None, None)
                other = cell.untrained or Cell()
                other_low, other_high = other.interval or (None, None)
                yield {
                    "table": self.name,
                    "row": row.name,
                    "column": column.name,
                    "value": cell.value,
                    "low": low,
                    "high": high,
                    "text": cell.text,
                    "chance": cell.chance,
                    "untrained": other.value,
                    "untrained_low": other_low,
                    "untrained_high": other_high,
                }

    def _has(self, place: int, attribute: str) -> bool:
        return any(getattr(row.cells[place], attribute) is not None for row in self.rows)


def to_csv(records: Iterable[dict[str, Any]]) -> str:
    """Records (:meth:`Table.records` with their ``protocol``) as CSV, one line a cell; what is undefined is blank."""
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    writer.write_row(CSV_COLUMNS)
    writer.write_rows([_finite(record.get(name, "")) for name in CSV_COLUMNS] for record in records)
    return buffer.getvalue()


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], rule_before_last: bool = False) -> str:
    """Columns padded with spaces, the first aligned left and the others right.

    Args:
        header: titles of the columns.
        rows: cells, as many as titles in each row.
        rule_before_last: whether a line is drawn above the last row.

    Returns:
        The table, without a line break at its end.

    Example:
        >>> print(text_table(["Name", "Value"], [["one", "1.0"], ["total", "10.0"]], rule_before_last=True))
        Name   Value
        -----  -----
        one      1.0
        -----  -----
        total   10.0
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "  ".join("-" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    lines = [line(header), rule, *map(line, rows)]
    if rule_before_last and len(rows) > 1:
        lines.insert(-1, rule)
    return "\n".join(lines)


def _inside(name: str) -> str:
    """A title as it stands after another word: "Pointing game" in lower case, "AUROC" and "mIoU" as they are."""
    return name[0].lower() + name[1:] if name[1:2].islower() else name


def _finite(value: Any) -> Any:
    """``value``, or None where it is NaN or infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
