"""YAML of files and options that anybody may have written."""

from __future__ import annotations

from typing import Any

from medvl.utils.errors import plain_reason

MOST_NODES = 1_000_000
"""Values in a document at most, each counted as often as it is referred to."""


def load_yaml(text: str) -> Any:
    """The content of a YAML document: dictionaries, lists, texts, numbers and dates, never another object.

    Args:
        text: the document.

    Raises:
        ValueError: If it is not valid, refers to itself, or grows by references in references; the message says why.

    Example:
        >>> load_yaml("{epochs: 3, names: [a, b]}")
        {'epochs': 3, 'names': ['a', 'b']}
        >>> load_yaml("day: 2026-13-01")
        Traceback (most recent call last):
        ValueError: month must be in 1..12
    """
    import yaml

    try:
        content = yaml.safe_load(text)
        _count(content, {})
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split()).removesuffix(".")) from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # of keys, numbers and dates that cannot be
        raise ValueError(plain_reason(error)) from error
    return content


def _count(value: Any, sizes: dict[int, int]) -> int:
    """The number of values in a value, each of its parts counted once for each reference to it."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in sizes:
        if not sizes[id(value)]:
            raise ValueError("it refers to itself.")
        return sizes[id(value)]
    sizes[id(value)] = 0
    size = 1 + sum(_count(inner, sizes) for inner in (value.values() if isinstance(value, dict) else value))
    if size > MOST_NODES:
        raise ValueError(f"its references make it larger than {MOST_NODES} values.")
    sizes[id(value)] = size
    return size
