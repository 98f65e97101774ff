"""Files of embeddings: NumPy archives, CSV and Parquet, by their suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.utils.checks import error_message
from medvl.utils.csv_files import CsvWriter
from medvl.utils.extras import require_extra
from medvl.utils.io import atomic_write

if TYPE_CHECKING:
    from medvl.evaluation.embeddings import Embeddings

SUFFIXES = (".npz", ".csv", ".parquet")


def check_embedding_file(path: str | Path) -> None:
    """Raise where embeddings cannot be written in the format that a file's suffix names.

    Raises:
        ValueError: If the suffix is not .npz, .csv or .parquet.
        MissingExtraError: If it is .parquet and pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(error_message("the file of embeddings", f"end in {', '.join(SUFFIXES)}", Path(path).name))
    if suffix == ".parquet":
        require_extra(f"Writing {Path(path).name}", "tables")


def save_embeddings(
    embeddings: Embeddings, path: str | Path, findings: Sequence[str] = (), splits: Sequence[str] | None = None
) -> Path:
    """Write embeddings with ids, splits and labels, in the format that the file's suffix names.

    ======== =========================================================================================================
    .npz     arrays ``image_embeds`` and ``text_embeds`` (N, D), ``study_id``, ``patient_id`` and ``split`` (N,) and, with
             labels, ``label`` (N, K) and ``findings`` (K,)
    .csv     columns ``study_id``, ``patient_id``, ``split``, one per finding, ``image_embeds_0``, ..., ``text_embeds_0``, ...;
             blank where there is no report or no label
    .parquet columns ``study_id``, ``patient_id``, ``split``, one per finding, ``image_embeds`` and ``text_embeds``, which are
             lists of float32; null where there is no report or no label
    ======== =========================================================================================================

    Args:
        embeddings: what to write.
        path: the file. Its folder is created, and the file is written whole or not at all.
        findings: the K names of the labels' columns; ``label_0``, ... without them.
        splits: the split of each of the N rows; blank without them.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is another, ``findings`` or ``splits`` have another length, or a finding is named like
            another column.
        MissingExtraError: If the file is a Parquet file and pyarrow is not installed.
    """
    check_embedding_file(path)
    path = Path(path)
    count = 0 if embeddings.labels is None else embeddings.labels.shape[1]
    findings = list(findings) or [f"label_{number}" for number in range(count)]
    splits = [""] * len(embeddings) if splits is None else list(splits)
    for name, values, expected in (("findings", findings, count), ("splits", splits, len(embeddings))):
        if len(values) != expected and not (name == "findings" and embeddings.labels is None):
            raise ValueError(error_message(name, f"have {expected} entries", len(values)))
    columns: dict[str, Any] = {
        "study_id": embeddings.study_ids,
        "patient_id": embeddings.patient_ids,
        "split": splits,
    }
    labels = {} if embeddings.labels is None else dict(zip(findings, embeddings.labels.numpy().T, strict=True))
    vectors = {"image_embeds": embeddings.image.numpy(), "text_embeds": embeddings.text.numpy()}
    if taken := set(labels) & {*columns, *vectors}:
        raise ValueError(error_message("findings", "differ from the names of the other columns", sorted(taken)))
    if path.suffix.lower() == ".npz":
        _save_npz(path, columns, labels, vectors)
    elif path.suffix.lower() == ".csv":
        _save_csv(path, columns, labels, vectors)
    else:
        _save_parquet(path, columns, labels, vectors)
    return path


Arrays = dict[str, np.ndarray]


def _save_npz(path: Path, columns: dict[str, list[str]], labels: Arrays, vectors: Arrays) -> None:
    arrays = {**vectors, **{name: np.array(values, dtype=str) for name, values in columns.items()}}
    if labels:
        arrays["label"] = np.stack(list(labels.values()), axis=1)
        arrays["findings"] = np.array(list(labels), dtype=str)
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _save_csv(path: Path, columns: dict[str, list[str]], labels: Arrays, vectors: Arrays) -> None:
    names = [f"{name}_{number}" for name, values in vectors.items() for number in range(values.shape[1])]
    numbers = np.column_stack([*labels.values(), *vectors.values()])
    with atomic_write(path, newline="") as file:
        writer = CsvWriter(file)
        writer.write_row([*columns, *labels, *names])
        for texts, row in zip(zip(*columns.values(), strict=True), numbers, strict=True):
            # The shortest text that is read as the same float32.
            writer.write_row([*texts, *("" if np.isnan(number) else str(number) for number in row)])


def _save_parquet(path: Path, columns: dict[str, list[str]], labels: Arrays, vectors: Arrays) -> None:
    import pyarrow
    from pyarrow import parquet

    arrays = {name: pyarrow.array(values, pyarrow.string()) for name, values in columns.items()}
    arrays |= {name: pyarrow.array(values, pyarrow.float32(), from_pandas=True) for name, values in labels.items()}
    kind = pyarrow.list_(pyarrow.float32())
    for name, values in vectors.items():
        arrays[name] = pyarrow.array([None if np.isnan(row).any() else row for row in values], kind)
    with atomic_write(path, "wb") as file:
        parquet.write_table(pyarrow.table(arrays), file)
