"""CT-RATE (Hamamci et al. 2024), read from its published tables and folders."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel
import numpy as np

from medvl.data.label_columns import parse_states
from medvl.data.patient_names import patient_from_name
from medvl.data.public.base import PublicDataset, join_sections
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError
from medvl.utils.io import atomic_write

logger = logging.getLogger(__name__)

_SECTIONS = {"Findings_EN": "findings", "Impressions_EN": "impression"}
_ABSENT = "Not given."
_METADATA = ("VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")
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
    names were compared with the readers of CT-CLIP. The voxels of the first release (``train``, ``valid``) are not Hounsfield
    units, and their headers have no spacing: a table of metadata has both. ``train_fixed`` and ``valid_fixed`` are read where
    they are there, and :meth:`fix_headers` makes them of the first release; otherwise a warning says so.

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
    _unscaled = 0

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The scans of both splits, as far as their tables are there."""
        is_empty = True
        for split, (reports_name, folder) in _SPLITS.items():
            reports = self._find("radiology_text_reports", f"{reports_name}_reports.csv")
            labels = self._find("multi_abnormality_labels", f"{folder}_predicted_labels.csv")
            if reports is not None or labels is not None:
                is_empty = False
                yield from self._read_split(split, folder, reports, labels)
        if self._unscaled:
            logger.warning(
                "%d volumes in %s are of the first release, whose voxels are not Hounsfield units: "
                "medvl.data.CTRATE(PATH).fix_headers() makes train_fixed and valid_fixed of them by the table of metadata.",
                self._unscaled,
                self.path,
            )
        if is_empty:
            self.require("radiology_text_reports/train_reports.csv", "radiology_text_reports/validation_reports.csv")

    def fix_headers(self, output: str | Path | None = None) -> int:
        """Write the volumes of the first release in Hounsfield units and with their spacing, as ``*_fixed`` folders have them.

        Reads ``metadata/train_metadata.csv`` and ``validation_metadata.csv`` (VolumeName, RescaleSlope, RescaleIntercept,
        XYSpacing, ZSpacing). The direction of the axes stays as it is in the header. A volume that is there already stays.

        Args:
            output: folder of ``train_fixed`` and ``valid_fixed``; the data set's own by default.

        Returns:
            The number of volumes that were written.

        Raises:
            FileNotFoundError: If there is no table of metadata.
            medvl.utils.errors.StudyError: If a value is not a number.
        """
        written, tables = 0, [self._find("metadata", f"{name}_metadata.csv") for name, _ in _SPLITS.values()]
        if not any(tables):
            self.require("metadata/train_metadata.csv", "metadata/validation_metadata.csv")
        for table, (_, folder) in zip(tables, _SPLITS.values(), strict=True):
            for row in self.read_rows(table, _METADATA) if table else ():
                volume = _volume(row["VolumeName"])
                patient = patient_from_name(volume)
                if patient is None:
                    continue
                place = PurePosixPath(patient[0], volume.rpartition("_")[0], f"{volume}.nii.gz")
                source = next((p for above in self._above() if (p := above / folder / place).is_file()), None)
                target = Path(output or self.path) / f"{folder}_fixed" / place
                if source is not None and not target.exists():
                    with self.handle_study_errors():
                        _write_fixed(source, target, *_scale_and_spacing(row, volume))
                        written += 1
        return written

    def _above(self) -> list[Path]:
        """The folders that ``train`` and ``valid`` may be in."""
        return [above for above in (self.path / "dataset", self.path) if above.is_dir()]

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
        for row in self.read_rows(labels, ("VolumeName", *self.names)) if labels else ():
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
        for fixed in ("_fixed", ""):
            for candidate in (above / f"{folder}{fixed}" / place for above in self._above()):
                if candidate.is_file():
                    self._unscaled += not fixed
                    return str(candidate)
        return self.image_path(self.path / folder / place, study_id)


def _scale_and_spacing(row: Mapping[str, str], volume: str) -> tuple[float, float, list[float]]:
    """Slope, intercept and the spacing of three axes in mm."""
    try:
        in_plane = [float(value) for value in row["XYSpacing"].strip("[]() ").split(",")]
        spacing = [*in_plane, float(row["ZSpacing"])]
        slope, intercept = float(row["RescaleSlope"]), float(row["RescaleIntercept"])
    except ValueError as error:
        raise StudyError(volume, "metadata", "expected numbers of scale and spacing") from error
    if len(spacing) != 3 or not min(spacing) > 0 or not np.isfinite([*spacing, slope, intercept]).all():
        raise StudyError(volume, "metadata", "expected a spacing of three numbers above 0")
    return slope, intercept, spacing


def _write_fixed(source: Path, target: Path, slope: float, intercept: float, spacing: Sequence[float]) -> None:
    """A NIfTI file in Hounsfield units and with its spacing; written whole or not at all."""
    image: Any = nibabel.load(source)
    values = slope * np.asanyarray(image.dataobj).astype(np.float64) + intercept
    whole = bool((values == np.rint(values)).all()) and values.min() >= -(2**15) and values.max() < 2**15
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3, :3] *= np.asarray(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    fixed = nibabel.Nifti1Image(values.astype(np.int16 if whole else np.float32), affine)
    fixed.header.set_xyzt_units("mm")
    with atomic_write(target, "wb") as file:
        file.write(gzip.compress(fixed.to_bytes(), compresslevel=4, mtime=0))


def _volume(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")
