"""``medvl compare``: several trained models on the same studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import echo
from medvl.cli.options import (
    BatchSize,
    Classes,
    Data,
    Device,
    MaskColumn,
    NoText,
    OnError,
    TrustPackage,
    checked_on_error,
    column_options,
    resolve_device,
)


@column_options
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="Run folders that medvl train has written.")
    ],
    data: Data = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure, as for medvl evaluate; may be repeated. By default what the data permit.",
            show_default=False,
        ),
    ] = None,
    mask_column: MaskColumn = None,
    classes: Classes = None,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("comparison"),
    split: Annotated[str, typer.Option(help="train, val, test or all, as for medvl evaluate.")] = "test",
    batch_size: BatchSize = 64,
    device: Device = None,
    on_error: OnError = "raise",
    no_text: NoText = False,
    trust_package: TrustPackage = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Compare trained models on the same studies: every statistic, its paired difference from the first model, and heat maps.

    Prints the tables, and writes comparison.json and comparison.html: tables with intervals and p-values, loss curves, and heat
    maps of the same sentences side by side. Without --data each run's own table is taken, which must give the same studies.

    Example:  medvl compare runs/medclip runs/medvl --output comparison
    """
    from medvl.workflows import TrainedRun, compare_runs

    trained = [TrainedRun(run, resolve_device(device), trusted_packages=trust_package or []) for run in runs]
    comparison = compare_runs(
        trained,
        output,
        data=data,
        split=split,
        columns=columns,
        protocols=protocol,
        mask_columns=mask_column or [],
        classes=classes,
        batch_size=batch_size,
        on_error=checked_on_error(on_error),
        show_text=not no_text,
        progress=True,
    )
    echo(comparison.table())
    echo(f"\nReport: {output / 'comparison.html'}")
