"""``medvl label``: label a table of reports with finding states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvl.cli.messages import echo
from medvl.cli.options import COLUMNS, Joins, OnError, checked_on_error
from medvl.utils.counts import count_of

if TYPE_CHECKING:
    from medvl.data.tables import Progress
    from medvl.text import LabelSummary


def label(
    file: Annotated[
        str,
        typer.Argument(
            help="A table of reports: CSV, TSV, JSONL, JSON, also as .gz, Parquet or Excel; - for standard input."
        ),
    ],
    report_column: Annotated[
        list[str] | None,
        typer.Option(
            help="The column of the reports, 'report' by default; repeated, the texts of several columns are joined.",
            rich_help_panel=COLUMNS,
            show_default=False,
        ),
    ] = None,
    join: Joins = None,
    output: Annotated[
        str, typer.Option(help="The table to write: .csv, .tsv, also as .gz, .parquet or .xlsx; - for standard output.")
    ] = "labels.csv",
    vocabulary: Annotated[
        str, typer.Option(help="A built-in vocabulary, such as chexpert14 or chest_ct, or the path of a YAML file.")
    ] = "chexpert14",
    text_unit: Annotated[str, typer.Option(help="What one row of the output is: report or sentence.")] = "report",
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Add the mention, the cue and the sentence that decided each state, and how every sentence was read.",
        ),
    ] = False,
    raw_cells: Annotated[
        bool,
        typer.Option(
            "--raw-cells",
            help="Write cells as they are. By default a text that a spreadsheet would run as a formula, since it begins with "
            "=, +, - or @, gets an apostrophe before it.",
        ),
    ] = False,
    num_workers: Annotated[
        int, typer.Option("--num-workers", "--workers", help="Processes that label; 0 for none but this one.", min=0)
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where an interrupted run stopped, to the same output; an interruption of this run keeps what is done.",
        ),
    ] = False,
    on_error: OnError = "raise",
) -> None:
    """Label a table of reports with findings: 1 present, 0 absent, -1 uncertain, blank not mentioned.

    The table is read row by row, so its size is not limited by memory. The output has the columns of CheXpert's tables, is
    whole or not there, and is the same for any number of workers.

    Example:  medvl label reports.csv --report-column text --output labels.csv --explain

    Example:  medvl label cases.parquet --report-column findings --report-column impression --output labels.csv.gz
    """
    from medvl.workflows import label_table

    with _Bar() as bar:
        summary = label_table(
            file,
            report_column or "report",
            output,
            vocabulary,
            text_unit,
            explain,
            raw_cells,
            join=join or (),
            num_workers=num_workers,
            resume=resume,
            on_error=checked_on_error(on_error),
            progress=bar.show,
        )
    for line in _summary_lines(summary, output):
        echo(line, err=output == "-")


def _summary_lines(summary: LabelSummary, output: str) -> list[str]:
    to = "standard output" if output == "-" else output
    reports, rows = count_of(summary.rows, "report"), count_of(summary.written, "row")
    lines = [f"{reports}, {summary.empty} of them empty; {rows} in {to}."]
    if summary.skipped_rows:
        lines.append(f"{count_of(summary.skipped_rows, 'row was', 'rows were')} skipped for an error.")
    for name, number in summary.unmatched.items():
        lines.append(f"{count_of(number, 'row has', 'rows have')} no row in {name}.")
    if summary.skipped:
        lines.append(f"{count_of(summary.skipped, 'sentence')} without a state in sections such as the indication.")
    if summary.other_language:
        have = count_of(summary.other_language, "report has", "reports have")
        lines.append(f"{have} sentences in another language, which get no state.")
    return lines


class _Bar:
    """A progress bar that begins with the first rows, with a total where the size of the table is known."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def show(self, rows: int, read: Progress) -> None:
        """Show how much has been read."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc="label", total=read.total, unit=read.unit, unit_scale=read.unit == "B", delay=1)
        self._bar.update(read.done - self._bar.n)
        self._bar.set_postfix_str(count_of(rows, "report"), refresh=False)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
