"""Rows of a Parquet file, by the extra ``tables``."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any, BinaryIO

from medvl.data.tables.rows import Parsed, Row, check_columns, column_name
from medvl.utils.extras import require_extra
from medvl.utils.limits import check_size

_BATCH_ROWS = 1024


def parse_parquet(file: BinaryIO, name: str) -> Parsed:
    """Read the names of the columns, and the rows in batches.

    Raises:
        medvl.utils.extras.MissingExtraError: If pyarrow is not installed.
        ValueError: If the file is damaged or unpacks to more than ``MEDVL_MAX_UNPACKED_BYTES``, or two columns have one name.
    """
    require_extra(f"Reading {name}", "tables")
    import pyarrow
    import pyarrow.parquet

    try:
        content = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"path: {name} is no Parquet file that can be read: it is damaged or cut off.") from error
    _check_unpacked(content, name)
    columns = [column_name(column) for column in content.schema_arrow.names]
    check_columns(columns, name)

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in content.iter_batches(_BATCH_ROWS, use_threads=False):
                check_size(batch.nbytes, f"path: {name}")
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield Row(number, 0, dict(zip(columns, map(plain_value, cells), strict=True)))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"path: {name} is damaged from row {number + 1} on.") from error

    return Parsed(columns, rows())


def _check_unpacked(content: Any, name: str) -> None:
    """Check what the columns unpack to by the file's metadata."""
    groups = [content.metadata.row_group(number) for number in range(content.metadata.num_row_groups)]
    sizes = [group.column(number).total_uncompressed_size for group in groups for number in range(group.num_columns)]
    check_size(sum(sizes) if min(sizes, default=0) >= 0 else -1, f"path: {name}")


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
