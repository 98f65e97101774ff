"""``medvl audit``: leaks between splits, duplicates, and the false negatives of contrastive batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import print_skipped
from medvl.cli.options import Data, OnError, Sources, checked_on_error, column_options, require_input


@column_options
def audit(
    data: Data = None,
    source: Sources = None,
    batch_size: Annotated[int, typer.Option(help="Studies in a batch.", min=2)] = 64,
    split: Annotated[str, typer.Option(help="Of the false negatives: train, val, test or all.")] = "all",
    output: Annotated[Path, typer.Option(help="Folder for leaks.csv, audit.json and audit.png.")] = Path("audit"),
    on_error: OnError = "raise",
    columns: dict[str, Any] | None = None,
) -> None:
    """List leaks and duplicates, and count the false negatives of a contrastive batch.

    A leak is a patient or an image, by whatever path or as a copy, in two splits. False negatives are pairs of studies that
    share all findings; labels come from the table, or where it has none from the reports. The expectations over random
    batches are exact.

    Example:  medvl audit --data cases.csv --label-column finding --batch-size 128
    """
    require_input(data, source)
    from medvl.utils.io import check_writable

    check_writable(output / "leaks.csv")
    from medvl.data import load_sources
    from medvl.evaluation import audit_false_negatives, audit_leaks

    manifest = load_sources(
        source or (), data, columns=columns, on_error=checked_on_error(on_error), on_leak="keep", folder=output
    )
    # The sources' own ids: those of the manifest begin with the source's name, and equal patients would not be seen.
    leaks = audit_leaks([{**study, "source": name} for name, part in manifest.parts.items() for study in part.studies])
    typer.echo(leaks.table() + "\n")
    studies = manifest.subset(split).studies
    labels: list[Any] = [study.get("label", study.get("text_label")) for study in studies]
    found = audit_false_negatives(
        labels,
        batch_size,
        manifest.names,
        [study["study_id"] for study in studies],
    )
    typer.echo(found.table())
    print_skipped(manifest.skipped)
    typer.echo(f"\nLeaks: {leaks.save(output / 'leaks.csv')}")
    typer.echo(f"Figures: {found.save(output / 'audit.json')}, plot: {found.plot(output / 'audit.png')}")
