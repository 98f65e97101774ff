"""``medvl embed``: embeddings of studies as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import print_skipped
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
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    data: Data = None,
    output: Annotated[Path, typer.Option(help="The file to write: .npz (NumPy), .csv or .parquet.")] = Path(
        "embeddings.npz"
    ),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    batch_size: BatchSize = 64,
    device: Device = None,
    on_error: OnError = "raise",
    trust_package: TrustPackage = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Write image and text embeddings of studies with ids, splits and labels, in the format that the file's suffix names.

    An .npz file holds image_embeds (N, D), text_embeds (N, D), study_id, patient_id and split (N,), label (N, K) and findings
    (K,). A .csv file has a column for each number, a .parquet file (pip install "medvl[tables]") columns of lists.

    Example:  medvl embed runs/first --split all --output embeddings.csv
    """
    from medvl.evaluation import check_embedding_file
    from medvl.utils.io import check_writable

    check_embedding_file(output)
    check_writable(output)
    from medvl.workflows import TrainedRun
    from medvl.workflows import embed as embed_loader

    trained = TrainedRun(run, resolve_device(device), trusted_packages=trust_package or [])
    manifest = trained.studies(data, split, columns, checked_on_error(on_error))
    loader = trained.loader(manifest, batch_size=batch_size, on_error=on_error)
    embeddings = embed_loader(trained.model, loader, progress=True)
    split_of = {str(study["study_id"]): study.get("split", "") for study in manifest.studies}
    splits = [split_of[study_id] for study_id in embeddings.study_ids]
    studies = count_of(len(embeddings), "study", "studies")
    typer.echo(f"{studies} in {embeddings.save(output, manifest.names, splits)}")
    print_skipped([*manifest.skipped, *loader.skipped.values()])
