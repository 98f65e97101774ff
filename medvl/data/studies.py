"""The studies of a run: a table, or the built-in synthetic set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.data.manifest import Manifest, read_manifest
from medvl.data.synthetic import SyntheticChestXRay
from medvl.data.synthetic.chest_ct import SyntheticChestCT

SYNTHETIC = "synthetic"


def load_studies(
    data: str | Path,
    folder: str | Path,
    *,
    keys: Sequence[str] = ("image", "report"),
    columns: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    seed: int = 0,
    synthetic_length: int = 2000,
    synthetic_size: int = 128,
    spatial_dims: int = 2,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> Manifest:
    """Reads the studies that have all ``keys`` and gives each a split, by patient where the table has none.

    The synthetic set is written to ``folder``/data as images and a table, and then read like any other table.

    Args:
        data: a CSV, TSV, JSON or JSONL file, or "synthetic".
        folder: the run's folder.
        keys: what a study must have; the others are counted in the manifest's ``left_out``.
        columns: arguments of :func:`~medvl.data.read_manifest` that name columns; those that are None are left out.
        on_error: "raise" or "skip", as in :func:`~medvl.data.read_manifest`.
        seed: of the splits, and of the synthetic set.
        synthetic_length: number of synthetic studies.
        synthetic_size: side of the synthetic images in pixels.
        spatial_dims: 2 for synthetic radiographs, 3 for synthetic CT.
        progress: wraps the iteration over the synthetic studies as they are written, as ``tqdm`` does.

    Returns:
        The manifest, every study with a ``split``.

    Raises:
        OSError: where the table cannot be read.
        ValueError: where the table is wrong, or fewer than two studies of the training split have all keys.
    """
    write_synthetic([data], folder, synthetic_length, synthetic_size, seed, spatial_dims, progress)
    given = {name: value for name, value in (columns or {}).items() if value is not None}
    manifest = read_manifest(table_path(data, folder), on_error=on_error, **given)
    # split first: who is in which split must not depend on what a run asks of its studies
    manifest = manifest.with_splits(seed=seed).require(*keys)
    number = len(manifest.split("train"))
    if number < 2:
        raise ValueError(
            f"the training split of {manifest.name} has {number} of its {len(manifest)} studies, expected at least 2"
        )
    return manifest


def write_synthetic(
    places: Iterable[str | Path | None],
    folder: str | Path,
    length: int,
    size: int,
    seed: int,
    spatial_dims: int = 2,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> None:
    """Writes the synthetic set to ``folder``/data where one of ``places`` is "synthetic"."""
    if any(str(place) == SYNTHETIC for place in places):
        synthetic_set(length, size, seed, spatial_dims).write(Path(folder) / "data", progress=progress)


def synthetic_set(length: int, size: int, seed: int, spatial_dims: int = 2) -> SyntheticChestXRay | SyntheticChestCT:
    """The built-in set: radiographs, or in three dimensions CT.

    Raises:
        ValueError: for a number of dimensions other than 2 and 3.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, received {spatial_dims}.")
    return (SyntheticChestXRay if spatial_dims == 2 else SyntheticChestCT)(length, size, seed)


def table_path(data: str | Path, folder: str | Path) -> Path:
    """The table that ``data`` stands for: itself, or for "synthetic" the one written to ``folder``/data."""
    return Path(folder) / "data" / "cases.csv" if str(data) == SYNTHETIC else Path(data)
