"""``medvl embed``: embeddings of studies as a NumPy archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import print_skipped
from medvl.cli.options import Data, Device, OnError, checked_on_error, column_options, resolve_device


@column_options
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    data: Data = None,
    output: Annotated[Path, typer.Option(help="The NumPy archive to write.")] = Path("embeddings.npz"),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    batch_size: Annotated[int, typer.Option(help="Studies at once.", min=1)] = 64,
    device: Device = None,
    on_error: OnError = "raise",
    columns: dict[str, Any] | None = None,
) -> None:
    """Write image and text embeddings with ids: image_embeds (N, D), text_embeds (N, D), study_id, patient_id, label."""
    from medvl.workflows import TrainedRun
    from medvl.workflows import embed as embed_loader

    trained = TrainedRun(run, resolve_device(device))
    manifest = trained.studies(data, split, columns, checked_on_error(on_error))
    loader = trained.loader(manifest, batch_size=batch_size, on_error=on_error)
    embeddings = embed_loader(trained.model, loader, progress=True)
    typer.echo(f"{len(embeddings)} studies in {embeddings.save_npz(output)}")
    print_skipped([*manifest.skipped, *loader.skipped.values()])
