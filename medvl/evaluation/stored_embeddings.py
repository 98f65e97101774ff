"""Reading of embeddings that were written to a file or folder."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, cast

import numpy as np

from medvl.evaluation.embedding_files import COLUMNS, FORMAT, INDEX, MODEL_HASH, OPTIONAL, VECTORS, Array
from medvl.utils.checks import error_message
from medvl.utils.errors import plain_reason
from medvl.utils.extras import require_extra
from medvl.utils.limits import check_regular_file, check_size, read_small_file

_HEADER_ERRORS = (SyntaxError, TokenError)
"""What NumPy raises for a header that is not a dictionary in Python's form, beside ``ValueError``."""


def load_embeddings(path: str | Path) -> dict[str, Array]:
    """The arrays of a file or folder of embeddings, those of a folder mapped into memory: they are read as they are used.

    Args:
        path: a folder, .npz or .parquet file that :func:`save_embeddings` or ``medvl embed`` has written.

    Returns:
        ``image_embeds`` and ``text_embeds`` (N, D), with rows of NaN for studies without a report; ``study_id``,
        ``patient_id`` and ``split`` (N,); with labels, ``label`` (N, K) and ``findings`` (K,); of ``medvl embed``,
        ``model`` (1,), a hash of the model.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is another kind of file, damaged, or unpacks to more than ``MEDVL_MAX_UNPACKED_BYTES``.
        MissingExtraError: If it is a Parquet file and pyarrow is not installed.
    """
    path = Path(path)
    suffix = "" if path.is_dir() else path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if not path.is_dir() and suffix not in (".npz", ".parquet"):
        expected = "be a folder, .npz or .parquet file of medvl embed"
        raise ValueError(error_message("the file of embeddings", expected, path.name))
    if suffix == ".parquet":
        require_extra(f"Reading {path.name}", "tables")
    if not suffix and not (path / INDEX).is_file():
        raise FileNotFoundError(f"{path} holds no {INDEX}: it is not a folder that medvl embed has finished.")
    try:
        arrays = {"": _map_folder, ".npz": _read_archive, ".parquet": _read_parquet}[suffix](path)
        _check_arrays(arrays)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise ValueError(f"{path} cannot be read as embeddings: {plain_reason(error)}.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, *_HEADER_ERRORS) as error:
        raise ValueError(f"{path} cannot be read as embeddings: it is damaged or cut off.") from error
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read as embeddings: it is encrypted.") from error
    return arrays


def _check_arrays(arrays: dict[str, Array]) -> None:
    for name in (*VECTORS, *COLUMNS):
        if name not in arrays:
            raise ValueError(f"it has no {name}.")
    shape = arrays[VECTORS[0]].shape
    expected = {name: shape for name in VECTORS} | {name: shape[:1] for name in COLUMNS}
    if len({"label", "findings"} & set(arrays)) == 1:
        raise ValueError("it has one of label and findings.")
    if "label" in arrays:
        expected |= {"label": (shape[0], len(arrays["findings"])), "findings": (len(arrays["findings"]),)}
    if MODEL_HASH in arrays:
        expected[MODEL_HASH] = (1,)
    for name, value in expected.items():
        kind = "f" if name in (*VECTORS, "label") else "U"
        if arrays[name].shape != value or len(shape) != 2 or not shape[1] or arrays[name].dtype.kind != kind:
            raise ValueError(f"{name} is of the type {arrays[name].dtype} and the shape {arrays[name].shape}.")


def _map_folder(folder: Path) -> dict[str, Array]:
    try:
        index = json.loads(read_small_file(folder / INDEX))
        sizes = {str(entry["name"]): entry["bytes"] for entry in index["files"]}
        if index["format"] != FORMAT:
            raise ValueError(f"it is of the format {str(index['format'])[:100]!r}.")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its {INDEX} is damaged: {plain_reason(error)}.") from error
    arrays = {}
    for name in (*VECTORS, *COLUMNS, *OPTIONAL):
        path = folder / f"{name}.npy"
        if path.name not in sizes and name in OPTIONAL:
            continue
        if not path.is_file() or path.stat().st_size != sizes.get(path.name):
            raise ValueError(f"{path.name} does not have the {sizes.get(path.name)} bytes that were written.")
        try:
            # Copy on write: what is read is not copied, and torch takes the arrays as its own.
            arrays[name] = np.load(path, mmap_mode="c", allow_pickle=False)
        except (ValueError, TypeError, EOFError, *_HEADER_ERRORS) as error:
            raise ValueError(f"{path.name} is not an array in NumPy's format.") from error
    return arrays


def _read_archive(path: Path) -> dict[str, Array]:
    check_regular_file(path)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in (*VECTORS, *COLUMNS, *OPTIONAL) if f"{name}.npy" in archive.namelist()]
        for name in names:
            entry = archive.getinfo(f"{name}.npy")
            check_size(entry.file_size, name)
            with archive.open(entry) as member:
                _check_header(cast(BinaryIO, member), entry.file_size, name)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


def _check_header(file: BinaryIO, size: int, name: str) -> None:
    """Compare the header of an array with the bytes that there are, before memory is reserved for it."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is not in NumPy's format 1.0.")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"{name} does not have the size that its header states.")


def _read_parquet(path: Path) -> dict[str, Array]:
    import pyarrow
    from pyarrow import parquet

    check_regular_file(path)
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            check_size(sum(group.total_byte_size for group in groups), "its content")
            table = file.read(use_threads=False)
        return _arrays_of_table(table)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError("it is damaged or cut off.") from error


def _arrays_of_table(table: Any) -> dict[str, Array]:
    arrays: dict[str, Array] = {
        name: np.array(table[name].to_pylist(), dtype=str) for name in COLUMNS if name in table.column_names
    }
    for name in VECTORS:
        lists = table[name].combine_chunks()
        kept = ~np.asarray(lists.is_null())
        values = np.asarray(lists.flatten(), dtype=np.float32)
        vectors = np.full((len(kept), len(values) // max(1, kept.sum())), np.nan, dtype=np.float32)
        vectors[kept] = values.reshape(kept.sum(), -1)
        arrays[name] = vectors
    if not arrays[VECTORS[1]].shape[1]:  # no study has a report
        arrays[VECTORS[1]] = np.full_like(arrays[VECTORS[0]], np.nan)
    findings = [name for name in table.column_names if name not in (*VECTORS, *COLUMNS)]
    if findings:
        labels = [table[name].to_numpy(zero_copy_only=False) for name in findings]
        arrays |= {"label": np.stack(labels, axis=1).astype(np.float32), "findings": np.array(findings, dtype=str)}
    if model := (table.schema.metadata or {}).get(MODEL_HASH.encode()):
        arrays[MODEL_HASH] = np.array([model.decode(errors="replace")])
    return arrays
