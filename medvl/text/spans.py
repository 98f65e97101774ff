"""The span type, and the check that every function of this package makes of its text."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Half-open range ``[start, end)`` of character offsets into the text that a function was given.

    Example:
        >>> text = "No effusion."
        >>> span = Span(3, 11)
        >>> text[span.start : span.end]
        'effusion'
    """

    start: int
    end: int


def require_text(text: object, name: str = "text") -> str:
    """Return ``text`` when it is a string.

    Args:
        text: what should be a string.
        name: the argument's name, for the error.

    Returns:
        ``text`` itself.

    Raises:
        TypeError: for anything that is not a ``str``, such as the NaN of an empty table cell, ``None`` or bytes. The
            message names the type and never the content, which may be a patient's.

    Example:
        >>> require_text(float("nan"), "report")
        Traceback (most recent call last):
        TypeError: report must be a str, got float (nan: an empty table cell?)
    """
    if isinstance(text, str):
        return text
    hint = ""
    if isinstance(text, float) and text != text:
        hint = " (nan: an empty table cell?)"
    elif isinstance(text, bytes):
        hint = " (decode it first, as in text.decode('utf-8', errors='replace'))"
    raise TypeError(f"{name} must be a str, got {type(text).__name__}{hint}")
