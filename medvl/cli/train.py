"""``medvl train``: a recipe on a table of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import say_skipped
from medvl.cli.options import (
    Data,
    Device,
    OnError,
    Seed,
    Sources,
    checked_on_error,
    column_options,
    device_named,
    require_input,
    settings_from,
)


@column_options
def train(
    recipe: Annotated[str, typer.Argument(help="The method: convirt, medclip, umcl or mlip.")],
    data: Data = None,
    source: Sources = None,
    output: Annotated[
        Path | None, typer.Option(help="The run folder; runs/RECIPE by default.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training split.", min=1, show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Studies in a step.", min=2, show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels that images are scaled to.", min=16, show_default=False)
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    device: Device = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load data.", min=0, show_default=False)] = None,
    on_error: OnError = "raise",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other key of the recipe's train.yaml, as --set learning_rate=0.001.",
            show_default=False,
        ),
    ] = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Train a recipe on a table of studies, or (medclip, umcl) on sources of several kinds.

    Writes a run folder: model/ (what DualEncoder.from_pretrained reads), checkpoints/, config.yaml, metrics.jsonl,
    environment.json and skipped.jsonl. A run that was killed goes on with --resume, to the same weights.

    Example:  medvl train convirt --data cases.csv --report-column text --patient-column patient --output runs/first

    Example:  medvl train medclip --source image-label=xrays.csv --source text-label=openi:reports.tgz --output runs/second
    """
    from medvl import workflows
    from medvl.utils.distributed import is_rank_zero

    require_input(data, source)
    overrides: dict[str, Any] = {
        "data": data,
        "output": str(output or Path("runs") / recipe),
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "seed": seed,
        "resume": resume,
        "device": None if device is None else device_named(device),
        "workers": workers,
        "on_error": checked_on_error(on_error),
        "columns": columns,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if source:
        overrides["sources"] = source
    run = workflows.train(recipe, {**overrides, **settings_from(settings or [])})
    if not is_rank_zero():
        return
    say_skipped(workflows.read_skipped(run))
    typer.echo(f"Trained model in {run / 'model'}. Next: medvl evaluate {run}")
