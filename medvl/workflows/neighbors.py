"""The nearest studies of each study of one file of embeddings among those of another, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvl.evaluation.embedding_files import MODEL_HASH
from medvl.evaluation.neighbors import nearest_neighbors
from medvl.evaluation.stored_embeddings import load_embeddings
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.csv_files import CsvWriter
from medvl.utils.io import atomic_write, check_not_input, check_writable

SIDES = ("image", "report")
_ARRAYS = {"image": "image_embeds", "report": "text_embeds"}
HEADER = ("study_id", "rank", "nearest_study_id", "similarity")


@dataclass(frozen=True)
class NeighborSummary:
    """Counts of a table of neighbors.

    Args:
        queries: studies that were searched for.
        candidates: studies that were searched.
        k: neighbors of each.
    """

    queries: int
    candidates: int
    k: int


def write_neighbors(
    queries: str | Path,
    candidates: str | Path,
    output: str | Path,
    *,
    query: str = "image",
    candidate: str = "report",
    k: int = 10,
    backend: str = "auto",
) -> NeighborSummary:
    """Write the nearest reports of images, or images of reports, as a CSV table with a row a pair.

    Columns: ``study_id``, ``rank`` (from 1), ``nearest_study_id``, ``similarity`` (cosine). Studies without a report do not
    count where reports are meant.

    Args:
        queries: a file or folder of embeddings (``medvl embed``).
        candidates: the same of the studies to search; those of a folder are not read into memory as a whole.
        output: the CSV file to write.
        query: ``"image"`` or ``"report"``.
        candidate: ``"image"`` or ``"report"``.
        k: neighbors of each study; fewer where there are fewer candidates.
        backend: see :func:`~medvl.evaluation.nearest_neighbors`.

    Returns:
        Counts.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If the embeddings are of different widths or of two models, no study has what is searched, an option is
            unknown, or ``output`` is a file of embeddings that is read.
        MissingExtraError: If a package is missing that the files or the backend need.

    Example:
        >>> write_neighbors("new", "archive", "nearest.csv", k=5)  # doctest: +SKIP
    """
    for name, value in (("query", query), ("candidate", candidate)):
        check_option(value, name, SIDES)
    check_integer(k, "k", minimum=1)
    check_writable(output)
    check_not_input(output, (queries, candidates))
    asked, archive = load_embeddings(queries), load_embeddings(candidates)
    models = [str(arrays[MODEL_HASH][0])[:12] if MODEL_HASH in arrays else "" for arrays in (asked, archive)]
    if all(models) and models[0] != models[1]:
        raise ValueError(
            f"{queries} and {candidates} must be embeddings of one model, got those of two ({models[0]} and {models[1]})."
        )
    rows, places = _filled(asked, query, queries), _filled(archive, candidate, candidates)
    vectors, found_in = asked[_ARRAYS[query]], archive[_ARRAYS[candidate]]
    vectors = vectors if len(rows) == len(vectors) else vectors[rows]
    found_in = found_in if len(places) == len(found_in) else found_in[places]
    found = nearest_neighbors(vectors, found_in, min(k, len(places)), backend)
    with atomic_write(output, newline="") as file:
        writer = CsvWriter(file)
        writer.write_row(HEADER)
        for row, near, similarities in zip(rows, found.indices.numpy(), found.similarities.numpy(), strict=True):
            for rank, (place, similarity) in enumerate(zip(near, similarities, strict=True), start=1):
                ids = str(asked["study_id"][row]), str(archive["study_id"][places[place]])
                writer.write_row([ids[0], rank, ids[1], f"{similarity:.6f}"])
    return NeighborSummary(len(rows), len(places), found.indices.shape[1])


def _filled(arrays: dict[str, np.ndarray], side: str, path: str | Path) -> np.ndarray:
    """The rows that have what is asked for."""
    rows = np.flatnonzero(~np.isnan(arrays[_ARRAYS[side]][:, 0]))
    if not len(rows):
        raise ValueError(error_message(str(path), "have studies with a report", "none"))
    return rows
