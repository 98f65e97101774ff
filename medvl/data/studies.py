"""The studies of a run: a table, or the built-in synthetic data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.data.leaks import warn_of_copies
from medvl.data.manifest import Manifest
from medvl.data.manifest_reader import read_manifest
from medvl.data.synthetic import SyntheticChestXRay
from medvl.data.synthetic.chest_ct import SyntheticChestCT
from medvl.data.tables.folder import find_metadata
from medvl.utils.checks import check_option, check_type, error_message

SYNTHETIC = "synthetic"


def column_options(columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of :func:`~medvl.data.read_manifest` among a recipe's ``columns``, without those that are None.

    Raises:
        TypeError: If ``columns`` is no dictionary.
        ValueError: If it has an argument that names no column and does not say where images are.

    Example:
        >>> column_options({"report_column": "text", "image_column": None})
        {'report_column': 'text'}
    """
    check_type({} if columns is None else columns, "columns", Mapping)
    known = [
        name for name in inspect.signature(read_manifest).parameters if name not in ("path", "on_error", "on_leak")
    ]
    for name in columns or {}:
        check_option(name, "each key of columns", known)
    return {name: value for name, value in (columns or {}).items() if value is not None}


def load_studies(
    data: str | Path,
    folder: str | Path,
    *,
    required_keys: Sequence[str] = ("image", "report"),
    columns: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    seed: int = 0,
    synthetic_length: int = 2000,
    synthetic_size: int = 128,
    spatial_dims: int = 2,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Manifest:
    """Read a table, split it by patient if it has no splits, and keep the studies that have all required keys.

    Images of the same content in two splits are counted in a warning.

    The synthetic data set is saved to ``folder``/data as images and a table, and then read like any other table.

    Args:
        data: a CSV, TSV, JSON or JSONL file, or "synthetic".
        folder: the run's folder.
        required_keys: what a study must have; the others are counted in the manifest's ``dropped``.
        columns: arguments of :func:`~medvl.data.read_manifest` that name columns or say where images are; those that are None
            are ignored.
        on_error: ``"raise"`` or ``"skip"`` bad rows, as in :func:`~medvl.data.read_manifest`.
        seed: of the splits, and of the synthetic data set.
        synthetic_length: number of synthetic studies.
        synthetic_size: side of the synthetic images in pixels.
        spatial_dims: 2 for synthetic radiographs, 3 for synthetic CT.
        progress: wraps the iteration over the synthetic studies as they are saved, as ``tqdm`` does.

    Returns:
        The manifest, each study with a ``split``.

    Raises:
        OSError: If the table cannot be read.
        ValueError: If the table is invalid, ``columns`` has an unknown argument, or fewer than two studies of the training
            split have all keys.
    """
    options = column_options(columns)
    prepare_synthetic([data], folder, synthetic_length, synthetic_size, seed, spatial_dims, progress)
    manifest = read_manifest(table_path(data, folder), on_error=on_error, **options)
    # Split first: a study's split must not depend on which keys a run requires.
    manifest = manifest.assign_splits(seed=seed).drop_missing(*required_keys)
    warn_of_copies(manifest.studies, manifest.name)
    number = len(manifest.subset("train", allow_empty=True))
    if number < 2:
        raise ValueError(
            error_message(
                f"The training split of {manifest.name}", "have at least 2 studies", f"{number} of {len(manifest)}"
            )
        )
    return manifest


def prepare_synthetic(
    locations: Iterable[str | Path | None],
    folder: str | Path,
    length: int,
    size: int,
    seed: int,
    spatial_dims: int = 2,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> None:
    """Save the synthetic data set to ``folder``/data if one of the locations is "synthetic"."""
    if any(str(location) == SYNTHETIC for location in locations):
        synthetic_dataset(length, size, seed, spatial_dims).save(Path(folder) / "data", progress=progress)


def synthetic_dataset(
    length: int, size: int, seed: int, spatial_dims: int = 2
) -> SyntheticChestXRay | SyntheticChestCT:
    """The built-in data set: radiographs, or CT volumes in three dimensions.

    Raises:
        ValueError: If ``spatial_dims`` is not 2 or 3.
    """
    check_option(spatial_dims, "spatial_dims", (2, 3))
    return (SyntheticChestXRay if spatial_dims == 2 else SyntheticChestCT)(length, size, seed)


def table_path(data: str | Path, folder: str | Path) -> Path:
    """The table that ``data`` refers to: itself, that of an image folder, or the one of "synthetic" in ``folder``/data."""
    if str(data) == SYNTHETIC:
        return Path(folder) / "data" / "cases.csv"
    return (find_metadata(Path(data)) if Path(data).is_dir() else None) or Path(data)
