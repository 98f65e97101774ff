"""A table of reports becomes a table of finding states, row by row in constant memory."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from medvl.text.findings import Mention, find_findings, label_report
from medvl.text.sentences import split_sentences
from medvl.text.vocabulary import Vocabulary, load_vocabulary

BY = ("report", "sentence")
_CELLS = {1.0: "1", 0.0: "0", -1.0: "-1"}
_ASSERTIONS = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
_EXPLAINED = ("mention", "cue", "sentence")


@dataclass
class LabelSummary:
    """What :func:`label_table` did.

    Args:
        rows: rows read.
        empty: rows without a report, whose states are all blank.
        written: rows written.
        states: for each finding, how many rows are present, absent and uncertain.
    """

    rows: int = 0
    empty: int = 0
    written: int = 0
    states: dict[str, Counter[str]] = field(default_factory=dict)


def label_table(
    path: str | Path,
    column: str,
    output: str | Path,
    vocabulary: str | Path | Vocabulary = "chexpert14",
    by: str = "report",
    explain: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LabelSummary:
    """Label the reports of a table, one row after the other.

    The output has the input's columns without the text, then one column a finding as in CheXpert's tables: 1 present,
    0 absent, -1 uncertain, blank not mentioned. It appears whole or not at all.

    Args:
        path: a CSV or TSV file (by its ending) with a header, in UTF-8; bytes that are not are replaced.
        column: the column that holds the reports.
        output: the CSV to write.
        vocabulary: name or path for :func:`medvl.text.load_vocabulary`, or a loaded vocabulary.
        by: ``"report"`` for a row a report; ``"sentence"`` for a row a sentence, with its number and place in the report
            (``sentence_number``, ``sentence_start``, ``sentence_end``) and its text (``sentence``).
        explain: add for each finding the mention, the cue and the sentence that decided its state.
        progress: called with the number of rows done, after each.

    Returns:
        Counts of rows and states.

    Raises:
        FileNotFoundError: if ``path`` is not there.
        ValueError: for a column that the table does not have, an unknown ``by``, an output that is the input, or column
            names that the output would hold twice.

    Example:
        >>> label_table("reports.csv", "text", "labels.csv", by="sentence", explain=True)  # doctest: +SKIP
    """
    path, output = Path(path), Path(output)
    if by not in BY:
        raise ValueError(f"by must be one of {BY}, got {by!r}")
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    if output.resolve() == path.resolve():
        raise ValueError(f"output must be another file than the table itself, got {output}")
    vocabulary = load_vocabulary(vocabulary)
    summary = LabelSummary(states={name: Counter() for name in vocabulary.names})
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as source, _whole_file(output) as target:
        reader = _reader(source, path)
        columns = list(reader.fieldnames or [])
        if column not in columns:
            raise ValueError(f"column must be one of the table's columns {columns}, got {column!r}")
        kept = [name for name in columns if name != column]
        writer = csv.writer(target, lineterminator="\n")
        header = [*kept, *_new_columns(vocabulary, by, explain)]
        twice = sorted(name for name, count in Counter(header).items() if count > 1)
        if twice:
            raise ValueError(f"path: the table already has the columns {twice} that the output adds")
        writer.writerow(header)
        for row in reader:
            summary.rows += 1
            text = row[column] or ""
            summary.empty += not text.strip()
            for cells in _labelled(text, vocabulary, by, explain, summary):
                writer.writerow([*(row[name] for name in kept), *cells])
                summary.written += 1
            if progress is not None:
                progress(summary.rows)
    return summary


def _reader(source: IO[str], path: Path) -> csv.DictReader[str]:
    # A report may be longer than the csv module's default limit of 128 KiB a cell.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return csv.DictReader(source, delimiter="\t" if path.suffix.lower() in (".tsv", ".tab") else ",")


def _new_columns(vocabulary: Vocabulary, by: str, explain: bool) -> list[str]:
    place = ["sentence_number", "sentence_start", "sentence_end", "sentence"] if by == "sentence" else []
    reasons = [f"{name} {what}" for name in vocabulary.names for what in _EXPLAINED] if explain else []
    return [*place, *vocabulary.names, *reasons]


def _labelled(text: str, vocabulary: Vocabulary, by: str, explain: bool, summary: LabelSummary) -> Iterator[list[Any]]:
    """Cells of the rows that one report becomes."""
    if by == "report":
        yield _states(text, vocabulary, explain, summary)
        return
    for number, (start, end) in enumerate(split_sentences(text)):
        sentence = text[start:end]
        yield [number, start, end, sentence, *_states(sentence, vocabulary, explain, summary)]


def _states(text: str, vocabulary: Vocabulary, explain: bool, summary: LabelSummary) -> list[str]:
    states = dict(zip(vocabulary.names, label_report(text, vocabulary).tolist(), strict=True))
    for name, state in states.items():
        if state in _ASSERTIONS:
            summary.states[name][_ASSERTIONS[state]] += 1
    cells = [_CELLS.get(state, "") for state in states.values()]
    if explain:
        mentions = find_findings(text, vocabulary)
        for name, state in states.items():
            cells += _reason(text, name, _ASSERTIONS.get(state), mentions)
    return cells


def _reason(text: str, name: str, assertion: str | None, mentions: list[Mention]) -> list[str]:
    """Mention, cue and sentence that gave a finding its state; blank where no single one did."""
    for mention in mentions:
        if mention.finding == name and mention.assertion == assertion:
            spans = (mention.span, mention.cue, mention.sentence)
            return ["" if span is None else text[span.start : span.end] for span in spans]
    return ["", "", ""]


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its name only when it was written to the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
            yield file
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
