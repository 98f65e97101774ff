"""CT-RATE (Hamamci et al. 2024), read from its published tables and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medvl.data.label_columns import parse_states
from medvl.data.patient_names import patient_from_name
from medvl.data.public.base import PublicDataset, join_sections
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError

_SECTIONS = {"Findings_EN": "findings", "Impressions_EN": "impression"}
_ABSENT = "Not given."
#: Split: name in the reports' table, name in the labels' table and of the folder.
_SPLITS = {"train": ("train", "train"), "val": ("validation", "valid")}


@register_public_dataset("ct-rate")
class CTRATE(PublicDataset):
    """CT-RATE as a datalist, one dictionary a scan; its reconstructions are its views.

    Each study holds ``study_id`` ("train_1_a"), ``patient_id`` ("train_1"), ``split`` (``train``, and ``val`` for the
    published validation set), ``image`` (list of NIfTI files, one a reconstruction), ``report`` (findings and impression) and
    ``label`` (float32 (18,), 1 present and 0 absent, in the order of the table). The published splits are by patient, and all
    scans of a patient have one ``patient_id``, so that no split cuts a patient.

    Layout: ``radiology_text_reports/train_reports.csv`` and ``validation_reports.csv``, ``multi_abnormality_labels/
    train_predicted_labels.csv`` and ``valid_predicted_labels.csv``, and ``train/train_1/train_1_a/train_1_a_1.nii.gz`` (or
    ``train_fixed``), with ``dataset`` above them or not. License: CC BY-NC-SA 4.0. Apply at Hugging Face. File and column
    names were compared with the readers of CT-CLIP. The voxels of the first release are rescaled to Hounsfield units by a
    table of metadata, which is not read: use the files of ``train_fixed`` and ``valid_fixed``, whose header has the scale and
    the spacing.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`. Without ``check_files``, volumes that are not
    there are named as they are published.

    Raises:
        FileNotFoundError: If there is no table of reports or of labels.
        ValueError: If an argument is unknown, or a table lacks a column.
        medvl.utils.errors.StudyError: If a name is not of the form above, a label is not 0 or 1, or a volume does not exist.
    """

    title = "CT-RATE"
    layout = "radiology_text_reports/*_reports.csv, multi_abnormality_labels/*_predicted_labels.csv and train/, valid/"
    license = "CC BY-NC-SA 4.0"
    url = "https://huggingface.co/datasets/ibrahimhamamci/CT-RATE"

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The scans of both splits, as far as their tables are there."""
        is_empty = True
        for split, (reports_name, folder) in _SPLITS.items():
            reports = self._find("radiology_text_reports", f"{reports_name}_reports.csv")
            labels = self._find("multi_abnormality_labels", f"{folder}_predicted_labels.csv")
            if reports is not None or labels is not None:
                is_empty = False
                yield from self._read_split(split, folder, reports, labels)
        if is_empty:
            self.require("radiology_text_reports/train_reports.csv", "radiology_text_reports/validation_reports.csv")

    def _find(self, folder: str, name: str) -> Path | None:
        return self.find(f"{folder}/{name}", f"dataset/{folder}/{name}", name)

    def _read_split(
        self, split: str, folder: str, reports: Path | None, labels: Path | None
    ) -> Iterator[dict[str, Any]]:
        texts = {}
        for row in self.read_rows(reports, ("VolumeName", *_SECTIONS)) if reports else ():
            sections = {name: row[column] for column, name in _SECTIONS.items() if row[column].strip() != _ABSENT}
            texts[_volume(row["VolumeName"])] = join_sections(sections)
        states = {}
        for row in self.read_rows(labels, ["VolumeName"]) if labels else ():
            self.names = self.names or tuple(name for name in row if name and name != "VolumeName")
            states[_volume(row["VolumeName"])] = row
        studies: dict[str, dict[str, Any]] = {}
        for volume in dict.fromkeys([*texts, *states]):
            with self.handle_study_errors():
                patient = patient_from_name(volume)
                if patient is None or patient[1] != self.title:
                    raise StudyError(volume[:40], "VolumeName", f"expected a name as {folder}_1_a_1")
                study_id = volume.rpartition("_")[0]
                path = self._path(folder, patient[0], study_id, volume)
                label = {"label": parse_states(states[volume], self.names, volume)} if volume in states else {}
                study = {"study_id": study_id, "patient_id": patient[0], "split": split, "image": [], **label}
                if texts.get(volume):
                    study["report"] = texts[volume]
                studies.setdefault(study_id, study)["image"].append(path)
        yield from studies.values()

    def _path(self, folder: str, patient: str, study_id: str, volume: str) -> str:
        place = PurePosixPath(patient, study_id, f"{volume}.nii.gz")
        above = [above for above in (self.path / "dataset", self.path) if above.is_dir()]
        for candidate in (one / f"{folder}{fixed}" / place for one in above for fixed in ("_fixed", "")):
            if candidate.is_file():
                return str(candidate)
        return self.image_path(self.path / folder / place, study_id)


def _volume(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")
