"""Cells of a table: what is missing, ids, names of classes, and lists in one cell."""

from __future__ import annotations

import contextlib
import json
import math
import re
import unicodedata
from typing import Any

from medvl.utils.csv_files import original_text

#: What spreadsheets, pandas, R and SQL write for "no value", and a spreadsheet's errors ("#NAME?" for "- No effusion").
MISSING = frozenset(
    {"", "nan", "none", "null", "na", "n/a", "n.a.", "nat", "<na>", "#n/a", "#na", "#n/a n/a"}
    | {"-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
    | {"\\n", "(null)", "[null]"}
    | {"#name?", "#ref!", "#value!", "#div/0!", "#num!", "#null!"}
)

#: What an export writes for the id of a person who is not known.
_NO_ID = frozenset(
    {
        "unknown",
        "unk",
        "anonymous",
        "anonymized",
        "anonymised",
        "anon",
        "not available",
        "undefined",
        "removed",
        "redacted",
    }
    | {"unbekannt", "k.a.", "k. a.", "anonym", "inconnu", "inconnue", "desconocido", "desconocida"}
)

# Characters that are not seen: soft hyphens, joiners, marks of direction and of byte order, selectors of variants.
_UNSEEN_CODES = (0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))
_ZERO_WIDTH = "".join(map(chr, (*_UNSEEN_CODES, *range(0xFE00, 0xFE10), 0xFEFF)))
_HYPHENS = (
    "\u02d7\u058a\u05be\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2e3a\u2e3b\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_ONE_SPELLING = str.maketrans(dict.fromkeys(_ZERO_WIDTH, "") | dict.fromkeys(_HYPHENS, "-"))
_QUOTES = " \"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
_SMALL_NUMBER = re.compile(r"[+-]?[0-9]{1,2}([.,][0-9]{1,2})?")
_THOUSAND_OR_ONE = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,]000")
_SEPARATORS = re.compile(r"\r\n|[;|\n\r\v\f\x85\u2028\u2029\uff1b\uff5c\u2022\u2023\u25cf\u25aa\u25e6\uf0b7]")
_LIST_MARK = re.compile(r"^[-*\u2013\u00b7]\s+")
_COMMAS = re.compile(r"[,\t\uff0c\uff64\u3001]")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_ELEMENT = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,'"\s][^,'"]*|(?=,))\s*(,|\s|$)\s*""")


class CellError(ValueError):
    """A cell that cannot be used: its column, and what was expected and found."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


def strip_text(text: str) -> str:
    """Text without white space and characters of no width at its ends, and without the apostrophe that keeps a spreadsheet
    from running it (:func:`~medvl.utils.csv_files.original_text`)."""
    stripped = original_text(text.strip().strip(_ZERO_WIDTH))
    while stripped != text:
        text, stripped = stripped, original_text(stripped.strip().strip(_ZERO_WIDTH))
    return text


def fold_characters(text: str) -> str:
    """Text with one kind of hyphen and of space, and without characters of no width, wherever they are.

    Example:
        >>> [fold_characters(text) for text in ("P\u201312", "P\u201112", "P-\u200b12", "P\xad-12")]
        ['P-12', 'P-12', 'P-12', 'P-12']
    """
    return text if text.isascii() else " ".join(text.translate(_ONE_SPELLING).split())


def is_missing(cell: Any) -> bool:
    """Whether a cell is empty: absent, null, NaN, white space, or a word such as "nan", "NA" or "none"."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return isinstance(cell, str) and strip_text(cell).lower() in MISSING


def is_blank(cell: Any) -> bool:
    """Whether a cell of text is missing or has neither letter nor digit, as ``-``, ``--`` or ``?``."""
    return is_missing(cell) or (isinstance(cell, str) and not any(map(str.isalnum, cell)))


def describe_cell(cell: Any) -> str:
    """What a cell that cannot be used holds, for an error: a small number as it is, but no text and no id.

    Example:
        >>> [describe_cell(cell) for cell in ("2", 0.5, "77194038", "J. Doe", " ")]
        ['2', '0.5', 'a number', 'a text', 'an empty cell']
    """
    text = strip_text(str(cell))
    if is_missing(cell) or not text:
        return "an empty cell"
    if _SMALL_NUMBER.fullmatch(text):
        return text
    return "a number" if _is_number(text) else "a text"


def read_id(cell: Any, column: str) -> str:
    """The id in a cell; ``""`` if there is none.

    A spreadsheet or pandas may have made a number of it: ``7``, ``"7"``, ``7.0``, ``7,0``, ``'7`` and ``="7"`` are one id.
    ``007`` is another. Ids that differ only in the kind of hyphen or space, or in characters that are not seen, are one.

    Args:
        cell: the cell.
        column: its column, for the error.

    Raises:
        CellError: If the cell holds a list or an object, a number that was rounded (``1.23457E+11``), or one that is either a
            thousand or one with decimals (``1,000``, ``1.000``).

    Example:
        >>> [read_id(cell, "patient") for cell in (7, "7.0", " 7 ", '="007"', "N/A", "unknown")]
        ['7', '7', '7', '007', '', '']
    """
    text = fold_characters(_read_text(cell, column))
    if is_blank(text) or text.lower() in _NO_ID:
        return ""
    if _THOUSAND_OR_ONE.fullmatch(text):
        whole = re.split("[.,]", text)[0]
        reason = f"expected an id, got {text}, which may be {whole} or {whole}000; save the column as whole numbers"
        raise CellError(column, reason)
    return _without_fraction(text)


def read_path_part(cell: Any, column: str) -> str:
    """The text of a cell that is part of a path, as it is but for what a spreadsheet or pandas made of it: ``7`` of ``7.0``.

    Raises:
        CellError: If the cell holds a list or an object, or a number that was rounded.
    """
    text = _read_text(cell, column)
    return text if _THOUSAND_OR_ONE.fullmatch(text) else _without_fraction(text)


def _read_text(cell: Any, column: str) -> str:
    """The text of a cell of ids or names, without what keeps a spreadsheet from reading a number."""
    if is_missing(cell):
        return ""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise CellError(column, f"expected an id, got {type(cell).__name__}")
    text = " ".join(unicodedata.normalize("NFC", strip_text(str(cell))).split())
    if re.fullmatch(r'="[^"]*"', text):  # how exports keep a spreadsheet from reading a number
        text = strip_text(text[2:-1])
    if re.match(r"'[+-]?\d", text) and text.count("'") == 1:  # how a number is typed as a text
        text = strip_text(text[1:])
    if re.fullmatch(r"[+-]?\d(\.\d+)?[eE]\+\d+", text) or text in ("inf", "-inf"):
        raise CellError(column, f"expected an id, got the rounded number {text}; save the column as text")
    return text


def normalize_name(name: str) -> str:
    """A column or finding name without its case, underscores, extra white space, and other forms of its characters.

    Example:
        >>> normalize_name("Pleural_Effusion ")
        'pleural effusion'
    """
    name = fold_characters(unicodedata.normalize("NFKC", strip_text(name)))
    return " ".join(name.replace("_", " ").casefold().split())


def strip_ends(name: str) -> str:
    """A name without white space and quotes at its ends and punctuation behind it; one of nothing else as it is."""
    return name.lstrip(_QUOTES).rstrip(_QUOTES + ".,;:!") or name


def class_key(name: Any) -> str:
    """What two spellings of one class have in common: :func:`normalize_name`, without punctuation and quotes at its ends, and
    ``2`` for ``2.0``."""
    return _without_fraction(strip_ends(normalize_name(str(name))))


def split_cell(cell: Any, column: str) -> tuple[list[Any], bool]:
    """The parts of a cell that holds a whole label, and whether they are those of a list, whose elements are not split.

    A list is one of JSON, of Python (``['a', 'b']``) or of NumPy (``['a' 'b']``, ``[1. 0.]``); any other text is split at
    ``|``, ``;``, bullets and line breaks, and numbers also at commas or white space; a hyphen or star before each of
    several names is that of a list. Missing parts stay, since a list of numbers has them.

    Raises:
        CellError: If the cell holds an object or a list that does not end.

    Example:
        >>> split_cell("['a', 'b, c']", "y"), split_cell("a|b, c", "y"), split_cell("1 0 -1", "y")
        ((['a', 'b, c'], True), (['a', 'b, c'], False), (['1', '0', '-1'], False))
    """
    if isinstance(cell, list | tuple):
        if any(isinstance(part, list | dict) for part in cell):
            raise CellError(column, "expected names or numbers, got a list in a list")
        return list(cell), True
    if isinstance(cell, dict):
        raise CellError(column, "expected names or numbers, got an object")
    if is_missing(cell):
        return [], False
    if not isinstance(cell, str):
        return [cell], False
    text = strip_text(cell)
    if text[0] in _BRACKETS and (parts := _bracketed(text, column)) is not None:
        return parts, True
    parts = [strip_text(part) for part in _SEPARATORS.split(text)]
    names = [_LIST_MARK.sub("", part) for part in parts]
    if len(parts) > 1 and not any(
        name == part or _is_number(name) for name, part in zip(names, parts, strict=True) if part
    ):
        return names, False
    if len(parts) == 1:
        for numbers in (text.split(","), text.split()):
            if len(numbers) > 1 and all(map(_is_number, numbers)):
                return list(map(strip_text, numbers)), False
    return parts, False


def split_commas(name: str) -> list[str]:
    """The parts of a name between its commas, without blank ones."""
    return [strip_text(part) for part in _COMMAS.split(name) if not is_blank(part)]


def _bracketed(text: str, column: str) -> list[Any] | None:
    """The elements of a list, tuple or set in one cell; None for a name that begins with a bracket."""
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
    if isinstance(value, list | dict):
        return split_cell(value, column)[0]
    closed = text[-1] == _BRACKETS[text[0]]
    if text[0] == "[" and not closed:
        raise CellError(column, "expected a list that ends with ], got one that does not")
    inner = text[1:-1].strip()
    if re.match(r"""('[^']*'|"[^"]*")\s*:""", inner):
        raise CellError(column, "expected names or numbers, got an object")
    if not closed or (text[0] != "[" and not inner.startswith(("'", '"')) and not _is_number(inner.split(",")[0])):
        return None
    elements: list[str] = []
    position = 0
    while position < len(inner):
        found = _ELEMENT.match(inner, position)
        if found is None:
            raise CellError(column, "expected a list of quoted names or of numbers, got one that cannot be read")
        elements.append(found[1].strip())
        position = found.end()
    if len(elements) == 1 and all(map(_is_number, numbers := elements[0].split())):  # NumPy: [1. 0. nan]
        elements = numbers
    return [re.sub(r"\\(.)", r"\1", part[1:-1]) if part[:1] in ("'", '"') else part for part in elements]


def _is_number(text: str) -> bool:
    if is_missing(text):
        return True
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in ("true", "false")
    return True


def _without_fraction(text: str) -> str:
    return re.split("[.,]", text)[0] if re.fullmatch(r"[+-]?\d+(\.0*|,0+)", text) else text
