"""Plain-text tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], rule_before_last: bool = False) -> str:
    """Columns aligned with spaces, the first to the left and the others to the right.

    Args:
        head: titles of the columns.
        rows: cells, as many as titles in each row.
        rule_before_last: draw a line above the last row.

    Returns:
        The table, without a line break at its end.

    Example:
        >>> print(plain_table(["Name", "Value"], [["one", "1.0"], ["total", "10.0"]], rule_before_last=True))
        Name   Value
        -----  -----
        one      1.0
        -----  -----
        total   10.0
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = "  ".join("-" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    lines = [line(head), rule, *map(line, rows)]
    if rule_before_last and len(rows) > 1:
        lines.insert(-1, rule)
    return "\n".join(lines)
