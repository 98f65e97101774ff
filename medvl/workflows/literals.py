"""Text that MONAI's configurations take as it stands, whatever characters are in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

SPECIAL = "$@%#"
"""Characters that begin an expression, a reference or a macro in a configuration, or separate the keys of one."""


def literal(value: Any, keep_expressions: bool = False) -> Any:
    """A value whose texts a configuration takes as they stand.

    ``monai.bundle.ConfigParser`` evaluates a text that begins with ``$``, looks up one that begins with ``@`` or ``%``, and
    writes ``::`` for every ``#``. A text with one of these characters becomes an expression that gives just this text.

    Args:
        value: a text, or dictionaries and lists with texts; the keys of dictionaries stay.
        keep_expressions: whether a text that begins with ``$``, ``@`` or ``%`` remains the expression that it is.

    Example:
        >>> literal("cases.csv"), literal("#1.csv")
        ('cases.csv', "$'\\\\x231.csv'")
        >>> literal_text(literal("$HOME@x#1"))
        '$HOME@x#1'
    """
    if isinstance(value, Mapping):
        return {key: literal(inner, keep_expressions) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [literal(inner, keep_expressions) for inner in value]
    if not isinstance(value, str) or not set(value) & set(SPECIAL):
        return value
    if keep_expressions and value.startswith(("$", "@", "%")):
        return value
    return "$" + re.sub(f"[{re.escape(SPECIAL)}]", lambda found: f"\\x{ord(found[0]):02x}", repr(value))


def literal_text(value: Any) -> Any:
    """What :func:`literal` was given; any other value as it is. Nothing is evaluated.

    Example:
        >>> literal_text({"data": "$'\\\\x231.csv'", "device": "$'cuda'.lower()"})
        {'data': '#1.csv', 'device': "$'cuda'.lower()"}
    """
    if isinstance(value, Mapping):
        return {key: literal_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [literal_text(inner) for inner in value]
    if not isinstance(value, str) or not value.startswith(("$'", '$"')):
        return value
    try:
        text = ast.literal_eval(value[1:])
    except (ValueError, SyntaxError):
        return value
    return text if isinstance(text, str) else value
