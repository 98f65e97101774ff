"""The span type."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Half-open range ``[start, end)`` of character offsets into a text.

    Example:
        >>> text = "No effusion."
        >>> span = Span(3, 11)
        >>> text[span.start : span.end]
        'effusion'
    """

    start: int
    end: int
