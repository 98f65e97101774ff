"""CheXpert (Irvin et al. 2019), read from its own CSV and folder layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from medvl.data.cells import describe_cell, is_missing
from medvl.data.label_columns import CHEXPERT_FINDINGS, parse_states
from medvl.data.public.base import PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError

#: Split: names of its table. CheXlocalize has those of the radiologists' labels.
_TABLES = {"train": ("train.csv",), "val": ("valid.csv", "val_labels.csv"), "test": ("test.csv", "test_labels.csv")}


@register_public_dataset("chexpert")
class CheXpert(PublicDataset):
    """CheXpert as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("patient00001/study1"), ``patient_id``, ``split``, ``image`` (list of paths), ``views``
    ("frontal" or "lateral" for each image), ``label`` (float32 (14,): 1 present, 0 absent, -1 uncertain, NaN not mentioned,
    in the order of ``names``, whatever the order in the file), and ``sex`` and ``age`` if the file has them.

    Layout: ``train.csv`` and ``valid.csv`` beside ``train/`` and ``valid/``, whose images are
    ``patient00001/study1/view1_frontal.jpg`` (CheXpert-v1.0, CheXpert-v1.0-small); the test set is ``test.csv`` or
    ``test_labels.csv`` with ``test/``. CheXpert-v1.0 may be in its four batches, as it is downloaded: the tables in
    ``CheXpert-v1.0 batch 1 (validate & csv)``, the patients of the training set in the others. License: Stanford University
    Dataset Research Use Agreement, which allows research that is not commercial. Apply at the Stanford AIMI Center. Columns and
    paths were compared with the table in TorchXRayVision; those of the batches are as users report them.

    Args:
        path: the data set's folder, which holds the tables and the images.
        split: see :class:`~medvl.data.public.base.PublicDataset`, as the other arguments.
        views: ``"frontal"``, ``"lateral"`` or ``"all"``.
        check_files: see :class:`~medvl.data.public.base.PublicDataset`.
        on_error: see :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If an argument is unknown, or a table lacks the column Path or one of the 14 findings.
        medvl.utils.errors.StudyError: If a label is not 1, 0, -1 or blank, a path has no patient and study folder, or an
            image does not exist.

    Example:
        >>> studies = CheXpert("CheXpert-v1.0-small", split="val", views="frontal")  # doctest: +SKIP
    """

    title = "CheXpert"
    layout = "train.csv or valid.csv beside the folders train and valid"
    license = "Stanford University Dataset Research Use Agreement (research that is not commercial)"
    url = "https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2"
    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The studies of the tables that are there."""
        above = ("", "CheXpert-v1.0 batch 1*/")
        tables = {
            split: self.find(*(f"{a}{name}" for a in above for name in names)) for split, names in _TABLES.items()
        }
        if not any(tables.values()):
            self.require("train.csv", "valid.csv")
        studies: dict[str, dict[str, Any]] = {}
        for split, table in tables.items():
            for row in self.read_rows(table, ("Path", *self.names), ("Frontal/Lateral", "Sex", "Age")) if table else ():
                with self.handle_study_errors():
                    self._add(studies, row, split)
        yield from studies.values()

    def _add(self, studies: dict[str, dict[str, Any]], row: dict[str, str], split: str) -> None:
        study_id, patient_id = parse_chexpert_path(row["Path"])
        view = row.get("Frontal/Lateral") or ("lateral" if "lateral" in row["Path"] else "frontal")
        details = _details(row, study_id)
        path = self.image_path(self._image(row["Path"]), study_id)
        study = studies.setdefault(
            study_id,
            {"study_id": study_id, "patient_id": patient_id, "split": split, "image": [], "views": [], **details},
        )
        study["image"].append(path)
        study["views"].append(view.strip().lower())

    def _image(self, name: str) -> Path:
        # Most CSVs' paths begin with the data set's folder, which may have been renamed; those of the test set do not.
        parts = PurePosixPath(name).parts
        split = next(i for i, part in enumerate(parts) if part.startswith("patient")) - 1
        path = self.path.joinpath(*parts[max(split, 0) :])
        if parts[split] == "valid" and not (self.path / "valid").is_dir() and (self.path / "val").is_dir():
            return self.path.joinpath("val", *parts[split + 1 :])  # CheXlocalize's copy
        if self._batches and not path.exists():
            below = (parts[start:] for start in (split + 1, max(split, 0)))
            candidates = (batch.joinpath(*names) for names in below for batch in self._batches)
            return next((candidate for candidate in candidates if candidate.exists()), path)
        return path

    @cached_property
    def _batches(self) -> list[Path]:
        """The four folders in which CheXpert-v1.0 is downloaded; the first has a folder valid, the others patients' folders."""
        return sorted(self.path.glob("CheXpert-v1.0 batch *"))


def parse_chexpert_path(path: str) -> tuple[str, str]:
    """The ids of the study and of the patient in a path such as ``train/patient00001/study1/view1_frontal.jpg``."""
    parts = PurePosixPath(path).parts
    patient = next((part for part in parts if part.startswith("patient")), None)
    study = next((part for part in parts if part.startswith("study")), None)
    if patient is None or study is None:
        raise StudyError(path, "image", "the path has no patient and study folder, expected patient00001/study1/...")
    return f"{patient}/{study}", patient


def _details(row: dict[str, str], study_id: str) -> dict[str, Any]:
    details: dict[str, Any] = {"label": parse_states(row, CHEXPERT_FINDINGS, study_id)}
    if row.get("Sex"):
        details["sex"] = row["Sex"]
    if not is_missing(row.get("Age")):
        try:
            details["age"] = float(row["Age"])
        except ValueError as error:
            raise StudyError(study_id, "Age", f"expected a number or blank, got {describe_cell(row['Age'])}") from error
    return details
