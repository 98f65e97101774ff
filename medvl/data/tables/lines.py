"""Lines of a text file in UTF-8, UTF-16, UTF-32 or Windows-1252, decoded as they are read."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextLines:
    """The lines of a file, each with its line end.

    A line that is not UTF-8 is read as Windows-1252, or as Latin-1 where it has one of the five bytes that Windows-1252 does
    not define.

    Args:
        file: the bytes.
        name: the file's name, for errors.
        newline: ``""`` for lines that end in a line feed, a carriage return or both; ``"\\n"`` for a line feed only.

    Attributes:
        encodings: those that lines were read as so far, but for ASCII.

    Raises:
        ValueError: If a file with a byte order mark is not of that encoding.
    """

    def __init__(self, file: BinaryIO, name: str, newline: str = "") -> None:
        self.name = name
        self.encodings: set[str] = set()
        start = file.read(4)
        file.seek(0)
        marked = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "")
        if marked:
            self.encodings.add(marked)
        self._marked = marked
        errors = "strict" if marked else "surrogateescape"
        self._text = io.TextIOWrapper(file, encoding=marked or "utf-8-sig", errors=errors, newline=newline)

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._text:
                yield line if self._marked or line.isascii() else self._checked(line)
        except UnicodeDecodeError as error:
            raise ValueError(f"path: {self.name} has the byte order mark of {self._marked} and is damaged.") from error

    @property
    def encoding(self) -> str:
        """What the lines so far were read as: ``"utf-8"``, ``"cp1252"``, or several joined by "and"."""
        return " and ".join(sorted(self.encodings, key=lambda name: (name != "utf-8", name))) or "utf-8"

    def _checked(self, line: str) -> str:
        try:
            line.encode()
        except UnicodeEncodeError:
            data = line.encode("utf-8", "surrogateescape")
            for encoding in ("cp1252", "latin-1"):
                try:
                    text = data.decode(encoding)
                except UnicodeDecodeError:
                    continue
                self.encodings.add(encoding)
                return text
        self.encodings.add("utf-8")
        return line
