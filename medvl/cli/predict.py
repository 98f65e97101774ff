"""``medvl predict``: zero-shot scores of new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import echo, print_skipped
from medvl.cli.options import (
    BatchSize,
    Data,
    Device,
    OnError,
    TrustPackage,
    checked_on_error,
    column_options,
    resolve_device,
)
from medvl.utils.counts import count_of


@column_options
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, or folders with a DICOM series each.", show_default=False),
    ] = None,
    data: Data = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="A finding, repeated for each. By default those of the training.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write, .csv or .json; by default scores are printed.", show_default=False),
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    on_error: OnError = "raise",
    trust_package: TrustPackage = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Score new images: how much closer each is to the statement of a finding than to its denial, from 0 to 1.

    The scores rank images. They are neither calibrated probabilities nor a diagnosis.

    Example:  medvl predict runs/first new/*.png --finding "Pleural Effusion" --output scores.csv
    """
    from medvl.utils.io import check_not_input, check_writable
    from medvl.workflows.predictions import SCORE_FILES, check_suffix, image_manifest

    if bool(images) == (data is not None):
        raise ValueError("Give either images or a table (--data), " + ("not both." if images else "got neither."))
    if output is not None:
        check_suffix(output, SCORE_FILES)
        check_writable(output)
    from medvl.workflows import TrainedRun
    from medvl.workflows import predict as score
    from medvl.workflows.run_records import input_tables

    if output is not None:
        read = input_tables({"data": data, "columns": columns}, run)
        check_not_input(output, [*(images or []), *read], "--output")
    trained = TrainedRun(run, resolve_device(device), trusted_packages=trust_package or [])
    checked_on_error(on_error)
    manifest = image_manifest(images) if images else trained.studies(data, "all", columns, on_error)
    found = score(trained, manifest, finding, batch_size, on_error)
    if output is not None:
        echo(f"{count_of(len(found.study_ids), 'image')} in {found.save(output)}")
    else:
        _print_scores(found.study_ids, found.findings, found.scores.tolist())
    print_skipped(found.skipped)


def _print_scores(ids: list[str], findings: list[str], scores: list[list[float]]) -> None:
    """A line for each image and finding, the highest first; of one finding, the images in order."""
    width = max(map(len, findings), default=0)
    for name, row in zip(ids, scores, strict=True):
        echo(name.replace("\n", "\\n"))
        for score, finding in sorted(zip(row, findings, strict=True), key=lambda pair: (-pair[0], pair[1])):
            echo(f"  {finding:<{width}}  {score:.3f}")
