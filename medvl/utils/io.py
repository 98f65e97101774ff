"""Atomic writes: a file is written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` only once it is completely written and on the disk.

    It is written beside ``path`` under another name and then renamed, which is atomic: a process that is killed at any
    moment leaves the old file or the new one. If the body raises, the old file stays. The folder is created. Of a symbolic
    link, the file that it leads to is replaced. A device or a pipe is written to as it is.

    Args:
        path: the file to write.
        mode: ``"w"`` or ``"wb"``.
        options: further options of :func:`open`, such as ``newline``; text is UTF-8.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "notes.txt") as file:
        ...         _ = file.write("whole")
        ...     sorted(os.listdir(folder))
        ['notes.txt']
    """
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    if is_stream(path):
        with Path(path).open(mode, **options) as file:
            yield file
        return
    path = link_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path, f".{os.getpid()}")
    try:
        with partial.open(mode, **options) as file:
            yield file
            sync(file)
        replace_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_stream(path: str | Path) -> bool:
    """Whether a path is a device or a pipe (``/dev/stdout`` among them), which cannot be replaced or read twice."""
    if os.fspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/self/fd/")):
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def link_target(path: str | Path) -> Path:
    """The file that a symbolic link leads to, whether it exists or not; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def partial_path(path: Path, suffix: str = "") -> Path:
    """The name of the file beside ``path`` that is written until it is whole."""
    ending = f"{suffix}.partial"
    name = path.name
    while len(os.fsencode(name + ending)) > 255:  # what file systems allow
        name = name[:-1]
    return path.with_name(name + ending)


def sync(file: IO[Any]) -> None:
    """Wait until what was written to a file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def replace_file(partial: Path, path: Path) -> None:
    """Rename a complete file to ``path``, with the permissions of the file that it replaces."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        pass
    else:
        os.chmod(partial, mode)
    os.replace(partial, path)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json_lines(path: str | Path, *keys: str) -> list[dict[str, Any]]:
    """The dictionaries of a JSON-lines file, one a line; blank lines are passed over.

    Args:
        path: the file, which is UTF-8.
        keys: what each of them must have.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not a dictionary in JSON with these keys; the message names the file and the line.
    """
    content = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not set(keys) <= set(value):
            raise ValueError(f"{path}, line {number} is damaged; correct or remove it to go on.")
        content.append(value)
    return content


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
