"""YAML of files and options that anybody may have written."""

from __future__ import annotations

from typing import Any

import yaml

from medvl.utils.errors import plain_reason

MOST_NODES = 1_000_000
"""Values in a document at most, each counted as often as it is referred to."""


def load_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The content of a YAML document: dictionaries, lists, texts, numbers and dates, never another object.

    Args:
        text: the document.
        loader: PyYAML's safe loader, or one derived from it.

    Raises:
        ValueError: If it is not valid, refers to itself, or grows by references in references; the message says why.

    Example:
        >>> load_yaml("{epochs: 3, names: [a, b]}")
        {'epochs': 3, 'names': ['a', 'b']}
        >>> load_yaml("day: 2026-13-01")
        Traceback (most recent call last):
        ValueError: month must be in 1..12
    """
    try:
        reader = loader(text)
        root = reader.get_single_node()
        if root is None:
            return None
        _count(root, {})  # before the values are made: merging (<<) copies what it refers to
        return reader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = f"{error.problem or error.context}{place}"
        raise ValueError(reason) from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split()).removesuffix(".")) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # keys, numbers and dates that cannot be
        raise ValueError(plain_reason(error)) from error


def _count(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values in a node, each of its parts counted once for each reference to it."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("it refers to itself.")
        return sizes[id(node)]
    sizes[id(node)] = 0
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    size = 1 + sum(_count(part, sizes) for part in parts)
    if size > MOST_NODES:
        raise ValueError(f"its references make it larger than {MOST_NODES} values.")
    sizes[id(node)] = size
    return size
