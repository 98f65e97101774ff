"""Tables of CSV, TSV, JSON, JSONL, Parquet and Excel: one reader of rows for every command and data set."""

from __future__ import annotations

from medvl.data.tables.join import read_joined_table
from medvl.data.tables.rows import Row
from medvl.data.tables.table import Progress, Table, read_table

__all__ = ["Progress", "Row", "Table", "read_joined_table", "read_table"]
