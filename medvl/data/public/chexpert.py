"""CheXpert (Irvin et al. 2019), read from its own CSV and folder layout."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medvl.data.label_columns import CHEXPERT_COLUMNS, is_missing
from medvl.data.study_list import StudyList
from medvl.utils.errors import StudyError

_STATES = {"": np.nan, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}
_VIEWS = ("frontal", "lateral")


class CheXpert(StudyList):
    """A split of CheXpert as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("patient00001/study1"), ``patient_id``, ``image`` (list of paths), ``views`` ("frontal"
    or "lateral" for each image), ``label`` (float32 (14,): 1 present, 0 absent, -1 uncertain, NaN not mentioned, in the
    order of ``names`` whatever the file's), and ``sex`` and ``age`` where the file has them.

    Args:
        folder: the data set's folder, which holds ``train.csv`` and ``valid.csv`` and the images
            (``CheXpert-v1.0``, ``CheXpert-v1.0-small``).
        split: ``"train"``, ``"valid"`` or ``"test"``: the CSV's name.
        views: which views to keep; studies without any are left out.
        check_files: look whether every image is there.
        on_error: ``"raise"`` on a study with such an error, ``"skip"`` to leave it out and list it in ``skipped``.

    Raises:
        FileNotFoundError: if the CSV is not there.
        ValueError: for unknown ``views`` or ``on_error``, or a CSV without the column Path or one of the 14 findings.
        medvl.utils.errors.StudyError: for a label that is none of 1, 0, -1 or blank, a path without patient and study, or an
            image that is not there.

    Example:
        >>> studies = CheXpert("CheXpert-v1.0-small", split="valid", views=["frontal"])  # doctest: +SKIP
    """

    names: tuple[str, ...] = CHEXPERT_COLUMNS

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        views: Sequence[str] = _VIEWS,
        check_files: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(on_error)
        views = (views,) if isinstance(views, str) else tuple(views)
        if not views or set(views) - set(_VIEWS):
            raise ValueError(f"views must be some of {_VIEWS}, got {views}")
        self.folder = Path(folder)
        table = self.folder / f"{split}.csv"
        if not table.is_file():
            raise FileNotFoundError(f"split: there is no file {table}")
        studies: dict[str, dict[str, Any]] = {}
        images: dict[str, list[tuple[str, str]]] = defaultdict(list)
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(table.name, reader.fieldnames or [], self.names)
            for row in reader:
                with self._reading_a_study():
                    study_id, patient = _identity(row["Path"])
                    view = row.get("Frontal/Lateral") or ("lateral" if "lateral" in row["Path"] else "frontal")
                    view = view.strip().lower()
                    if view not in views:
                        continue
                    path = self._image(row["Path"], study_id, check_files)
                    details = _details(row, study_id)
                    images[study_id].append((path, view))
                    studies.setdefault(study_id, {"study_id": study_id, "patient_id": patient, **details})
        self._studies = [
            {**study, "image": [path for path, _ in images[key]], "views": [view for _, view in images[key]]}
            for key, study in studies.items()
        ]

    def _image(self, name: str, study_id: str, check: bool) -> str:
        # Most CSVs' paths begin with the data set's own folder, which may have been renamed; the test set's do not.
        parts = PurePosixPath(name).parts
        split = next(i for i, part in enumerate(parts) if part.startswith("patient")) - 1
        path = self.folder.joinpath(*parts[max(split, 0) :])
        if check and not path.is_file():
            raise StudyError(study_id, "image", f"the file {name} does not exist")
        return str(path)


def _check_columns(name: str, columns: Sequence[str], names: Sequence[str]) -> None:
    missing = [column for column in ("Path", *names) if column not in columns]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; expected CheXpert's own columns")


def _identity(path: str) -> tuple[str, str]:
    parts = PurePosixPath(path).parts
    patient = next((part for part in parts if part.startswith("patient")), None)
    study = next((part for part in parts if part.startswith("study")), None)
    if patient is None or study is None:
        raise StudyError(path, "image", "the path has no patient and study folder, expected patient00001/study1/...")
    return f"{patient}/{study}", patient


def _details(row: dict[str, str], study_id: str) -> dict[str, Any]:
    details: dict[str, Any] = {"label": parse_states(row, study_id)}
    if row.get("Sex"):
        details["sex"] = row["Sex"]
    if not is_missing(row.get("Age")):
        try:
            details["age"] = float(row["Age"])
        except ValueError as error:
            raise StudyError(study_id, "Age", f"received {row['Age'][:20]!r}, expected a number or blank") from error
    return details


def parse_states(row: dict[str, str], study_id: str, names: Sequence[str] = CHEXPERT_COLUMNS) -> np.ndarray:
    """Read a row of CheXpert's label columns, by name.

    Args:
        row: column to cell.
        study_id: for the error.
        names: columns to read, in the order of the result.

    Returns:
        float32 (K,): 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Raises:
        medvl.utils.errors.StudyError: for a cell that is none of 1, 0, -1 or blank, or a row that ends before it.

    Example:
        >>> parse_states({"Edema": "-1.0", "Fracture": ""}, "s1", ["Fracture", "Edema"]).tolist()
        [nan, -1.0]
    """
    states = []
    for name in names:
        if row.get(name, "") is None:  # so DictReader fills a row that was cut short
            raise StudyError(study_id, name, "the row ends before this column, expected 1, 0, -1 or blank")
        cell = row.get(name, "").strip()
        if cell not in _STATES:
            raise StudyError(study_id, name, f"the label is {cell[:20]!r}, expected 1, 0, -1 or blank")
        states.append(_STATES[cell])
    return np.array(states, dtype=np.float32)
