"""CheXpert Plus (Chambon et al. 2024), read from its published table, labels and images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvl.data.cells import describe_cell
from medvl.data.label_columns import CHEXPERT_FINDINGS, parse_states
from medvl.data.public.base import PublicDataset, check_joined
from medvl.data.public.chexpert import parse_chexpert_path
from medvl.data.public.registry import register_public_dataset
from medvl.utils.checks import check_option
from medvl.utils.errors import StudyError

_LABELED = ("impression", "findings", "report")
_SPLITS = {"train": "train", "valid": "val", "test": "test"}


@register_public_dataset("chexpert-plus")
class CheXpertPlus(PublicDataset):
    """CheXpert Plus as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("patient00001/study1"), ``patient_id``, ``split``, ``image`` (list of paths), ``views``
    ("Frontal" or "Lateral"), ``report`` (the whole report with its headers) and, if the file of labels is there, ``label``
    (float32 (14,): CheXbert's states of a section).

    Layout: ``df_chexpert_plus_240401.csv`` (path_to_image, frontal_lateral, deid_patient_id, report, split and more),
    ``chexbert_labels/impression_fixed.json`` (``findings_fixed``, ``report_fixed``; one object a line), and the images below
    ``PNG`` (once or twice), ``DICOM`` or the folder itself, with .png, .dcm or .jpg. License: Stanford University Dataset
    Research Use Agreement. Apply at the Stanford AIMI Center. File and column names were compared with public code that reads
    them, not with the files.

    Args:
        path: see :class:`~medvl.data.public.base.PublicDataset`.
        split: see :class:`~medvl.data.public.base.PublicDataset`.
        views: ``"frontal"``, ``"lateral"`` or ``"all"``.
        labels: the part of the report that the labels are of: ``"impression"``, ``"findings"`` or ``"report"``.
        check_files: see :class:`~medvl.data.public.base.PublicDataset`.
        on_error: see :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If an argument is unknown, or the table lacks a column.
        medvl.utils.errors.StudyError: If a label is not 1, 0, -1 or blank, a path is not of CheXpert's form, or an image does
            not exist.
    """

    title = "CheXpert Plus"
    layout = (
        "df_chexpert_plus_240401.csv, chexbert_labels/impression_fixed.json and PNG/train/patient00001/study1/*.png"
    )
    license = "Stanford University Dataset Research Use Agreement (research that is not commercial)"
    url = "https://aimi.stanford.edu/datasets/chexpert-plus"
    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        views: str | Sequence[str] = "all",
        labels: str = "impression",
        check_files: bool = True,
        on_error: str = "raise",
    ) -> None:
        check_option(labels, "labels", _LABELED)
        self.labels = labels
        super().__init__(path, split, views, check_files, on_error)

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The studies of the table."""
        table = self.require("df_chexpert_plus_*.csv")
        labels_file = self._labels_file()
        labels = {} if labels_file is None else dict(_read_labels(labels_file))
        above = [above for name in ("PNG/PNG", "PNG", "DICOM", "") if (above := self.path / name).is_dir()]
        studies: dict[str, dict[str, Any]] = {}
        named: set[str] = set()
        columns = ("path_to_image", "frontal_lateral", "deid_patient_id", "report", "split")
        for row in self.read_rows(table, columns):
            with self.handle_study_errors():
                name = row["path_to_image"]
                named.add(name)
                study_id = parse_chexpert_path(name)[0]
                if row["split"] not in _SPLITS:
                    raise StudyError(study_id, "split", f"expected train or valid, got {describe_cell(row['split'])}")
                image = self._image(above, name, study_id)
                study: dict[str, Any] = {
                    "study_id": study_id,
                    "patient_id": row["deid_patient_id"],
                    "split": _SPLITS[row["split"]],
                    "image": [],
                    "views": [],
                    "report": row["report"],
                }
                if (stem := _stem(name)) in labels:
                    study["label"] = parse_states(labels[stem], self.names, study_id)
                study = studies.setdefault(study_id, study)
                study["image"].append(image)
                study["views"].append(row["frontal_lateral"])
        check_joined(labels_file, labels, {_stem(name) for name in named})
        yield from studies.values()

    def _labels_file(self) -> Path | None:
        """The file of labels; only that of the impressions, which is read by default, may be missing."""
        names = (f"chexbert_labels/{self.labels}_fixed.json", f"{self.labels}_fixed.json")
        return self.find(*names) if self.labels == "impression" else self.require(*names)

    def _image(self, above: Sequence[Path], name: str, study_id: str) -> str:
        for folder in above:
            for suffix in (".png", ".dcm", ".jpg"):
                if (path := (folder / name).with_suffix(suffix)).is_file():
                    return str(path)
        return self.image_path(self.path / name, study_id, ".png")


def _read_labels(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The stem of each image's path, and its row."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = row["path_to_image"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name}, line {number}: expected an object with path_to_image.") from error
            yield _stem(name), {key: "" if cell is None else str(cell) for key, cell in row.items()}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
