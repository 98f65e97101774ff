"""Image folders with a table ``metadata.jsonl``, as Hugging Face's ``imagefolder`` has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medvl.data.tables.rows import Row
from medvl.data.tables.table import Progress, Table, read_table

METADATA = "metadata"
_SUFFIXES = (".jsonl", ".csv", ".parquet")


def find_metadata(folder: Path) -> Path | None:
    """The table of an image folder: ``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet``; None if it has none.

    Raises:
        ValueError: If it has several.
    """
    found = [path for suffix in _SUFFIXES if (path := folder / f"{METADATA}{suffix}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"path: the folder {folder} holds {names}; name the one to read.")
    return found[0] if found else None


def read_folder(folder: Path) -> Table:
    """The table of an image folder, or those of its subfolders, whose names are the splits.

    Raises:
        ValueError: If there is none, if a folder has several, or if both the folder and a subfolder have one.
    """
    own = find_metadata(folder)
    parts = [
        (part.name, found) for part in sorted(folder.iterdir()) if part.is_dir() and (found := find_metadata(part))
    ]
    if own is not None and parts:
        raise ValueError(
            f"path: the folder {folder} holds {own.name}, and so does its subfolder {parts[0][0]}; name the table to read."
        )
    if own is not None:
        return read_table(own)
    if not parts:
        raise ValueError(
            f"path: the folder {folder} holds no {METADATA}.jsonl, .csv or .parquet, and nor do its subfolders."
        )
    return FolderTable(folder, [(split, read_table(path)) for split, path in parts])


class FolderTable(Table):
    """The tables of several subfolders, one after another.

    ``file_name`` is relative to the folder, and the name of a subfolder is the cell ``split`` of rows without one.

    Args:
        folder: the folder.
        parts: the name of each subfolder and its table.
    """

    def __init__(self, folder: Path, parts: list[tuple[str, Table]]) -> None:
        self.path = self.folder = folder
        self.name = folder.name
        self.is_metadata = True
        self._parts = parts
        self.columns = tuple(dict.fromkeys([*(name for _, part in parts for name in part.columns), "split"]))
        self._read = 0

    def __iter__(self) -> Iterator[Row]:
        self._read = 0
        for split, part in self._parts:
            for row in part:
                self._read += 1
                cells = {"split": split, **row.cells}
                name = cells.get("file_name")
                if isinstance(name, str) and name.strip() and not os.path.isabs(os.path.expanduser(name.strip())):
                    cells["file_name"] = f"{split}/{name.strip()}"
                yield Row(self._read, row.line, cells, row.problem and f"in {split}/{part.name}, {row.problem}")

    @property
    def encoding(self) -> str:
        """What the lines were read as."""
        found = {encoding for _, part in self._parts for encoding in part.encoding.split(" and ")}
        return " and ".join(sorted(found))

    @property
    def progress(self) -> Progress:
        """How many rows have been read."""
        return Progress(self._read, None, "row")
