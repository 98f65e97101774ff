"""Checks of arguments. Every message says: ARGUMENT must EXPECTED, got RECEIVED."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real


def error_message(name: str, expected: str, received: object) -> str:
    """The sentence of an error.

    Args:
        name: the argument, setting or column that is wrong.
        expected: what it must do or be, as it follows "must": "be above 0", "have shape (N, D)".
        received: what was passed, as it should be shown: a shape, ``repr`` of a string, the name of a type.

    Example:
        >>> error_message("temperature", "be above 0", -1)
        'temperature must be above 0, got -1.'
    """
    return f"{name} must {expected}, got {received}."


def check_option(value: object, name: str, options: Sequence[object]) -> None:
    """Raise ``ValueError`` if ``value`` is not one of ``options``.

    Example:
        >>> check_option("median", "reduction", ("mean", "sum"))
        Traceback (most recent call last):
        ValueError: reduction must be one of 'mean', 'sum', got 'median'.
    """
    if value not in options:
        raise ValueError(error_message(name, f"be one of {', '.join(map(repr, options))}", repr(value)))


def check_number(value: object, name: str) -> None:
    """Raise ``TypeError`` if ``value`` is not a real number (a string from a configuration file, a tensor)."""
    if not isinstance(value, Real):
        raise TypeError(error_message(name, "be a number", repr(value)))


def check_positive(value: float, name: str) -> None:
    """Raise ``TypeError`` if ``value`` is not a number, ``ValueError`` if it is not above 0 or not finite."""
    check_number(value, name)
    if not value > 0:
        raise ValueError(error_message(name, "be above 0", value))
    if value == float("inf"):
        raise ValueError(error_message(name, "be finite", value))


def check_non_negative(value: float, name: str) -> None:
    """Raise ``TypeError`` if ``value`` is not a number, ``ValueError`` if it is below 0."""
    check_number(value, name)
    if not value >= 0:
        raise ValueError(error_message(name, "be at least 0", value))


def check_fraction(value: float, name: str) -> None:
    """Raise ``TypeError`` if ``value`` is not a number, ``ValueError`` if it is not in [0, 1]."""
    check_number(value, name)
    if not 0 <= value <= 1:
        raise ValueError(error_message(name, "be between 0 and 1", value))


def check_integer(value: object, name: str, minimum: int | None = None) -> None:
    """Raise ``TypeError`` if ``value`` is not an integer, ``ValueError`` if it is below ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(error_message(name, "be an integer", repr(value)))
    if minimum is not None and value < minimum:
        raise ValueError(error_message(name, f"be at least {minimum}", value))


def check_type(value: object, name: str, types: type | tuple[type, ...]) -> None:
    """Raise ``TypeError`` if ``value`` is not an instance of ``types``."""
    if not isinstance(value, types):
        names = [kind.__name__ for kind in (types if isinstance(types, tuple) else (types,))]
        raise TypeError(error_message(name, f"be of type {' or '.join(names)}", type(value).__name__))


def check_unicode(value: str, name: str) -> None:
    """Raise ``ValueError`` if a text has bytes that are not UTF-8, as a terminal may pass them on.

    Example:
        >>> check_unicode("caf\\udce9", "text")
        Traceback (most recent call last):
        ValueError: text must be valid Unicode, got 'caf\\udce9'.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(error_message(name, "be valid Unicode", ascii(value[:100]))) from None


def check_text(value: object, name: str = "text") -> None:
    """Raise ``TypeError`` if ``value`` is not a string; the message never shows the content, which may be
    patient data.

    Example:
        >>> check_text(float("nan"), "report")
        Traceback (most recent call last):
        TypeError: report must be a string, got float (NaN: an empty table cell?).
    """
    if isinstance(value, str):
        return
    hint = ""
    if isinstance(value, float) and value != value:
        hint = " (NaN: an empty table cell?)"
    elif isinstance(value, bytes):
        hint = " (decode it first, as in value.decode('utf-8', errors='replace'))"
    raise TypeError(error_message(name, "be a string", f"{type(value).__name__}{hint}"))


def check_text_list(value: object, name: str) -> None:
    """Raise ``ValueError`` if ``value`` is not a list or tuple of at least one string (a string alone, a dictionary).

    Example:
        >>> check_text_list("Edema is seen.", "class_prompts['Edema']")
        Traceback (most recent call last):
        ValueError: class_prompts['Edema'] must be a list of at least one string, got 'Edema is seen.'.
    """
    texts = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(error_message(name, "be a list of at least one string", repr(value)))
