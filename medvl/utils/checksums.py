"""Checksums of the files of a folder, in the format of ``sha256sum``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medvl.utils.io import file_sha256, write_text

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f]+)")


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
    write_text(folder / CHECKSUMS, "".join(f"{file_sha256(folder / name)}  {name}\n" for name in sorted(names)))


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
        ...         print(str(error).removeprefix(folder))
        /weights is damaged: its content is not what was saved. If you changed it on purpose, delete SHA256SUMS there.
    """
    sums = Path(folder) / CHECKSUMS
    if not sums.is_file():
        return
    *lines, rest = sums.read_bytes().decode(errors="replace").split("\n")
    if rest or not lines:
        raise ValueError(f"{sums} is damaged: it does not end with the end of a line.")
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{sums} is damaged: line {number} is not a hash and the name of a file.")
        digest, name = found.groups()
        path = Path(folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing, which {CHECKSUMS} lists.")
        if file_sha256(path) != digest:
            raise ValueError(
                f"{path} is damaged: its content is not what was saved. If you changed it on purpose, delete {CHECKSUMS} there."
            )
