"""MIMIC-CXR (Johnson et al. 2019), read from its published folders and tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvl.data.label_columns import CHEXPERT_FINDINGS, parse_states
from medvl.data.public.base import PublicDataset, register_public_dataset
from medvl.utils.checks import check_option
from medvl.utils.errors import StudyError

_SPLITS = {"train": "train", "val": "validate", "test": "test"}  # name here: name in the table
_LABELERS = ("chexpert", "negbio")


@register_public_dataset("mimic-cxr")
class MIMIC_CXR(PublicDataset):
    """A split of MIMIC-CXR or MIMIC-CXR-JPG as a datalist, one dictionary a study.

    Each study holds ``study_id`` ("s50414267"), ``patient_id`` ("p10000032"), ``image`` (list of paths), ``views`` (the
    view position of each image), ``report`` (the text) if its file exists, and ``label`` (float32 (14,):
    1 present, 0 absent, -1 uncertain, NaN not mentioned) if the table of labels has the study.

    Args:
        folder: the data set's folder: ``files/p10/p10000032/s50414267/*.jpg`` (or .dcm) and the tables
            ``mimic-cxr-2.0.0-split.csv``, ``-metadata.csv`` and ``-chexpert.csv``, each as it is or gzipped.
        split: ``"train"``, ``"validate"`` (or ``"val"``) or ``"test"``.
        reports: folder with the reports, ``files/p10/p10000032/s50414267.txt``; the data set's folder if None.
        views: view positions to keep, such as ``["PA", "AP"]``; all if None.
        labeler: whose labels to read, ``"chexpert"`` or ``"negbio"``.
        check_files: whether to check that every image exists.
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Raises:
        FileNotFoundError: If the table of splits does not exist, or that of metadata where ``views`` is given.
        ValueError: If ``split``, ``labeler`` or ``on_error`` is unknown, or a table lacks a required column.
        medvl.utils.errors.StudyError: If a label is not 1, 0, -1 or blank, or an image does not exist.

    Example:
        >>> studies = MIMIC_CXR("mimic-cxr-jpg", split="test", views=["PA", "AP"])  # doctest: +SKIP
    """

    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        reports: str | Path | None = None,
        views: Sequence[str] | None = None,
        labeler: str = "chexpert",
        check_files: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(on_error)
        own_split = _SPLITS.get(split, split)
        check_option(own_split, "split", tuple(_SPLITS.values()))
        check_option(labeler, "labeler", _LABELERS)
        self.folder = Path(folder)
        self.reports = self.folder if reports is None else Path(reports)
        metadata = self._rows("metadata", ["dicom_id"], required=views is not None)
        positions = {row["dicom_id"]: row.get("ViewPosition") or "" for row in metadata}
        labels = {row["study_id"]: row for row in self._rows(labeler, ["study_id"], required=False)}
        wanted = None if views is None else ({views} if isinstance(views, str) else set(views))
        images: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for row in self._rows("split", ["dicom_id", "study_id", "subject_id", "split"]):
            position = positions.get(row["dicom_id"], "")
            if row["split"] == own_split and (wanted is None or position in wanted):
                images[row["subject_id"], row["study_id"]].append((row["dicom_id"], position))
        for (subject, study), found in images.items():
            with self.handle_study_errors():
                self._studies.append(self._study(subject, study, found, labels.get(study), check_files))

    @classmethod
    def read_splits(cls, path: str | Path, on_error: str = "raise") -> dict[str, MIMIC_CXR]:
        """The three splits by the name ``train``, ``val`` or ``test``."""
        return {split: cls(path, split, on_error=on_error) for split in _SPLITS}

    def _rows(self, table: str, columns: Sequence[str], required: bool = True) -> Iterator[dict[str, str]]:
        found = sorted(path for path in self.folder.glob(f"mimic-cxr-*-{table}.csv*") if path.suffix in (".csv", ".gz"))
        if not found:
            if required:
                raise FileNotFoundError(f"folder: there is no table mimic-cxr-*-{table}.csv in {self.folder}.")
            return
        yield from self.read_rows(found[0], columns)

    def _study(
        self, subject: str, study: str, images: list[tuple[str, str]], labels: dict[str, str] | None, check: bool
    ) -> dict[str, Any]:
        folder = Path("files", f"p{subject[:2]}", f"p{subject}")
        paths = [self._image_path(folder / f"s{study}", dicom, f"s{study}", check) for dicom, _ in images]
        out: dict[str, Any] = {
            "study_id": f"s{study}",
            "patient_id": f"p{subject}",
            "image": paths,
            "views": [position for _, position in images],
        }
        report = self.reports / folder / f"s{study}.txt"
        if report.is_file():
            out["report"] = report.read_text(encoding="utf-8", errors="replace")
        if labels is not None:
            out["label"] = parse_states(labels, self.names, f"s{study}")
        return out

    def _image_path(self, folder: Path, dicom: str, study_id: str, check: bool) -> str:
        path = self.folder / folder / f"{dicom}.jpg"
        if not path.is_file() and (original := path.with_suffix(".dcm")).is_file():
            path = original
        elif check and not path.is_file():
            raise StudyError(study_id, "image", f"neither {dicom}.jpg nor {dicom}.dcm exists")
        return str(path)
