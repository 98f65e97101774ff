"""Rows of an Excel workbook (.xlsx), by the extra ``tables``."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from medvl.data.cells import is_missing
from medvl.data.tables.parquet import plain_value
from medvl.data.tables.rows import Parsed, Row, check_columns, column_name, name_cells
from medvl.utils.checks import error_message
from medvl.utils.extras import require_extra
from medvl.utils.limits import check_size


def parse_workbook(file: BinaryIO, name: str) -> Parsed:
    """Read the header of the one sheet with cells, and the rows as they are asked for.

    Raises:
        medvl.utils.extras.MissingExtraError: If openpyxl is not installed.
        ValueError: If the file is damaged or unpacks to more than ``MEDVL_MAX_UNPACKED_BYTES``, has several sheets with
            cells, cells that are merged below the header, or two columns have one name.
    """
    require_extra(f"Reading {name}", "tables")
    import openpyxl

    _check_archive(file, name)
    try:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # of zipfile, XML and openpyxl, whatever is damaged
        raise _damaged(name) from error
    sheets = [sheet for sheet in workbook.worksheets if _has_cells(sheet)]
    if len(sheets) > 1:
        titles = ", ".join(repr(sheet.title) for sheet in sheets)
        raise ValueError(
            error_message(f"path: {name}", "have one sheet with cells", f"{titles}; save the one to read as a file")
        )
    if not sheets:
        raise ValueError(f"path: {name} is empty; expected a header and at least one row.")
    formulas = _formula_cells(file, sheets[0].title)
    records = _records(sheets[0], name)
    line, header = next(records)
    _check_merged_cells(file, sheets[0].title, line, name)
    columns = list(map(column_name, header))
    check_columns(columns, name)
    return Parsed([column for column in columns if column], _rows(records, columns, formulas))


def _check_archive(file: BinaryIO, name: str) -> None:
    """Check what the parts unpack to by the archive's directory, beyond which zipfile reads none of them."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, NotImplementedError, struct.error) as error:
        raise _damaged(name) from error
    check_size(size, f"path: {name}")
    file.seek(0)


def _damaged(name: str) -> ValueError:
    return ValueError(f"path: {name} is no Excel workbook that can be read: it is damaged or cut off.")


def _has_cells(sheet: Any) -> bool:
    sheet.reset_dimensions()  # which some programs write wrongly
    return any(not is_missing(cell) for row in sheet.iter_rows(values_only=True) for cell in row)


def _records(sheet: Any, name: str) -> Iterator[tuple[int, list[Any]]]:
    """The rows that are not blank, with their numbers, without the blank cells at their ends."""
    try:
        for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = [plain_value(value) for value in values]
            while cells and is_blank_cell(cells[-1]):
                cells.pop()
            if cells:
                yield number, cells
    except (zipfile.BadZipFile, OSError, SyntaxError, KeyError) as error:
        raise ValueError(f"path: {name} is damaged.") from error


def is_blank_cell(cell: Any) -> bool:
    """Whether a cell of a sheet is empty or white space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _rows(
    records: Iterator[tuple[int, list[Any]]], columns: list[str], formulas: set[tuple[int, int]]
) -> Iterator[Row]:
    for number, (line, cells) in enumerate(records, start=1):
        cells += [None] * (len(columns) - len(cells))
        named, problem = name_cells(columns, cells)
        uncomputed = [
            column for place, column in enumerate(columns) if (line, place) in formulas and cells[place] is None
        ]
        if uncomputed and not problem:
            problem = (
                f"the formula in the column {uncomputed[0]!r} has no computed value; open and save the file in Excel"
            )
        yield Row(number, line, named, problem)


def _check_merged_cells(file: BinaryIO, title: str, header_line: int, name: str) -> None:
    """Raise if cells below the header are merged, since only the first of them has a value in the file."""
    import openpyxl

    if not _sheets_hold(file, b"<mergeCell "):
        return
    ranges = openpyxl.load_workbook(file)[title].merged_cells.ranges
    merged = sorted(str(cells.coord) for cells in ranges if cells.max_row > header_line)
    if merged:
        more = f" and {len(merged) - 1} more" if len(merged) > 1 else ""
        expected = "have no merged cells below its header (unmerge them and fill every row)"
        raise ValueError(error_message(f"path: {name}", expected, merged[0] + more))


def _sheets_hold(file: BinaryIO, tag: bytes) -> bool:
    with zipfile.ZipFile(file) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
        return any(tag in archive.read(name) for name in sheets)


def _formula_cells(file: BinaryIO, title: str) -> set[tuple[int, int]]:
    """Row (from 1) and place (from 0) of the cells with a formula, whose value may not have been saved."""
    import openpyxl

    if not _sheets_hold(file, b"<f"):
        return set()
    found = set()
    for row in openpyxl.load_workbook(file, read_only=True)[title].iter_rows():
        found |= {(cell.row, cell.column - 1) for cell in row if getattr(cell, "data_type", "") == "f"}
    return found
