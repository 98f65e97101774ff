"""MIMIC-CXR (Johnson et al. 2019), read from its published folders and tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvl.data.cells import describe_cell
from medvl.data.label_columns import CHEXPERT_FINDINGS, parse_states
from medvl.data.public.base import PublicDataset, check_joined
from medvl.data.public.registry import register_public_dataset
from medvl.utils.checks import check_option
from medvl.utils.errors import StudyError

logger = logging.getLogger(__name__)

_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_LABELERS = ("chexpert", "negbio")


@register_public_dataset("mimic-cxr")
class MIMIC_CXR(PublicDataset):
    """MIMIC-CXR or MIMIC-CXR-JPG as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("s50414267"), ``patient_id`` ("p10000032"), ``split``, ``image`` (list of paths), ``views``
    (the view position of each image), ``report`` (the text) if its file exists, and ``label`` (float32 (14,): 1 present, 0
    absent, -1 uncertain, NaN not mentioned) if the table of labels has the study.

    Layout: images ``files/p10/p10000032/s50414267/*.jpg`` (MIMIC-CXR-JPG) or ``.dcm`` (MIMIC-CXR), reports
    ``files/p10/p10000032/s50414267.txt`` (MIMIC-CXR) and the tables ``mimic-cxr-2.0.0-split.csv``, ``-metadata.csv``,
    ``-chexpert.csv`` and ``-negbio.csv`` (MIMIC-CXR-JPG), each as it is or gzipped. Without the table of splits, as in
    MIMIC-CXR alone, ``cxr-record-list.csv`` names the images, and there are no splits, views and labels. License: PhysioNet
    Credentialed Health Data License 1.5.0. Apply at PhysioNet, with its course on human research. Columns and paths were
    compared with the readers in TorchXRayVision and MGCA.

    Args:
        path: the data set's folder.
        split: see :class:`~medvl.data.public.base.PublicDataset`, as the other arguments.
        views: ``"frontal"``, ``"lateral"``, ``"all"``, or view positions such as ``["PA", "AP"]``.
        reports: folder with the reports' ``files``; the data set's folder if it is blank.
        labeler: whose labels to read, ``"chexpert"`` or ``"negbio"``.
        check_files: see :class:`~medvl.data.public.base.PublicDataset`.
        on_error: see :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If neither the table of splits nor that of the records exists.
        ValueError: If an argument is unknown, or a table lacks a required column.
        medvl.utils.errors.StudyError: If a label is not 1, 0, -1 or blank, or an image does not exist.

    Example:
        >>> studies = MIMIC_CXR("mimic-cxr-jpg", split="test", views=["PA", "AP"])  # doctest: +SKIP
    """

    title = "MIMIC-CXR"
    layout = "files/p10/p10000032/s50414267/*.jpg (or .dcm) and mimic-cxr-2.0.0-split.csv or cxr-record-list.csv"
    license = "PhysioNet Credentialed Health Data License 1.5.0"
    url = "https://physionet.org/content/mimic-cxr-jpg/"
    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        views: str | Sequence[str] = "all",
        reports: str | Path = "",
        labeler: str = "chexpert",
        check_files: bool = True,
        on_error: str = "raise",
    ) -> None:
        check_option(labeler, "labeler", _LABELERS)
        self.labeler = labeler
        self.reports = Path(reports or path)
        super().__init__(path, split, views, check_files, on_error)

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The studies of the table of splits, or of the table of records."""
        records = self.require("mimic-cxr-*-split.csv", "cxr-record-list.csv")
        positions = {row["dicom_id"]: row.get("ViewPosition") or "" for row in self._rows("metadata", "dicom_id")}
        labels = {row["study_id"]: row for row in self._rows(self.labeler, "study_id")}
        studies: dict[str, dict[str, Any]] = {}
        images, numbers = set[str](), set[str]()
        for row in self.read_rows(records, ("dicom_id", "study_id", "subject_id"), ["split"]):
            with self.handle_study_errors():
                self._add(studies, row, positions.get(row["dicom_id"], ""), labels)
            images.add(row["dicom_id"])
            numbers.add(row["study_id"])
        check_joined(self.find("mimic-cxr-*-metadata.csv"), positions, images)
        check_joined(self.find(f"mimic-cxr-*-{self.labeler}.csv"), labels, numbers)
        if studies and not any("report" in study for study in studies.values()) and self._archives:
            logger.warning("No study of %s has a report%s.", self.path, self._archives)
        yield from studies.values()

    def _rows(self, table: str, key: str) -> Iterator[dict[str, str]]:
        found = self.find(f"mimic-cxr-*-{table}.csv")
        if found is not None:
            yield from self.read_rows(found, [key], ("ViewPosition", *self.names))

    def _add(
        self, studies: dict[str, dict[str, Any]], row: dict[str, str], view: str, labels: dict[str, dict[str, str]]
    ) -> None:
        subject, number = row["subject_id"], row["study_id"]
        study_id = f"s{number}"
        folder = Path("files", f"p{subject[:2]}", f"p{subject}")
        path = self.image_path(self.path / folder / study_id / f"{row['dicom_id']}.jpg", study_id, ".dcm")
        if study_id not in studies:
            study: dict[str, Any] = {"study_id": study_id, "patient_id": f"p{subject}"}
            if "split" in row:
                if row["split"] not in _SPLITS:
                    raise StudyError(
                        study_id, "split", f"expected train, validate or test, got {describe_cell(row['split'])}"
                    )
                study["split"] = _SPLITS[row["split"]]
            report = self.reports / folder / f"{study_id}.txt"
            if report.is_file():
                study["report"] = report.read_text(encoding="utf-8", errors="replace")
            if number in labels:
                study["label"] = parse_states(labels[number], self.names, study_id)
            studies[study_id] = {**study, "image": [], "views": []}
        studies[study_id]["image"].append(path)
        studies[study_id]["views"].append(view)
