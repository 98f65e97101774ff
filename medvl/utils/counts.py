"""Counts in messages: "1 report has", "2 reports have"."""

from __future__ import annotations


def count_of(number: int, one: str, many: str = "") -> str:
    """A number with what it counts, in the singular or the plural.

    Args:
        number: how many there are.
        one: what is counted, for one: "report", or with its verb "report has".
        many: the same for another number; ``one`` with an "s" by default.

    Returns:
        The number and the words.

    Example:
        >>> count_of(1, "report"), count_of(0, "report"), count_of(2, "study was", "studies were")
        ('1 report', '0 reports', '2 studies were')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
