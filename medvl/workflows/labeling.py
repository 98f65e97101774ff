"""Labeling of a table of reports: block by block in constant memory, on one or several processes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from medvl.data.cells import CellError
from medvl.data.tables import Progress, Row, Table, read_joined_table
from medvl.data.tables.join import parse_join
from medvl.data.tables.output import TableOutput, check_output
from medvl.data.tables.reports import ReportColumns
from medvl.data.text_labels import labeler_version
from medvl.text import Vocabulary, load_vocabulary
from medvl.text.label_table import TEXT_UNITS, LabelSummary, label_cells, label_columns
from medvl.utils.checks import check_integer, check_option
from medvl.utils.errors import StudyError
from medvl.utils.io import check_not_input
from medvl.utils.worker_processes import begin_worker, worker_context

BLOCK_ROWS = 256
"""Rows that one process labels at a time, and between which a run can be interrupted and gone on with."""

Labeled = tuple[list[list[list[Any]]], LabelSummary]
"""For each report of a block the cells of its rows, and the counts."""


class _Block(NamedTuple):
    rows: int
    kept: list[list[Any]]
    texts: list[str]
    skipped: int
    digest: str


def label_table(
    path: str | Path,
    report_column: str | Sequence[str],
    output: str | Path,
    vocabulary: str | Path | Vocabulary = "chexpert14",
    text_unit: str = "report",
    explain: bool = False,
    raw_cells: bool = False,
    join: str | Sequence[str] = (),
    num_workers: int = 0,
    resume: bool = False,
    on_error: str = "raise",
    progress: Callable[[int, Progress], None] | None = None,
) -> LabelSummary:
    """Label the reports of a table.

    The output has the columns of the input except for the reports, then one column for each finding as in CheXpert's tables:
    1 present, 0 absent, -1 uncertain, blank not mentioned. It is written completely or not at all, and is the same for any
    number of processes. The memory needed does not grow with the table.

    Args:
        path: a table of any format that :func:`medvl.data.tables.read_table` reads; ``-`` for standard input.
        report_column: the column of the reports; several are joined in this order, each under its name as a header if it is
            that of a section.
        output: the file to write: ``.csv``, ``.tsv``, ``.csv.gz``, ``.tsv.gz``, ``.parquet`` or ``.xlsx``; ``-`` for standard
            output.
        vocabulary: name or path for :func:`medvl.text.load_vocabulary`, or a loaded vocabulary.
        text_unit: ``"report"`` for one row for each report; ``"sentence"`` for one row for each sentence, with its number and
            offsets in the report (``sentence_number``, ``sentence_start``, ``sentence_end``) and its text (``sentence``).
        explain: add for each finding the mention, the cue and the sentence that decided its state, and how the text was read.
        raw_cells: write every cell as it is. By default a text that a spreadsheet would run as a formula (it begins with
            ``=``, ``+``, ``-`` or ``@``) gets an apostrophe before it, see :mod:`medvl.utils.csv_files`.
        join: other tables whose columns are added, as ``TABLE:KEY`` (:func:`medvl.data.tables.read_joined_table`).
        num_workers: processes that label; 0 for this one.
        resume: go on with what an interrupted run left beside the output, and leave what is done if this run is interrupted.
        on_error: ``"raise"`` the error of the first row that cannot be read, or ``"skip"`` and count such rows.
        progress: called after each block of rows with the number of rows read so far, and how much of the table that is.

    Returns:
        Counts of rows and states.

    Raises:
        OSError: If the table or the vocabulary cannot be read, or the output cannot be written.
        ValueError: If the table does not have ``report_column``, an option is unknown, ``output`` is a file that is read, the
            output would have a column name twice, or a run is resumed whose table or options have changed.
        medvl.utils.errors.StudyError: If a row cannot be read and ``on_error`` is ``"raise"``.

    Example:
        >>> label_table("reports.csv", "text", "labels.csv", text_unit="sentence", explain=True)  # doctest: +SKIP
    """
    check_option(text_unit, "text_unit", TEXT_UNITS)
    check_option(on_error, "on_error", ("raise", "skip"))
    check_integer(num_workers, "num_workers", minimum=0)
    check_output(output)
    tables = (path, *(parse_join(text).path for text in ([join] if isinstance(join, str) else join)))
    check_not_input(output, (*tables, None if isinstance(vocabulary, Vocabulary) else vocabulary))
    loaded = load_vocabulary(vocabulary)
    table = read_joined_table(path, join)
    reports = ReportColumns(table, report_column)
    kept = [name for name in table.columns if name not in reports.columns]
    header = label_columns(kept, loaded.names, text_unit, explain)
    identity = _identity(header, reports.columns, vocabulary, text_unit, explain, raw_cells)
    integers = {*loaded.names, *(header[len(kept) : len(kept) + 3] if text_unit == "sentence" else ())}
    with ExitStack() as stack:
        labeled = stack.enter_context(_Labeler(loaded, text_unit, explain, num_workers))
        target = stack.enter_context(TableOutput(output, header, integers, raw_cells, resume, identity))
        state = target.state or {"rows": 0, "digest": "", "summary": None}
        summary = LabelSummary.from_dict(state["summary"]) if state["summary"] else LabelSummary()
        for name in loaded.names:
            summary.states.setdefault(name, Counter())
        blocks = _blocks(table, reports, kept, on_error, state["rows"], state["digest"])
        rows = state["rows"]
        for block, (cells, counts) in labeled.run(blocks):
            rows += block.rows
            summary.add(counts)
            summary.rows += block.skipped
            summary.skipped_rows += block.skipped
            target.write_rows([*own, *added] for own, report in zip(block.kept, cells, strict=True) for added in report)
            target.end_block({"rows": rows, "digest": block.digest, "summary": summary.to_dict()})
            if progress is not None:
                progress(rows, table.progress)
        summary.unmatched = table.unmatched
    return summary


def _identity(
    header: Sequence[str],
    report_columns: Sequence[str],
    vocabulary: str | Path | Vocabulary,
    text_unit: str,
    explain: bool,
    raw_cells: bool,
) -> str:
    """A hash of what an output depends on beside the table's rows."""
    version = vocabulary.names if isinstance(vocabulary, Vocabulary) else labeler_version(vocabulary)
    parts = [list(header), list(report_columns), version, text_unit, explain, raw_cells]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _blocks(
    table: Table, reports: ReportColumns, kept: Sequence[str], on_error: str, done: int, digest: str
) -> Iterator[_Block]:
    """The rows of a table in blocks, without the first ``done``, which must be those that ``digest`` is of."""
    rows = iter(table)
    seen = hashlib.blake2b(digest_size=16)
    for row in islice(rows, done):
        seen.update(_row_bytes(row))
    if done and seen.hexdigest() != digest:
        raise ValueError(
            f"path: the first {done} rows of {table.name} are not those that the interrupted run has labeled; run without "
            "--resume to begin anew."
        )
    while chunk := list(islice(rows, BLOCK_ROWS)):
        own: list[list[Any]] = []
        texts: list[str] = []
        for row in chunk:
            seen.update(_row_bytes(row))
            try:
                if row.problem:
                    raise CellError(reports.name, row.problem)
                text = reports.read(row.cells)
            except CellError as error:
                if on_error == "raise":
                    reason = f"{row.position}: {error.reason}"
                    raise StudyError(f"row {row.number}", error.column, reason) from error
                continue
            own.append([_plain(row.cells.get(column)) for column in kept])
            texts.append(text or "")
        yield _Block(len(chunk), own, texts, len(chunk) - len(own), seen.copy().hexdigest())


def _row_bytes(row: Row) -> bytes:
    return repr((row.cells, row.problem)).encode("utf-8", "backslashreplace")


def _plain(cell: Any) -> Any:
    """A cell of JSON, Parquet or Excel as a cell of CSV."""
    if isinstance(cell, list | dict | bool):
        return json.dumps(cell, ensure_ascii=False)
    return "" if cell is None or cell != cell else cell


def _label_texts(texts: Iterable[str], vocabulary: Vocabulary, text_unit: str, explain: bool) -> Labeled:
    summary = LabelSummary()
    return [list(label_cells(text, vocabulary, text_unit, explain, summary)) for text in texts], summary


class _Labeler:
    """Labels blocks in order, in this process or in several others, of which each has two blocks to do at most."""

    def __init__(self, vocabulary: Vocabulary, text_unit: str, explain: bool, num_workers: int) -> None:
        self._options = (vocabulary, text_unit, explain)
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Labeler:
        if self._num_workers:
            self._pool = ProcessPoolExecutor(self._num_workers, worker_context(), _start_worker, self._options)
            # The workers are forked now: one that is forked later has the output open, and holds its lock for a moment after
            # this process was killed.
            self._pool.submit(int)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, blocks: Iterable[_Block]) -> Iterator[tuple[_Block, Labeled]]:
        """Each block with its labels."""
        if self._pool is None:
            for block in blocks:
                yield block, _label_texts(block.texts, *self._options)
            return
        waiting: deque[tuple[_Block, Future[Labeled]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, self._pool.submit(_work, block.texts)))
                if len(waiting) > 2 * self._num_workers:
                    first, labels = waiting.popleft()
                    yield first, labels.result()
            while waiting:
                first, labels = waiting.popleft()
                yield first, labels.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "num_workers: a labeling process was ended from outside, as by a lack of memory; use fewer."
            ) from error


_worker_options: tuple[Vocabulary, str, bool]


def _start_worker(vocabulary: Vocabulary, text_unit: str, explain: bool) -> None:
    global _worker_options
    _worker_options = (vocabulary, text_unit, explain)
    begin_worker()


def _work(texts: list[str]) -> Labeled:
    return _label_texts(texts, *_worker_options)
