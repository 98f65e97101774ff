"""Checksums of the files of a folder, in the format of ``sha256sum``."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medvl.utils.io import atomic_write, content_sha256, file_sha256, json_text, read_json_lines, write_text
from medvl.utils.limits import check_regular_file

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\x00-\x1f]+)")


def write_checksums(folder: str | Path, names: Iterable[str] | None = None) -> None:
    """Write ``SHA256SUMS``, the hashes of files of a folder; ``sha256sum -c SHA256SUMS`` checks them there too.

    Args:
        folder: the folder.
        names: paths of the files relative to it; by default every file in it and in the folders inside it, but for
            ``README.md``, which people edit.
    """
    folder = Path(folder)
    if names is None:
        paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        names = [name for name in paths if name not in (CHECKSUMS, "README.md")]
    _write(folder, {name: {file_sha256(folder / name)} for name in names})


def verify_checksums(folder: str | Path) -> None:
    """Compare the files of a folder with its ``SHA256SUMS``; a folder without that file is not checked.

    Raises:
        ValueError: If a file is missing or has another content, or ``SHA256SUMS`` itself is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "weights").write_bytes(bytes(9))
        ...     write_checksums(folder)
        ...     _ = (Path(folder) / "weights").write_bytes(bytes([0] * 8 + [1]))
        ...     try:
        ...         verify_checksums(folder)
        ...     except ValueError as error:
        ...         print(str(error).replace(folder, ""))
        /weights is damaged: its content is not what was saved. If you changed it on purpose, delete its line in /SHA256SUMS.
    """
    for name, digests in read_checksums(folder).items():
        path = Path(folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing, which {CHECKSUMS} lists.")
        check_digest(path, file_sha256(path), digests)


def verify_file(path: str | Path) -> None:
    """Compare one file with its line in ``SHA256SUMS`` of its folder; a file that has none is not checked.

    Raises:
        ValueError: If it has another content, or ``SHA256SUMS`` is damaged.
        OSError: If it cannot be read.
    """
    path = Path(path)
    digests = read_checksums(path.parent).get(path.name)
    if digests is not None:
        check_regular_file(path)  # a pipe would be waited on
        check_digest(path, file_sha256(path), digests)


def check_digest(path: str | Path, digest: str, expected: Iterable[str]) -> None:
    """Raise if the digest of a file is none of those that ``SHA256SUMS`` of its folder lists."""
    if digest not in expected:
        raise ValueError(
            f"{path} is damaged: its content is not what was saved. If you changed it on purpose, delete its line in "
            f"{Path(path).parent / CHECKSUMS}."
        )


def read_checksums(folder: str | Path) -> dict[str, set[str]]:
    """The digests of each file that ``SHA256SUMS`` lists; empty if there is no such file.

    A file that a killed process may have been replacing has two: of its content before and after.

    Raises:
        ValueError: If ``SHA256SUMS`` is damaged.
    """
    path = Path(folder) / CHECKSUMS
    check_regular_file(path)
    return parse_checksums(path.read_bytes(), str(path)) if path.is_file() else {}


def parse_checksums(content: bytes, path: str) -> dict[str, set[str]]:
    """The digests of each file in the content of a ``SHA256SUMS``.

    Raises:
        ValueError: If it is damaged; the message names ``path``.
    """
    *lines, rest = content.decode(errors="replace").split("\n")
    if rest or not lines:
        raise ValueError(f"{path} is damaged: it does not end with the end of a line.")
    sums: dict[str, set[str]] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path} is damaged: line {number} is not a hash and the name of a file.")
        sums.setdefault(found[2], set()).add(found[1])
    return sums


def write_listed(path: str | Path, content: str | bytes | bytearray, private: bool = False) -> None:
    """Write a file atomically and list it in ``SHA256SUMS`` of its folder, so that readers notice any damage.

    A process that is killed at any moment leaves the old file or the new one, and a list that holds for both: a file that is
    listed is listed with both contents while it is replaced. The lines of other files stay.

    Args:
        path: the file.
        content: text, which is written as UTF-8, or bytes.
        private: whether only the owner may read the file.

    Raises:
        ValueError: If ``SHA256SUMS`` is damaged, or the path leads to something else than a file.
        DiskFullError: If there is no space left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_listed(Path(folder) / "notes.txt", "whole")
        ...     verify_file(Path(folder) / "notes.txt")
        ...     sorted(os.listdir(folder))
        ['SHA256SUMS', 'notes.txt']
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    check_regular_file(path)
    with one_at_a_time(path.parent):
        sums, digest = read_checksums(path.parent), content_sha256(content)
        before = sums.get(path.name)
        if before is not None and before != {digest}:
            _write(path.parent, {**sums, path.name: {*before, digest}})
        with atomic_write(path, "wb", follow_links=False) as file:
            if private:
                os.chmod(file.name, 0o600)
            file.write(content)
        if before != {digest}:
            _write(path.parent, {**sums, path.name: {digest}})


def write_listed_lines(path: str | Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file as :func:`write_listed`; a number that is not finite becomes null."""
    write_listed(path, "".join(json_text(line) + "\n" for line in lines))


def read_listed_lines(path: str | Path, is_whole: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The dictionaries of a JSON-lines file (:func:`~medvl.utils.io.read_json_lines`), which is compared with its checksum.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is damaged, with its number, or the file has another content than was saved.
    """
    lines = read_json_lines(path, is_whole)  # first, as it can say which line
    verify_file(path)
    return lines


def write_sealed(path: str | Path, value: Any) -> None:
    """Write a JSON value atomically with its own checksum, for files that no other program reads: two lines, value and hash."""
    write_text(path, sealed_text(value))


def sealed_text(value: Any) -> str:
    """The content of a file of :func:`write_sealed`."""
    text = json.dumps(value) + "\n"
    return f"{text}{content_sha256(text.encode())}\n"


def read_sealed(path: str | Path) -> Any:
    """The value in a file of :func:`write_sealed`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_sealed(Path(folder) / "state", {"rows": 3})
        ...     read_sealed(Path(folder) / "state")
        {'rows': 3}
    """
    content = Path(path).read_bytes()
    text, digest = content[:-65], content[-65:]
    if digest != f"{content_sha256(text)}\n".encode():
        raise ValueError(f"{path} is damaged: its content is not what was saved.")
    return json.loads(text)


def _write(folder: Path, sums: Mapping[str, Iterable[str]]) -> None:
    lines = sorted((name, digest) for name, digests in sums.items() for digest in digests)
    write_text(folder / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in lines), follow_links=False)


_holding = threading.local()


@contextmanager
def one_at_a_time(folder: str | Path) -> Iterator[None]:
    """Wait for other processes that write to a folder what they have read there, where the system and the file system can.

    A block of this kind may stand inside another of the same folder. The folder is created.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    held: set[Path] = _holding.__dict__.setdefault("folders", set())
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    if folder in held:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    held.add(folder)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        held.discard(folder)
        os.close(descriptor)
