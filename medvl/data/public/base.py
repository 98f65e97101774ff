"""Base class and registry of the public data sets."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

import medvl.data.public
from medvl.data.manifest import CONTENT_KEYS, Manifest
from medvl.data.tables import read_table
from medvl.utils.checks import check_option, error_message
from medvl.utils.errors import StudyError


class PublicDataset(Sequence[dict[str, Any]], ABC):
    """A public data set as a datalist: a sequence of dictionaries, one a study.

    A study has ``study_id`` and, where the data set has them, ``patient_id``, ``image`` (list of paths, one a view),
    ``report`` and ``label`` (float32 (K,), in the order of ``names``).

    A subclass reads its studies in the constructor into ``_studies``, each inside :meth:`handle_study_errors`.

    Args:
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Attributes:
        names: the K finding names.
        skipped: the errors of the studies that were skipped.

    Raises:
        ValueError: If ``on_error`` is unknown.
    """

    names: tuple[str, ...] = ()

    def __init__(self, on_error: str = "raise") -> None:
        check_option(on_error, "on_error", ("raise", "skip"))
        self._on_error = on_error
        self._studies: list[dict[str, Any]] = []
        self.skipped: list[StudyError] = []

    @classmethod
    @abstractmethod
    def read_splits(cls, path: str | Path, on_error: str = "raise") -> Mapping[str, PublicDataset]:
        """Every split that is found at ``path``, by the name ``train``, ``val`` or ``test``; ``""`` if there are no splits."""

    @contextmanager
    def handle_study_errors(self) -> Iterator[None]:
        """Raise or record a :class:`~medvl.utils.errors.StudyError` of the block, as ``on_error`` says."""
        try:
            yield
        except StudyError as error:
            if self._on_error == "raise":
                raise
            self.skipped.append(error)

    def read_rows(self, path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
        """The rows of one of the data set's tables as text; a row that cannot be read is raised or recorded.

        Args:
            path: the file, of any format that :func:`medvl.data.tables.read_table` reads.
            columns: columns that it must have.

        Raises:
            ValueError: If one of the columns is missing, or the table is broken.
            medvl.utils.errors.StudyError: If a row cannot be read and ``on_error`` is ``"raise"``.
        """
        table = read_table(path)
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise ValueError(f"{path.name} has no column {', '.join(missing)}; use the data set's original table.")
        for row in table:
            if row.problem:
                with self.handle_study_errors():
                    raise StudyError(f"row {row.number}", path.name, f"{row.position}: {row.problem}")
            else:
                yield {column: "" if cell is None else str(cell) for column, cell in row.cells.items()}

    def __len__(self) -> int:
        return len(self._studies)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._studies[index]


DatasetType = TypeVar("DatasetType", bound=type[PublicDataset])
_REGISTRY: dict[str, type[PublicDataset]] = {}


def register_public_dataset(name: str) -> Callable[[DatasetType], DatasetType]:
    """Class decorator that makes a data set available as the source ``KIND=NAME:PATH``.

    Args:
        name: the name before the colon, of at least two characters (one letter is a Windows drive).

    Raises:
        ValueError: If the name is too short, has a colon or is taken.
    """
    if len(name) < 2 or ":" in name or name in _REGISTRY:
        raise ValueError(error_message("name", "be a new name of at least two characters without a colon", repr(name)))

    def register(dataset: DatasetType) -> DatasetType:
        _REGISTRY[name] = dataset
        return dataset

    return register


def public_datasets() -> Mapping[str, type[PublicDataset]]:
    """The registered data sets by name, those of every module of ``medvl.data.public`` among them.

    Example:
        >>> sorted(public_datasets())
        ['chexpert', 'mimic-cxr', 'openi']
    """
    for module in pkgutil.iter_modules(medvl.data.public.__path__):
        importlib.import_module(f"{medvl.data.public.__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))  # whatever was imported first


def read_public_dataset(name: str, path: str | Path, on_error: str = "raise") -> Manifest:
    """All splits of a registered data set as a :class:`~medvl.data.Manifest`.

    Args:
        name: the name under which the data set is registered.
        path: its folder or archive.
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies.

    Raises:
        FileNotFoundError: If there is no study at ``path``.
        ValueError: If the name is unknown.
    """
    datasets = public_datasets()
    check_option(name, "name", tuple(datasets))
    read: list[dict[str, Any]] = []
    skipped: list[StudyError] = []
    for split, part in datasets[name].read_splits(path, on_error).items():
        read += [{**study, "split": split} if split else study for study in part]
        skipped += part.skipped
    if not read and not skipped:
        raise FileNotFoundError(f"{name}: there is no study in {path}.")
    studies = [view for row, study in enumerate(read, start=1) for view in _views(study, row)]
    names = datasets[name].names
    return Manifest.from_studies(f"{name}:{Path(path).name}", studies, len(read) + len(skipped), names, skipped)


def _views(study: Mapping[str, Any], row: int) -> list[dict[str, Any]]:
    """A study as one dictionary for each view, with the keys of a manifest that have content."""
    kept = {key: study[key] for key in ("study_id", "patient_id", "split", *CONTENT_KEYS[1:]) if key in study}
    if not str(kept.get("report", "")).strip():
        kept.pop("report", None)
    if "label" in kept and np.isnan(kept["label"]).all():
        del kept["label"]
    kept["row"] = row
    return [{**kept, "image": image} for image in study.get("image") or []] or [kept]
