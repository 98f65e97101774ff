"""Merlin's abdominal CT data set (Blankemeier et al. 2024), read from its published tables and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medvl.data.cells import describe_cell
from medvl.data.label_columns import parse_states
from medvl.data.public.base import ImageIndex, PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOT_LABELED = ("-1", "-1.0")


@register_public_dataset("merlin")
class Merlin(PublicDataset):
    """Merlin's abdominal CT volumes with reports as a datalist, one dictionary a study.

    Each study holds ``study_id``, ``split``, ``image`` (a NIfTI volume), ``report`` (findings) and, for the studies of the
    table of labels, ``label`` (float32 (30,): 1 present, 0 absent; its -1 is "not labeled" in this data set, and so NaN
    here). The files have no patients beside the studies.

    Layout: ``reports_final.xlsx`` (or .csv; columns ``study id``, ``Findings``, ``Split``),
    ``zero_shot_findings_disease_cls.csv`` (a study a row, a column a finding) and ``merlin_data/<study id>.nii.gz``. An
    ``.xlsx`` needs ``pip install "medvl[tables]"``. License: Stanford University Dataset Research Use Agreement. Apply at the
    Stanford AIMI Center. File and column names were compared with public code that reads them, not with the files.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table of reports.
        ValueError: If an argument is unknown, or a table lacks a column.
        medvl.utils.errors.StudyError: If a split or a label is unknown, or a volume does not exist.
    """

    title = "Merlin"
    layout = "reports_final.xlsx, zero_shot_findings_disease_cls.csv and merlin_data/*.nii.gz"
    license = "Stanford University Dataset Research Use Agreement (research that is not commercial)"
    url = "https://stanfordaimi.azurewebsites.net/datasets/60b9c7ff-877b-48ce-96c3-0194c8205c40"

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The studies of the table of reports."""
        reports = self.require("reports_final.xlsx", "reports_final.csv")
        labels = self.find("zero_shot_findings_disease_cls.csv")
        images = ImageIndex(self.path, suffixes=(".nii.gz", ".nii"))
        states: dict[str, dict[str, str]] = {}
        for row in self.read_rows(labels) if labels else ():
            first, *names = (name for name in row if name)
            self.names = tuple(names)
            states[row[first]] = {name: "" if row[name] in _NOT_LABELED else row[name] for name in names}
        for row in self.read_rows(reports, ("study id", "Findings", "Split")):
            study_id = row["study id"]
            with self.handle_study_errors():
                split = _SPLITS.get(row["Split"].strip().lower())
                if split is None:
                    raise StudyError(
                        study_id, "Split", f"expected train, val or test, got {describe_cell(row['Split'])}"
                    )
                study: dict[str, Any] = {
                    "study_id": study_id,
                    "split": split,
                    "image": self.indexed_images(images, study_id, study_id),
                    "report": row["Findings"],
                }
                if study_id in states:
                    study["label"] = parse_states(states[study_id], self.names, study_id)
                yield study
