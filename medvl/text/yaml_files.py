"""YAML files of vocabularies and prompts: reading, checks, and files that extend one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from medvl.utils.checks import error_message
from medvl.utils.limits import read_small_text
from medvl.utils.yaml_text import load_yaml

MOST_LAYERS = 100
"""Files that extend one another at most."""

Version = tuple[int, ...]
"""What :func:`version_of` gives, a part of the keys under which content is kept."""


def version_of(path: Path) -> Version:
    """Modification time, change time, size and inode of a file: on a coarse clock two changes may have the same time."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def read_yaml(path: Path) -> Any:
    """Read a YAML file; invalid YAML is a ``ValueError`` that names the file."""
    text = read_small_text(path)
    try:
        return load_yaml(text, _Yaml12BoolLoader)
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid YAML: {error}.") from error


class _Yaml12BoolLoader(yaml.SafeLoader):
    """YAML's safe loader with the booleans of YAML 1.2, ``true`` and ``false``: the ``no`` of a list of cues is a word."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Construct a mapping; a key that stands in it twice is an error, since YAML would keep the last without a word."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key, Hashable):  # the latter is refused below
            continue
        if key in seen:
            problem = f"the key {key!r} stands in one mapping twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Yaml12BoolLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_Yaml12BoolLoader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def as_strings(value: Any, entry_path: str) -> list[str]:
    """``value`` if it is a list of strings."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(error_message(entry_path, "be a list of strings (quote numbers and true)", repr(value)))
    return value


def check_keys(entry: Mapping[str, Any], known: Set[str], entry_path: str) -> None:
    """Raise ``ValueError`` where an entry of a YAML file has keys that are not ``known``."""
    if unknown := sorted(map(str, set(entry) - known)):
        raise ValueError(error_message(entry_path, f"have no other keys than {sorted(known)}", unknown))


@lru_cache(maxsize=128)
def _read_version(path: str, version: Version) -> Any:
    return read_yaml(Path(path))


def extended_files(path: Path, find: Callable[[str, Path], Path | None]) -> list[Path]:
    """A file, the one that it extends, the one that this extends, and so on.

    Args:
        path: the file.
        find: from the name that ``extends`` gives and the folder of its file to the path of the other file, or None.

    Returns:
        Their paths, that of the file first.

    Raises:
        ValueError: If a file is not valid YAML, cannot be found, or leads back to itself.
    """
    files = [path]
    while "extends" in (data := _mapping(path)):
        name = data["extends"]
        if len(files) > MOST_LAYERS:
            raise ValueError(f"{path.name}: extends: more than {MOST_LAYERS} files extend one another.")
        base = find(name, path.parent) if isinstance(name, str) else None
        if base is None:
            problem = error_message(f"{path.name}: extends", "be a built-in name or the path of a file", repr(name))
            raise ValueError(problem)
        if base.resolve() in [other.resolve() for other in files]:
            raise ValueError(error_message(f"{path.name}: extends", "not lead back to the file itself", repr(name)))
        files.append(path := base)
    return files


def _mapping(path: Path) -> Mapping[str, Any]:
    """The content of a file as it is now; empty if that is no mapping."""
    data = _read_version(str(path), version_of(path))
    return data if isinstance(data, Mapping) else {}


def read_extended(path: Path, find: Callable[[str, Path], Path | None]) -> Any:
    """Read a file that may extend another: mappings are merged, lists are joined, and single values replaced.

    Args:
        path: the file.
        find: as of :func:`extended_files`.

    Returns:
        The content without ``extends``.

    Raises:
        ValueError: As of :func:`extended_files`, and if a file does not fit what it extends.
    """
    *own, base = extended_files(path, find)
    content = _read_version(str(base), version_of(base))
    if not isinstance(content, Mapping):
        return content
    for file in reversed(own):
        content = _extend(content, {k: v for k, v in _mapping(file).items() if k != "extends"}, file.name)
    return content


def _extend(base: Any, own: Any, entry_path: str) -> Any:
    """Mappings are merged, lists are joined, and anything else of ``own`` replaces what ``base`` has."""
    if isinstance(base, Mapping) and isinstance(own, Mapping):
        merged = dict(base)
        for key, value in own.items():
            merged[key] = _extend(base[key], value, f"{entry_path}.{key}") if key in base else value
        return merged
    if isinstance(base, list) and isinstance(own, list):
        return [*base, *own]
    if isinstance(base, list | Mapping) or isinstance(own, list | Mapping):
        kind = "list" if isinstance(base, list) else "mapping" if isinstance(base, Mapping) else "single value"
        raise ValueError(error_message(entry_path, f"be a {kind}, as in the vocabulary that it extends", repr(own)))
    return own
