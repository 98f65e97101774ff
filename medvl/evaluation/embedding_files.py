"""Writing of embeddings, part by part: NumPy archives, folders of arrays, CSV and Parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvl.utils.checks import error_message
from medvl.utils.csv_files import CsvWriter
from medvl.utils.extras import require_extra
from medvl.utils.io import atomic_write, check_writable, file_sha256, write_json

if TYPE_CHECKING:
    from medvl.evaluation.embeddings import Embeddings

SUFFIXES = (".npz", ".csv", ".parquet")
VECTORS = ("image_embeds", "text_embeds")
COLUMNS = ("study_id", "patient_id", "split")
INDEX = "index.json"
"""The file of a folder of embeddings that is written last: a folder without it is not whole."""

FORMAT = "medvl embeddings 1"
MODEL_HASH = "model"
"""The array with the hash of the model that the embeddings are of; in a Parquet file, the key of its metadata."""

OPTIONAL = ("label", "findings", MODEL_HASH)
_ARRAYS = (*VECTORS, *COLUMNS, *OPTIONAL)

Array = NDArray[Any]
Read = Callable[[str], Iterable[Array]]
"""The blocks of rows of an array, by its name; those of all arrays have the same lengths."""


def check_embedding_file(path: str | Path) -> None:
    """Raise where embeddings cannot be written in the format that a file's suffix names.

    Raises:
        ValueError: If the suffix is not .npz, .csv or .parquet, or the path has none and is a folder that holds something else.
        MissingExtraError: If it is .parquet and pyarrow is not installed.
        OSError: If the file or folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        expected = f"end in {', '.join(SUFFIXES)} or have no suffix (a folder)"
        raise ValueError(error_message("the file of embeddings", expected, path.name))
    if suffix == ".parquet":
        require_extra(f"Writing {path.name}", "tables")
    if suffix or not path.is_dir():
        check_writable(path)
        return
    own = {INDEX, *(f"{name}.npy" for name in _ARRAYS)}
    other = sorted(entry.name for entry in path.iterdir() if entry.name not in own and entry.suffix != ".partial")
    if other:
        raise ValueError(error_message(str(path), "be a new folder, or one of embeddings", f"one with {other[0]}"))
    check_writable(path / INDEX)


def save_embeddings(
    embeddings: Embeddings, path: str | Path, findings: Sequence[str] = (), splits: Sequence[str] | None = None
) -> Path:
    """Write embeddings with ids, splits and labels, in the format that the file's suffix names.

    ======== =========================================================================================================
    .npz     arrays ``image_embeds`` and ``text_embeds`` (N, D), ``study_id``, ``patient_id`` and ``split`` (N,) and, with
             labels, ``label`` (N, K) and ``findings`` (K,)
    none     a folder with these arrays as files, ``image_embeds.npy``, ..., which :func:`~medvl.evaluation.load_embeddings`
             maps into memory, and ``index.json`` with their checksums, which is written last
    .csv     columns ``study_id``, ``patient_id``, ``split``, one per finding, ``image_embeds_0``, ..., ``text_embeds_0``, ...;
             blank where there is no report or no label
    .parquet columns ``study_id``, ``patient_id``, ``split``, one per finding, ``image_embeds`` and ``text_embeds``, which are
             lists of float32; null where there is no report or no label
    ======== =========================================================================================================

    Args:
        embeddings: what to write.
        path: the file or folder. Its folder is created, and a file is written whole or not at all.
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
    count = 0 if embeddings.labels is None else embeddings.labels.shape[1]
    findings = list(findings) or [f"label_{number}" for number in range(count)]
    if embeddings.labels is not None and len(findings) != count:
        raise ValueError(error_message("findings", f"have {count} entries", len(findings)))
    arrays = embedding_arrays(embeddings, splits)
    return write_embeddings(path, findings if count else (), lambda name: [arrays[name]])


def embedding_arrays(embeddings: Embeddings, splits: Sequence[str] | None = None) -> dict[str, Array]:
    """Embeddings as the arrays of an .npz file; ``label`` has no column where there are no labels.

    Raises:
        ValueError: If ``splits`` has another length.
    """
    splits = [""] * len(embeddings) if splits is None else list(splits)
    if len(splits) != len(embeddings):
        raise ValueError(error_message("splits", f"have {len(embeddings)} entries", len(splits)))
    none = np.zeros((len(embeddings), 0), dtype=np.float32)
    return {
        "image_embeds": embeddings.image.numpy(),
        "text_embeds": embeddings.text.numpy(),
        "study_id": np.array(embeddings.study_ids, dtype=str),
        "patient_id": np.array(embeddings.patient_ids, dtype=str),
        "split": np.array(splits, dtype=str),
        "label": none if embeddings.labels is None else embeddings.labels.numpy(),
    }


def write_embeddings(path: str | Path, findings: Sequence[str], read: Read, model: str = "") -> Path:
    """Write embeddings that come in blocks of rows, of which one is in memory at a time.

    The content does not depend on the blocks, but for the row groups of a Parquet file.

    Args:
        path: the file, of a suffix as for :func:`save_embeddings`, or folder.
        findings: the K names of the labels; none leaves the labels out.
        read: the blocks of the arrays ``image_embeds``, ``text_embeds``, ``study_id``, ``patient_id``, ``split`` and, with
            findings, ``label``, by name. It is called several times.
        model: a hash of the model, which is kept in all but CSV files, so that embeddings of two models are not compared.

    Raises:
        ValueError: If a finding is named like another column.
    """
    path = Path(path)
    if taken := set(findings) & {*COLUMNS, *VECTORS}:
        raise ValueError(error_message("findings", "differ from the names of the other columns", sorted(taken)))
    suffix = path.suffix.lower()
    if not suffix:
        _write_folder(path, findings, read, model)
        return path
    options: dict[str, Any] = {"mode": "w", "newline": ""} if suffix == ".csv" else {"mode": "wb"}
    with atomic_write(path, **options) as file:
        if suffix == ".npz":
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, blocks in _named_arrays(findings, read, model):
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        _write_array(member, blocks)
        elif suffix == ".csv":
            _write_csv(file, findings, read)
        else:
            _write_parquet(file, findings, read, model)
    return path


def _named_arrays(
    findings: Sequence[str], read: Read, model: str
) -> Iterator[tuple[str, Callable[[], Iterable[Array]]]]:
    for name in (*VECTORS, *COLUMNS, *(["label"] if findings else [])):
        yield name, partial(read, name)
    if findings:
        yield "findings", lambda: [np.array(findings, dtype=str)]
    if model:
        yield MODEL_HASH, lambda: [np.array([model])]


def _write_array(file: IO[bytes], blocks: Callable[[], Iterable[Array]]) -> None:
    """An array in NumPy's format, whose header needs the number of rows and, of texts, the longest before the content."""
    rows = 0
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] | None = None
    for block in blocks():
        rows += len(block)
        dtype = block.dtype if dtype is None else np.promote_types(dtype, block.dtype)
        shape = block.shape[1:]
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (rows, *shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks():
        file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


def _write_folder(folder: Path, findings: Sequence[str], read: Read, model: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    for name in _ARRAYS:
        (folder / f"{name}.npy").unlink(missing_ok=True)
    names = []
    for name, blocks in _named_arrays(findings, read, model):
        names.append(f"{name}.npy")
        with atomic_write(folder / names[-1], "wb") as file:
            _write_array(file, blocks)
    files = [
        {"name": name, "bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names
    ]
    studies, width = np.load(folder / f"{VECTORS[0]}.npy", mmap_mode="r").shape
    write_json(folder / INDEX, {"format": FORMAT, "studies": studies, "width": width, "files": files})


def _write_csv(file: IO[str], findings: Sequence[str], read: Read) -> None:
    writer = CsvWriter(file)
    names = (*COLUMNS, *(["label"] if findings else []), *VECTORS)
    for number, blocks in enumerate(zip(*map(read, names), strict=True)):
        texts, numbers = blocks[: len(COLUMNS)], np.column_stack(blocks[len(COLUMNS) :])
        if number == 0:
            vectors = [f"{name}_{place}" for name in VECTORS for place in range(blocks[-1].shape[1])]
            writer.write_row([*COLUMNS, *findings, *vectors])
        for row, values in zip(zip(*(column.tolist() for column in texts), strict=True), numbers, strict=True):
            # The shortest text that is read as the same float32.
            writer.write_row([*row, *("" if np.isnan(value) else str(value) for value in values)])


def _write_parquet(file: IO[bytes], findings: Sequence[str], read: Read, model: str) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = dict.fromkeys(COLUMNS, pyarrow.string()) | dict.fromkeys(findings, pyarrow.float32())
    schema = pyarrow.schema(
        [*kinds.items(), *((name, pyarrow.list_(pyarrow.float32())) for name in VECTORS)], {MODEL_HASH: model}
    )
    names = (*COLUMNS, *(["label"] if findings else []), *VECTORS)
    with parquet.ParquetWriter(file, schema) as writer:
        for blocks in zip(*map(read, names), strict=True):
            columns: list[Any] = [pyarrow.array(block.tolist(), pyarrow.string()) for block in blocks[: len(COLUMNS)]]
            if findings:
                labels = blocks[len(COLUMNS)].T
                columns += [pyarrow.array(values, pyarrow.float32(), from_pandas=True) for values in labels]
            columns += [_list_array(block) for block in blocks[-len(VECTORS) :]]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _list_array(vectors: Array) -> Any:
    """Vectors (N, D) as lists, null where one has NaN."""
    import pyarrow

    kept = ~np.isnan(vectors).any(axis=1)
    offsets = np.concatenate([[0], np.cumsum(kept * vectors.shape[1])]).astype(np.int32)
    values = pyarrow.array(np.ascontiguousarray(vectors[kept], dtype=np.float32).ravel())
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), values, mask=pyarrow.array(~kept))
