"""``medvl nearest``: the nearest reports of images, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.cli.messages import echo
from medvl.utils.checks import error_message
from medvl.utils.counts import count_of


def nearest(
    queries: Annotated[
        Path, typer.Argument(help="Embeddings of the studies to search for (medvl embed): a folder, .npz or .parquet.")
    ],
    among: Annotated[
        Path | None,
        typer.Option(help="Embeddings of the studies to search; by default the same.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option(help="The table to write, CSV.")] = Path("nearest.csv"),
    query: Annotated[str, typer.Option(help="What is searched for: image or report.")] = "image",
    candidate: Annotated[str, typer.Option(help="What is found: report or image.")] = "report",
    count: Annotated[int, typer.Option(help="Neighbors of each study.", min=1)] = 10,
    backend: Annotated[
        str,
        typer.Option(help="faiss, torch, or auto: FAISS where it is installed. The result is the same."),
    ] = "auto",
) -> None:
    """Find the nearest reports of each image, or images of each report, by cosine similarity of their embeddings.

    Writes a row a pair: study_id, rank, nearest_study_id and similarity. The search is exact, ties go to the earlier study, and
    the result does not depend on the backend. A folder of embeddings is read in chunks without FAISS (pip install
    "medvl[faiss]"), which holds all of it in memory.

    Example:  medvl nearest new.npz --among archive --count 5 --output nearest.csv
    """
    from medvl.evaluation.neighbors import BACKENDS
    from medvl.workflows.neighbors import SIDES, write_neighbors

    for name, value, options in (
        ("query", query, SIDES),
        ("candidate", candidate, SIDES),
        ("backend", backend, BACKENDS),
    ):
        if value not in options:
            raise ValueError(error_message(f"--{name}", f"be {' or '.join(options)}", repr(value)))
    summary = write_neighbors(
        queries, among or queries, output, query=query, candidate=candidate, k=count, backend=backend
    )
    found, searched = count_of(summary.queries, query), count_of(summary.candidates, candidate)
    echo(f"{found}, each with its {summary.k} nearest of {searched}, in {output}")
