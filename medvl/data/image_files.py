"""The image files that a table names."""

from __future__ import annotations

import itertools
import os
import re
import stat
import unicodedata
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from medvl.data.cells import CellError, read_path_part, strip_text
from medvl.data.leaks import file_identity
from medvl.utils.limits import check_regular_file


class ImageFiles:
    """Finds the files of image cells.

    Args:
        folder: what relative paths are relative to.
        suffix: what is added to a name that does not end in it, as ``.png``.
    """

    def __init__(self, folder: str | Path, suffix: str = "") -> None:
        self.folder, self.suffix = folder, suffix

    def find(self, cell: Any, column: str) -> tuple[str, Hashable]:
        """The absolute path of the file in a cell, and what it has in common with the other paths of that file.

        Raises:
            CellError: If the cell holds no path, or the file does not exist.
        """
        if self.suffix and isinstance(cell, int | float):
            cell = read_path_part(cell, column)
        if not isinstance(cell, str):
            raise CellError(column, f"expected a path, got {type(cell).__name__}")
        # The second, if it differs, is of a file whose own name begins as a cell that a spreadsheet must not run.
        names = [self._with_suffix(text) for text in dict.fromkeys((strip_text(cell), cell.strip()))]
        name = names[0]
        path = os.path.abspath(os.path.join(self.folder, name))
        for spelling in itertools.chain.from_iterable(map(_spellings, names)):
            candidate = os.path.abspath(os.path.join(self.folder, spelling))
            try:
                status = os.stat(candidate)
            except (OSError, ValueError):
                continue
            if not stat.S_ISDIR(status.st_mode):  # a folder is a DICOM series
                try:
                    check_regular_file(candidate)
                except ValueError as error:
                    raise CellError(column, str(error).removesuffix(".")) from error
            return candidate, file_identity(candidate, status)
        # A report in the wrong column is not repeated.
        if re.fullmatch(r"\S{1,250}|[^\n]{1,250}\.\w{2,5}", name):
            raise CellError(column, f"the file {name} does not exist (looked for {path})")
        raise CellError(column, f"expected the path of an image, got a text of {len(cell)} characters")

    def _with_suffix(self, text: str) -> str:
        name = os.path.expanduser(text)
        return name if name.lower().endswith(self.suffix.lower()) else name + self.suffix


def _spellings(name: str) -> list[str]:
    """The name, and what it may be on another system: Windows separators, composed or decomposed letters (macOS)."""
    names = [name, name.replace("\\", "/")]
    names += [unicodedata.normalize(form, one) for form in ("NFC", "NFD") for one in names]
    return list(dict.fromkeys(names))
