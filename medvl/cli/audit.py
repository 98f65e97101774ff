"""``medvl audit``: leaks between splits, duplicates, and the false negatives of contrastive batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvl.cli.messages import echo, print_skipped
from medvl.cli.options import Data, OnError, Sources, checked_on_error, column_options, require_input

if TYPE_CHECKING:
    from medvl.data.manifest import Manifest

WRITTEN = ("leaks.csv", "audit.json", "audit.png", "rare_tokens.csv")


@column_options
def audit(
    data: Data = None,
    source: Sources = None,
    batch_size: Annotated[int, typer.Option(help="Studies in a batch, at most all of them.", min=2)] = 64,
    split: Annotated[str, typer.Option(help="Of the false negatives: train, val, test or all.")] = "all",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A run folder, or one with a tokenizer: also list the entries of its vocabulary that are words, or parts of "
            "words, in the training reports of few patients, such as names.",
            show_default=False,
        ),
    ] = None,
    min_word_patients: Annotated[
        int, typer.Option(help="For --tokenizer: entries of words of fewer patients are listed.", min=1)
    ] = 5,
    output: Annotated[
        Path, typer.Option(help="Folder for leaks.csv, audit.json, audit.png and rare_tokens.csv.")
    ] = Path("audit"),
    on_error: OnError = "raise",
    columns: dict[str, Any] | None = None,
) -> None:
    """List the columns that are read, leaks and duplicates, and count the false negatives of a contrastive batch.

    A leak is a patient or an image, by whatever path or as a copy, in two splits. False negatives are pairs of studies that
    share all findings; labels come from the table, or where it has none from the reports. The expectations over random
    batches are exact. The tables it writes hold ids, and rare_tokens.csv words of reports.

    Example:  medvl audit --data cases.csv --label-column finding --batch-size 128
    """
    require_input(data, source)
    from medvl.utils.io import check_not_input, check_writable

    check_writable(output / "leaks.csv")
    from medvl.data import load_sources
    from medvl.evaluation import audit_false_negatives, audit_leaks
    from medvl.workflows.run_records import input_tables

    tables = input_tables({"data": data, "sources": source, "columns": columns}, output)
    for name in WRITTEN:
        check_not_input(output / name, tables, f"--output/{name}")
    manifest = load_sources(
        source or (), data, columns=columns, on_error=checked_on_error(on_error), on_leak="keep", folder=output
    )
    # The sources' own ids: those of the manifest begin with the source's name, and equal patients would not be seen.
    leaks = audit_leaks([{**study, "source": name} for name, part in manifest.parts.items() for study in part.studies])
    if columns_table := _columns_table(manifest.parts.values()):
        echo(columns_table + "\n")
    echo(leaks.table() + "\n")
    studies = manifest.subset(split).studies
    labels: list[Any] = [study.get("label", study.get("text_label")) for study in studies]
    if batch_size > len(labels) >= 2:
        echo(f"The batches are of all {len(labels)} studies, as there are fewer than {batch_size} (--batch-size).\n")
        batch_size = len(labels)
    found = audit_false_negatives(
        labels,
        batch_size,
        manifest.names,
        [study["study_id"] for study in studies],
    )
    echo(found.table())
    if tokenizer is not None:
        echo("\n" + _write_rare_tokens(tokenizer, manifest, min_word_patients, output / "rare_tokens.csv"))
    print_skipped(manifest.skipped)
    echo(f"\nLeaks: {leaks.save(output / 'leaks.csv')}")
    echo(f"Figures: {found.save(output / 'audit.json')}, plot: {found.plot(output / 'audit.png')}")


def _columns_table(parts: Iterable[Manifest]) -> str:
    """What is read from which column of each table; ``""`` if no columns can be named."""
    from medvl.evaluation.tables import text_table

    read = [(part.name, part.columns) for part in parts if part.columns]
    if not read:
        return ""
    rows = [[name, *(column or "none" for column in columns.values())] for name, columns in read]
    return text_table(["Columns of", *read[0][1]], [[" ".join(cell.split()) for cell in row] for row in rows])


def _write_rare_tokens(folder: Path, manifest: Any, min_patients: int, path: Path) -> str:
    """List what a vocabulary tells of few patients in a CSV file; the sentence that counts it, without the words."""
    from medvl.data import text_corpus
    from medvl.networks import load_tokenizer
    from medvl.transforms import rare_tokens
    from medvl.utils.csv_files import CsvWriter
    from medvl.utils.io import atomic_write

    inner = folder / "model"
    tokenizer = load_tokenizer(inner if (inner / "tokenizer_config.json").is_file() else folder)
    corpus = text_corpus(manifest.subset("train").studies or manifest.studies, manifest.names)
    found = rare_tokens(tokenizer, corpus.texts, corpus.patients, min_patients)
    with atomic_write(path, newline="") as file:
        CsvWriter(file).write_rows([["token", "patients"], *found.items()])
    return (
        f"Of {len(tokenizer)} entries of the vocabulary, {len(found)} are of words in the reports of fewer than "
        f"{min_patients} patients: {path}"
    )
