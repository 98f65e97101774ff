"""MIMIC-CXR (Johnson et al. 2019), read from its published folders and tables."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from medvl.data.label_columns import CHEXPERT_COLUMNS
from medvl.data.public.chexpert import parse_states
from medvl.data.study_list import StudyList
from medvl.utils.errors import StudyError

_SPLITS = {"train": "train", "val": "validate", "validate": "validate", "test": "test"}
_LABELLERS = ("chexpert", "negbio")


class MIMIC_CXR(StudyList):
    """A split of MIMIC-CXR or MIMIC-CXR-JPG as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("s50414267"), ``patient_id`` ("p10000032"), ``image`` (list of paths), ``views`` (the
    view position of each image), ``report`` (the text) where there is a report's file, and ``label`` (float32 (14,):
    1 present, 0 absent, -1 uncertain, NaN not mentioned) where the table of labels names the study.

    Args:
        folder: the data set's folder: ``files/p10/p10000032/s50414267/*.jpg`` (or .dcm) and the tables
            ``mimic-cxr-2.0.0-split.csv``, ``-metadata.csv`` and ``-chexpert.csv``, each as it is or gzipped.
        split: ``"train"``, ``"validate"`` (or ``"val"``) or ``"test"``.
        reports: folder with the reports, ``files/p10/p10000032/s50414267.txt``; the data set's folder if None.
        views: view positions to keep, such as ``["PA", "AP"]``; all if None.
        labeller: which table of labels to read, ``"chexpert"`` or ``"negbio"``.
        check_files: look whether every image is there.
        on_error: ``"raise"`` on a study with a wrong label or file, ``"skip"`` to leave it out and list it in
            ``skipped``.

    Raises:
        FileNotFoundError: if the table of splits, or where ``views`` are asked for that of metadata, is not there.
        ValueError: for an unknown split, labeller or ``on_error``, or a table without the columns that name its studies.
        medvl.utils.errors.StudyError: for a label that is no state, or an image that is not there.

    Example:
        >>> studies = MIMIC_CXR("mimic-cxr-jpg", split="test", views=["PA", "AP"])  # doctest: +SKIP
    """

    names: tuple[str, ...] = CHEXPERT_COLUMNS

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        reports: str | Path | None = None,
        views: Sequence[str] | None = None,
        labeller: str = "chexpert",
        check_files: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(on_error)
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {sorted(_SPLITS)}, got {split!r}")
        if labeller not in _LABELLERS:
            raise ValueError(f"labeller must be one of {_LABELLERS}, got {labeller!r}")
        self.folder = Path(folder)
        self.reports = self.folder if reports is None else Path(reports)
        metadata = self._rows("metadata", ["dicom_id"], required=views is not None)
        positions = {row["dicom_id"]: row.get("ViewPosition") or "" for row in metadata}
        labels = {row["study_id"]: row for row in self._rows(labeller, ["study_id"], required=False)}
        wanted = None if views is None else ({views} if isinstance(views, str) else set(views))
        images: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for row in self._rows("split", ["dicom_id", "study_id", "subject_id", "split"]):
            position = positions.get(row["dicom_id"], "")
            if row["split"] == _SPLITS[split] and (wanted is None or position in wanted):
                images[row["subject_id"], row["study_id"]].append((row["dicom_id"], position))
        for (subject, study), found in images.items():
            with self._reading_a_study():
                self._studies.append(self._study(subject, study, found, labels.get(study), check_files))

    def _rows(self, table: str, columns: Sequence[str], required: bool = True) -> Iterator[dict[str, str]]:
        found = sorted(path for path in self.folder.glob(f"mimic-cxr-*-{table}.csv*") if path.suffix in (".csv", ".gz"))
        if not found:
            if required:
                raise FileNotFoundError(f"folder: there is no table mimic-cxr-*-{table}.csv in {self.folder}")
            return
        with _open_text(found[0]) as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise ValueError(
                    f"{found[0].name} has no column {', '.join(missing)}; expected MIMIC-CXR's own columns"
                )
            yield from reader

    def _study(
        self, subject: str, study: str, images: list[tuple[str, str]], labels: dict[str, str] | None, check: bool
    ) -> dict[str, Any]:
        place = Path("files", f"p{subject[:2]}", f"p{subject}")
        paths = [self._image(place / f"s{study}", dicom, f"s{study}", check) for dicom, _ in images]
        out: dict[str, Any] = {
            "study_id": f"s{study}",
            "patient_id": f"p{subject}",
            "image": paths,
            "views": [position for _, position in images],
        }
        report = self.reports / place / f"s{study}.txt"
        if report.is_file():
            out["report"] = report.read_text(encoding="utf-8", errors="replace")
        if labels is not None:
            out["label"] = parse_states(labels, f"s{study}")
        return out

    def _image(self, place: Path, dicom: str, study_id: str, check: bool) -> str:
        path = self.folder / place / f"{dicom}.jpg"
        if not path.is_file() and (original := path.with_suffix(".dcm")).is_file():
            path = original
        elif check and not path.is_file():
            raise StudyError(study_id, "image", f"neither {dicom}.jpg nor {dicom}.dcm exists")
        return str(path)


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")
