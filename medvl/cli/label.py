"""``medvl label``: finding states of a table of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    file: Annotated[Path, typer.Argument(help="A table of reports (CSV or TSV).")],
    column: Annotated[str, typer.Option(help="The column that holds the reports.")] = "report",
    output: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("labels.csv"),
    vocabulary: Annotated[str, typer.Option(help="chexpert14, chest_ct, or a YAML file of your own.")] = "chexpert14",
    by: Annotated[str, typer.Option(help="A row a 'report' or a row a 'sentence'.")] = "report",
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the mention, the cue and the sentence behind each state.")
    ] = False,
) -> None:
    """Label a table of reports with findings: 1 present, 0 absent, -1 uncertain, blank not mentioned.

    The table is read as a stream, so its size does not matter. The output has the columns that CheXpert's users know.

    Example:  medvl label reports.csv --column text --output labels.csv --explain
    """
    from tqdm import tqdm

    from medvl.text import label_table

    with tqdm(desc="label", unit="report", delay=1) as bar:
        summary = label_table(
            file, column, output, vocabulary, by, explain, progress=lambda done: bar.update(done - bar.n)
        )
    typer.echo(f"{summary.rows} reports, {summary.empty} of them empty; {summary.written} rows in {output}.")
