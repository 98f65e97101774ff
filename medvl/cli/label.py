"""``medvl label``: label a table of reports with finding states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    file: Annotated[Path, typer.Argument(help="A table of reports (CSV or TSV).")],
    column: Annotated[str, typer.Option(help="The column of the reports.")] = "report",
    output: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("labels.csv"),
    vocabulary: Annotated[
        str, typer.Option(help="A built-in vocabulary, such as chexpert14 or chest_ct, or the path of a YAML file.")
    ] = "chexpert14",
    text_unit: Annotated[str, typer.Option(help="What one row of the output is: report or sentence.")] = "report",
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the mention, the cue and the sentence that decided each state.")
    ] = False,
    raw_cells: Annotated[
        bool,
        typer.Option(
            "--raw-cells",
            help="Write cells as they are. By default a text that a spreadsheet would run as a formula, since it begins with "
            "=, +, - or @, gets an apostrophe before it.",
        ),
    ] = False,
) -> None:
    """Label a table of reports with findings: 1 present, 0 absent, -1 uncertain, blank not mentioned.

    The table is read row by row, so its size is not limited by memory. The output has the columns of CheXpert's tables.

    Example:  medvl label reports.csv --column text --output labels.csv --explain
    """
    from tqdm import tqdm

    from medvl.text import label_table

    with tqdm(desc="label", unit="report", delay=1) as bar:
        summary = label_table(
            file,
            column,
            output,
            vocabulary,
            text_unit,
            explain,
            raw_cells,
            progress=lambda done: bar.update(done - bar.n),
        )
    typer.echo(f"{summary.rows} reports, {summary.empty} of them empty; {summary.written} rows in {output}.")
    if summary.skipped:
        typer.echo(f"{summary.skipped} sentences without a state in sections such as the indication.")
    if summary.other_language:
        typer.echo(f"{summary.other_language} reports have sentences in another language, which get no state.")
