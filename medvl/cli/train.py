"""``medvl train``: a recipe on a table of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import echo, print_skipped
from medvl.cli.options import (
    Data,
    Device,
    Settings,
    Sources,
    checked_on_error,
    column_options,
    parse_settings,
    recipe_list,
    require_input,
    resolve_device,
)
from medvl.utils.checks import error_message


@column_options
def train(
    recipe: Annotated[
        str,
        typer.Argument(help=f"The recipe ({recipe_list()}), or a YAML file of your own (medvl config)."),
    ] = "medvl",
    data: Data = None,
    source: Sources = None,
    output: Annotated[
        Path | None, typer.Option(help="The run folder; the one in the configuration by default.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training split.", min=1, show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Studies in a step.", min=2, show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels that images are scaled to.", min=16, show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is random; 0 by default.", min=0, show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    device: Device = None,
    num_workers: Annotated[
        int | None, typer.Option(help="Processes that load data.", min=0, show_default=False)
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            help="What a study that cannot be read does: 'raise', the default, stops; 'skip' leaves it out and counts it.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    list_settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its value and what it does; nothing is trained.")
    ] = False,
    columns: dict[str, Any] | None = None,
) -> None:
    """Train a recipe on a table of studies or, all but convirt, on sources of several kinds.

    Writes a run folder: model/ (what DualEncoder.from_pretrained reads), checkpoints/, config.yaml, metrics.jsonl,
    environment.json and skipped.jsonl. --resume continues an interrupted run and ends with the same weights.

    Example:  medvl train --data cases.csv --report-column text --patient-column patient --output runs/first

    Example:  medvl train medclip --source image-label=xrays.csv --source text-label=openi:reports.tgz --output runs/second
    """
    from medvl import workflows
    from medvl.utils.distributed import is_rank_zero

    if list_settings:
        typer.echo(workflows.settings_text(recipe, parse_settings(settings or [])), nl=False)
        return
    if not recipe.endswith((".yaml", ".yml", ".json")):  # a file of one's own names its data
        require_input(data, source)
    if data == "-":
        raise ValueError(error_message("--data", "be a file, since a run reads its table again", "standard input"))
    overrides: dict[str, Any] = {
        "data": data,
        "output": None if output is None else str(output),
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "seed": seed,
        "resume": resume or None,
        "device": None if device is None else resolve_device(device),
        "num_workers": num_workers,
        "on_error": None if on_error is None else checked_on_error(on_error),
        "columns": columns or None,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if source:
        overrides["sources"] = source
    # What these options hold are texts, never expressions, whatever they begin with.
    run = workflows.train(recipe, {**workflows.literal(overrides), **parse_settings(settings or [])})
    if not is_rank_zero():
        return
    print_skipped(workflows.read_skipped(run))
    echo(f"Trained model in {run / 'model'}. Next: medvl evaluate {run}")
