"""Labeling of a table of reports, row by row in constant memory."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from medvl.text.characters import lower_case, plain_characters
from medvl.text.findings import Mention, combine_states, find_findings, label_sentences
from medvl.text.reading import read_sentences
from medvl.text.sentences import split_sentences
from medvl.text.vocabulary import Vocabulary, load_vocabulary
from medvl.utils.checks import check_option, error_message
from medvl.utils.csv_files import CsvWriter
from medvl.utils.io import atomic_write

TEXT_UNITS = ("report", "sentence")
_CELLS = {1.0: "1", 0.0: "0", -1.0: "-1"}
_ASSERTIONS = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
_EXPLANATIONS = ("mention", "cue", "sentence")
_SENTENCE_COLUMNS = ("sentence_number", "sentence_start", "sentence_end", "sentence")


@dataclass
class LabelSummary:
    """Counts of a run of :func:`label_table`.

    Args:
        rows: number of rows read.
        empty: number of rows without a report, whose states are all blank.
        written: number of rows written.
        skipped: number of sentences in sections without observations, which give no state.
        other_language: number of reports with a sentence that is mostly in another language, which gives no state.
        states: for each finding, the number of rows in which it is present, absent and uncertain.
    """

    rows: int = 0
    empty: int = 0
    written: int = 0
    skipped: int = 0
    other_language: int = 0
    states: dict[str, Counter[str]] = field(default_factory=dict)


def label_table(
    path: str | Path,
    column: str,
    output: str | Path,
    vocabulary: str | Path | Vocabulary = "chexpert14",
    text_unit: str = "report",
    explain: bool = False,
    raw_cells: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LabelSummary:
    """Label the reports of a table, row by row.

    The output has the columns of the input except for the text, then one column for each finding as in CheXpert's tables:
    1 present, 0 absent, -1 uncertain, blank not mentioned. It is written completely or not at all.

    Args:
        path: a CSV or TSV file (by its suffix) with a header, in UTF-8; invalid bytes are replaced.
        column: the column of the reports.
        output: the CSV file to write.
        vocabulary: name or path for :func:`medvl.text.load_vocabulary`, or a loaded vocabulary.
        text_unit: ``"report"`` for one row for each report; ``"sentence"`` for one row for each sentence, with its number and
            offsets in the report (``sentence_number``, ``sentence_start``, ``sentence_end``) and its text (``sentence``).
        explain: add for each finding the mention, the cue and the sentence that decided its state.
        raw_cells: write every cell as it is. By default a text that a spreadsheet would run as a formula (it begins with
            ``=``, ``+``, ``-`` or ``@``) gets an apostrophe before it, see :mod:`medvl.utils.csv_files`.
        progress: called after each row with the number of rows read so far.

    Returns:
        Counts of rows and states.

    Raises:
        FileNotFoundError: If ``path`` or the vocabulary does not exist.
        ValueError: If the table does not have ``column``, ``text_unit`` is unknown, ``output`` is the input, or the output
            would have a column name twice.

    Example:
        >>> label_table("reports.csv", "text", "labels.csv", text_unit="sentence", explain=True)  # doctest: +SKIP
    """
    path, output = Path(path), Path(output)
    check_option(text_unit, "text_unit", TEXT_UNITS)
    if not path.is_file():
        raise FileNotFoundError(f"the file {path} does not exist.")
    if output.resolve() == path.resolve():
        raise ValueError(error_message("output", "differ from path", output))
    vocabulary = load_vocabulary(vocabulary)
    summary = LabelSummary(states={name: Counter() for name in vocabulary.names})
    with (
        path.open(newline="", encoding="utf-8-sig", errors="replace") as source,
        atomic_write(output, newline="") as target,
    ):
        reader = _reader(source, path)
        columns = list(reader.fieldnames or [])
        check_option(column, "column", columns)
        kept = [name for name in columns if name != column]
        writer = CsvWriter(target, raw=raw_cells)
        writer.write_row(_header(kept, vocabulary, text_unit, explain))
        for row in reader:
            summary.rows += 1
            text = row[column] or ""
            summary.empty += not text.strip()
            for cells in _label_rows(text, vocabulary, text_unit, explain, summary):
                writer.write_row([*(row[name] for name in kept), *cells])
                summary.written += 1
            if progress is not None:
                progress(summary.rows)
    return summary


def _reader(source: IO[str], path: Path) -> csv.DictReader[str]:
    # A report may be longer than the csv module's default limit of 128 KiB for a cell.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return csv.DictReader(source, delimiter="\t" if path.suffix.lower() in (".tsv", ".tab") else ",")


def _header(kept: list[str], vocabulary: Vocabulary, text_unit: str, explain: bool) -> list[str]:
    """The columns of the output: those kept of the input, and those added."""
    place = _SENTENCE_COLUMNS if text_unit == "sentence" else ()
    explanations = [f"{name} {part}" for name in vocabulary.names for part in _EXPLANATIONS] if explain else []
    header = [*kept, *place, *vocabulary.names, *explanations]
    if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
        raise ValueError(error_message("path", "be a table without the columns that the output adds", repeated))
    return header


def _label_rows(
    text: str, vocabulary: Vocabulary, text_unit: str, explain: bool, summary: LabelSummary
) -> Iterator[list[Any]]:
    """Yield the added cells of each output row of one report."""
    plain, _ = plain_characters(text)
    readings = list(read_sentences(plain, lower_case(plain), vocabulary))
    reasons = Counter(reading for _, reading in readings if isinstance(reading, str))
    summary.skipped += reasons["section"]
    summary.other_language += reasons["language"] > 0
    mentions = find_findings(text, vocabulary) if explain else None
    if text_unit == "report":
        yield _label_cells(text, combine_states(readings, vocabulary).tolist(), vocabulary, mentions, summary)
        return
    _, states = label_sentences(text, vocabulary)
    for number, ((start, end), row) in enumerate(zip(split_sentences(text), states.tolist(), strict=True)):
        own = None if mentions is None else [m for m in mentions if start <= m.span.start < end]
        yield [number, start, end, text[start:end], *_label_cells(text, row, vocabulary, own, summary)]


def _label_cells(
    text: str, row: list[float], vocabulary: Vocabulary, mentions: list[Mention] | None, summary: LabelSummary
) -> list[str]:
    """States (K,) as cells, with explanations if there are mentions; counts them in ``summary``."""
    states = dict(zip(vocabulary.names, row, strict=True))
    for name, state in states.items():
        if state in _ASSERTIONS:
            summary.states[name][_ASSERTIONS[state]] += 1
    cells = [_CELLS.get(state, "") for state in states.values()]
    if mentions is not None:
        for name, state in states.items():
            cells += _explanation(text, name, _ASSERTIONS.get(state), mentions)
    return cells


def _explanation(text: str, name: str, assertion: str | None, mentions: list[Mention]) -> list[str]:
    """The mention, cue and sentence that gave a finding its state; blank where no single mention did."""
    for mention in mentions:
        if mention.finding == name and mention.assertion == assertion:
            spans = (mention.span, mention.cue, mention.sentence)
            return ["" if span is None else text[span.start : span.end] for span in spans]
    return [""] * len(_EXPLANATIONS)
