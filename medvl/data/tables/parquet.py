"""Rows of a Parquet file, by the extra ``tables``."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any, BinaryIO

from medvl.data.tables.rows import Parsed, Row, check_columns, column_name
from medvl.utils.extras import require_extra

_BATCH_ROWS = 1024


def parse_parquet(file: BinaryIO, name: str) -> Parsed:
    """Read the names of the columns, and the rows in batches.

    Raises:
        medvl.utils.extras.MissingExtraError: If pyarrow is not installed.
        ValueError: If the file is damaged or two columns have one name.
    """
    require_extra(f"Reading {name}", "tables")
    import pyarrow
    import pyarrow.parquet

    try:
        content = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"path: {name} is no Parquet file that can be read: it is damaged or cut off.") from error
    columns = [column_name(column) for column in content.schema_arrow.names]
    check_columns(columns, name)

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in content.iter_batches(_BATCH_ROWS, use_threads=False):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield Row(number, 0, dict(zip(columns, map(plain_value, cells), strict=True)))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"path: {name} is damaged from row {number + 1} on.") from error

    return Parsed(columns, rows())


def count_parquet_rows(file: BinaryIO) -> int:
    """The number of rows, from the file's end."""
    import pyarrow.parquet

    return int(pyarrow.parquet.ParquetFile(file).metadata.num_rows)


def plain_value(value: Any) -> Any:
    """A cell as a JSON value: times as text, decimals as numbers."""
    if value is None or isinstance(value, str | int | float | list | dict):
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else value
