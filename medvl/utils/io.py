"""Atomic writes: a file is written completely or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from medvl.utils.checks import error_message
from medvl.utils.disk import name_full_disk
from medvl.utils.host import is_running, machine_id

PARTIAL = re.compile(r"\.([0-9a-f]{8})-([0-9]+)\.partial$")
"""The end of the name of a file while it is written, with the machine and the process that write it."""

DAY = 86400.0


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", follow_links: bool = True, **options: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` only once it is completely written and on the disk.

    It is written beside ``path`` under another name and then renamed, which is atomic: a process that is killed at any
    moment leaves the old file or the new one. If the body raises, the old file stays. The folder is created, and what a
    killed process left of the same file is removed. Of a symbolic link, the file that it leads to is replaced. A device or a
    pipe is written to as it is. Where ``follow_links`` is false, the link, device or pipe itself is replaced: in a folder that
    somebody else may have made, it would lead to any file of the user.

    Args:
        path: the file to write.
        mode: ``"w"``, ``"wb"`` or ``"w+b"``.
        follow_links: whether a symbolic link, a device or a pipe is written to, as a user expects of a path that they typed.
        options: further options of :func:`open`, such as ``newline``; text is UTF-8. What UTF-8 cannot hold, such as a byte
            of a file's name, becomes an escape sequence.

    Raises:
        DiskFullError: If there is no space left, with the file and the disk.
        OSError: If the file cannot be written for another reason.

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
        options.setdefault("errors", "backslashreplace")
    with name_full_disk(path):
        if follow_links and is_stream(path):
            with Path(path).open(mode, **options) as file:
                yield file
            return
        path = link_target(path) if follow_links else Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial_files(path.parent, path.name)
        partial = partial_path(path, f".{machine_id()[:8]}-{os.getpid()}")
        try:
            with partial.open(mode, **options) as file:
                yield file
                sync(file)
            replace_file(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def remove_partial_files(folder: str | Path, name: str = "*") -> None:
    """Remove what killed processes left of files that they were writing by :func:`atomic_write`.

    These are the files of processes of this machine that no longer run, and files of other machines that are a day old.

    Args:
        folder: where they are; those in folders inside it stay.
        name: of the file that was written; by default any.
    """
    pattern = name if name == "*" else glob.escape(name)
    for path in Path(folder).glob(f"{pattern}.*.partial"):
        found = PARTIAL.search(path.name)
        if found is None:
            continue
        with suppress(FileNotFoundError):  # another process removes it too
            if found[1] == machine_id()[:8]:
                left = is_running(int(found[2])) is False
            else:
                left = time.time() - path.stat().st_mtime > DAY
            if left:
                path.unlink()


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
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISREG(mode):
            os.chmod(partial, stat.S_IMODE(mode))
    os.replace(partial, path)


def check_writable(path: str | Path) -> None:
    """Raise where a file cannot be written, before the work whose result it will hold. Nothing is left behind.

    Args:
        path: the file, whose folder may be missing.

    Raises:
        OSError: If ``path`` is a folder, or a file cannot be created in its folder or, where that is missing, the folder.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder.")
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except NotADirectoryError:
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder.") from None
    except OSError as error:
        raise OSError(f"{path} cannot be written: {folder}: {error.strerror}.") from error


def check_not_input(output: str | Path, inputs: Iterable[str | Path | None], name: str = "output") -> None:
    """Raise where the file to be written is one of those that are read, by whatever path or link.

    Args:
        output: the file to write.
        inputs: the files that are read; those that are None or do not exist are passed over.
        name: of the argument, for the error.

    Raises:
        ValueError: If so.
    """
    for path in inputs:
        try:
            same = path is not None and os.path.samefile(path, output) and not is_stream(output)
        except (OSError, ValueError):  # one of them does not exist
            continue
        if same:
            raise ValueError(error_message(name, "differ from the files that are read", str(output)))


def number_files(folder: Path, names: Sequence[str]) -> str:
    """Keep earlier files: rename those that exist by the lowest number that is free for all of them; return their new names."""
    paths = [folder / name for name in names if (folder / name).exists()]
    number = 1
    while any(_numbered(path, number).exists() for path in paths):
        number += 1
    for path in paths:
        path.rename(_numbered(path, number))
    return ", ".join(_numbered(path, number).name for path in paths)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def write_text(path: str | Path, text: str, follow_links: bool = True) -> None:
    """Write a text file atomically, as UTF-8; see :func:`atomic_write`."""
    with atomic_write(path, follow_links=follow_links) as file:
        file.write(text)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically; a number that is not finite becomes null, which JSON has no other word for."""
    write_text(path, json_text(value, indent) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, a number that is not finite as null.

    Example:
        >>> json_text({"auroc": math.nan, "loss": [1.5, math.inf]})
        '{"auroc": null, "loss": [1.5, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: str | Path, is_whole: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The dictionaries of a JSON-lines file, one a line; blank lines are passed over.

    Args:
        path: the file, which is UTF-8.
        is_whole: whether a dictionary has what each of them must have.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not such a dictionary in JSON; the message names the file and the line.
    """
    content = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not is_whole(value):
            raise ValueError(f"{path}, line {number} is damaged; correct or remove it to go on.")
        content.append(value)
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return stream_sha256(file)


def content_sha256(content: bytes | bytearray) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def stream_sha256(file: IO[bytes], size: int | None = None) -> str:
    """SHA-256 of what is left of an open file, or of its next ``size`` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    left = math.inf if size is None else size
    while block := file.read(int(min(2**20, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
