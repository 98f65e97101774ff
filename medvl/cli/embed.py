"""``medvl embed``: embeddings of studies as a file."""

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
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    data: Data = None,
    output: Annotated[
        Path,
        typer.Option(
            help="The file to write: .npz (NumPy), .csv or .parquet; a name without a suffix is a folder of .npy."
        ),
    ] = Path("embeddings.npz"),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    batch_size: BatchSize = 64,
    part_size: Annotated[int, typer.Option(help="Studies in a part, the most that are in memory.", min=1)] = 4096,
    num_workers: Annotated[
        int,
        typer.Option("--workers", "--num-workers", help="Processes that read images; 0 for none but this one.", min=0),
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run stopped, to the same bytes.")
    ] = False,
    device: Device = None,
    on_error: OnError = "raise",
    trust_package: TrustPackage = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Write image and text embeddings of studies with ids, splits and labels, in the format that the file's suffix names.

    An .npz file holds image_embeds (N, D), text_embeds (N, D), study_id, patient_id and split (N,), label (N, K) and findings
    (K,); a folder holds the same as .npy files, which are mapped into memory. A .csv file has a column for each number, a
    .parquet file (pip install "medvl[tables]") columns of lists.

    The studies are embedded in parts, kept in OUTPUT.parts until all are there. Several GPUs share the parts under torchrun.

    Example:  medvl embed runs/first --split all --output embeddings.csv

    Example:  torchrun --nproc_per_node 8 -m medvl embed runs/first --data shards:packed --output embeddings --resume
    """
    from medvl.evaluation import check_embedding_file

    check_embedding_file(output)
    checked_on_error(on_error)
    from tqdm.auto import tqdm

    from medvl.utils.distributed import destroy_distributed, get_world_size, init_distributed, is_rank_zero
    from medvl.utils.io import check_not_input
    from medvl.workflows import TrainedRun, embed_to_file
    from medvl.workflows.run_records import input_tables

    check_not_input(output, input_tables({"data": data, "columns": columns}, run), "--output")
    name = resolve_device(device)
    init_distributed()
    trained = TrainedRun(run, name, trusted_packages=trust_package or [])
    if data is None:
        check_not_input(output, input_tables(trained.config, run), "--output")
    manifest = trained.studies(data, split, columns, on_error)
    # Of several processes, the bar of the first one shows its share.
    total = None if get_world_size() > 1 else len(manifest)
    with tqdm(total=total, desc="embed", unit="study", disable=not is_rank_zero()) as bar:
        summary = embed_to_file(
            trained,
            manifest,
            output,
            batch_size=batch_size,
            part_size=part_size,
            num_workers=num_workers,
            on_error=on_error,
            resume=resume,
            progress=bar.update,
        )
    destroy_distributed()
    if is_rank_zero():
        echo(f"{count_of(summary.studies, 'study', 'studies')} in {output}")
        print_skipped([*manifest.skipped, *summary.skipped])
