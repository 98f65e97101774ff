"""The data of the arms: one synthetic set for all of them, parts of it, and the real sets where they are."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, SelectItemsd
from PIL import Image

from evidence.arms import Arm
from evidence.scales import DATA_SEED, Scale
from medvl.data import Manifest, StudyDataset, StudyLoader, SyntheticChestXRay, parse_source, read_manifest
from medvl.transforms import LoadStudyImage, PadToSquare, ResizeLongest
from medvl.utils.io import atomic_write

PARTS = {
    "third-1": (0.0, 1 / 3),
    "third-2": (1 / 3, 2 / 3),
    "third-3": (2 / 3, 1.0),
    "first-20": (0.0, 0.2),
    "last-80": (0.2, 1.0),
}
"""Parts of the training patients of the synthetic set, as ranges of a fixed random order."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "image-text": ("image", "study_id", "patient_id", "split", "report"),
    "image-label": (),  # all of them
    "text-label": ("study_id", "patient_id", "split", "report"),
}
"""The columns of a part by kind: a report's labels are those that it states, and not those of the image."""

SHARED = Path(os.environ.get("MEDVL_EVIDENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Where the real data sets are. They are not distributed with medvl; arms and measures that need them are left out."""

REAL = {
    "pneumonia": SHARED / "pneumonia" / "cases.csv",
    "openi": SHARED / "openi-reports.tgz",
    "lungs": SHARED / "cxr-cases" / "cases.csv",
}
KEYS = ("image", "report", "label", "study_id", "patient_id")


def has_real(arm: Arm) -> bool:
    """Whether the real data sets that an arm learns from and is tested on are there."""
    named = [parse_source(source).location for source in arm.sources] + [arm.test, arm.settings.get("masks")]
    return all(REAL[name].exists() for name in named if name in REAL)


class EvidenceData:
    """The tables of one scale in a folder.

    Args:
        scale: sizes.
        folder: where the synthetic set and its parts are written by :meth:`prepare`, once.
    """

    def __init__(self, scale: Scale, folder: str | Path) -> None:
        self.scale = scale
        self.folder = Path(folder).resolve() / f"synthetic-{scale.studies}x{scale.image_size}-{DATA_SEED}"

    @property
    def table(self) -> Path:
        """The table of the synthetic set."""
        return self.folder / "cases.csv"

    def prepare(self) -> None:
        """Draw the synthetic set with its masks, and write the tables of its parts; what is there is kept."""
        done = self.folder / "parts.json"  # written last
        if done.is_file():
            return
        self._generator.save(self.folder, masks=True)
        with self.table.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        patients = np.array(sorted({row["patient_id"] for row in rows}))
        order = np.random.default_rng(DATA_SEED).permutation(patients).tolist()
        counts = {}
        for part, (start, stop) in PARTS.items():
            chosen = set(order[round(start * len(order)) : round(stop * len(order))])
            kept = [row for row in rows if row["patient_id"] in chosen]
            counts[part] = len(kept)
            for kind, columns in COLUMNS.items():
                without = [{name: row[name] for name in columns or row} for row in kept]
                _write_table(self._part(part, kind), without)
        if self.scale.real_studies and REAL["openi"].exists():
            studies = read_manifest(f"openi:{REAL['openi']}").studies
            reports = [{"report": study["report"]} for study in studies if "report" in study]
            _write_table(self._few_real_reports, reports[: self.scale.real_studies])
        with atomic_write(done) as file:
            json.dump(counts, file)

    def settings(self, arm: Arm) -> dict[str, Any]:
        """The settings of an arm's recipe that say what it learns from."""
        if not arm.sources:
            return {"data": str(self.table)}
        located = [(kind or "", self._locate(kind or "", name)) for kind, name in map(parse_source, arm.sources)]
        if arm.recipe == "convirt":  # learns from one table
            return {"data": located[0][1]}
        return {"sources": [f"{kind}={location}" for kind, location in located]}

    def _locate(self, kind: str, name: str) -> str:
        if name == "openi":
            return str(self._few_real_reports) if self.scale.real_studies else f"openi:{REAL[name]}"
        if name == "pneumonia":
            return str(self._few_real_images() if self.scale.real_studies else REAL[name])
        return str(self._part(name, kind))

    def _part(self, part: str, kind: str) -> Path:
        return self.folder / f"{part}-{kind}.csv"

    @property
    def _few_real_reports(self) -> Path:
        """A table of the first real reports, for the quick form."""
        return self.folder / "few-real-reports.csv"

    def _few_real_images(self) -> Path:
        """A table of the first images of each class and split, for the quick form."""
        path = self.folder / "few-real-images.csv"
        with REAL["pneumonia"].open(newline="") as file:
            rows = list(csv.DictReader(file))
        groups: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            groups.setdefault((row["split"], row["finding"]), []).append(row)
        number = (self.scale.real_studies or len(rows)) // 2
        kept = [row for group in groups.values() for row in group[:number]]
        _write_table(path, [{**row, "image": str(REAL["pneumonia"].parent / row["image"])} for row in kept])
        return path

    def lungs(self, study: Mapping[str, Any]) -> torch.Tensor:
        """The lungs of a study of the synthetic set (1, H, W), 0 or 1."""
        index = int(str(study["study_id"]).rpartition("-s")[2])
        return torch.from_numpy(self._generator.lungs(index))[None]

    def add_lungs(self, study: dict[str, Any]) -> dict[str, Any]:
        """A study of the synthetic set with its lungs as ``mask`` (1, H, W)."""
        return {**study, "mask": self.lungs(study)}

    @cached_property
    def _generator(self) -> SyntheticChestXRay:
        return SyntheticChestXRay(self.scale.studies, self.scale.image_size, DATA_SEED)

    def manifest(self, arm: Arm) -> Manifest:
        """The studies that an arm is tested on, and the training and validation studies of the probes."""
        if arm.test == "pneumonia":
            return read_manifest(self._locate("image-label", "pneumonia"), label_column="finding")
        return read_manifest(self.table)


def _write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with atomic_write(path, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class TestData:
    """The studies that a model is measured on, prepared as its training prepared them.

    Args:
        manifest: the studies with their splits.
        prepare: the deterministic image preprocessing of the training.
        image_size: side of the prepared images.
        masks: folder with the masks of the synthetic set, ``STUDY/FINDING.png``.
        prepare_report: that of reports; None for a model without a text tower, which gets none.
    """

    __test__ = False  # not a test of pytest

    manifest: Manifest
    prepare: Compose
    image_size: int
    masks: Path
    prepare_report: Compose | None = None

    def studies(self, split: str) -> list[dict[str, Any]]:
        """The studies of a split with every key of a batch."""
        unknown = torch.full((len(self.manifest.names),), torch.nan)
        empty = {} if self.prepare_report else {"report": ""}
        return [
            {"report": "", "patient_id": study["study_id"], "label": unknown, **study, **empty}
            for study in self.manifest.subset(split, allow_empty=True).studies
        ]

    def loader(self, studies: Sequence[Mapping[str, Any]], shuffle: bool = False, seed: int = 0) -> StudyLoader:
        """Batches of studies."""
        transform = Compose([self.prepare, self._prepare_report, SelectItemsd(list(KEYS))])
        dataset = StudyDataset([dict(study) for study in studies], transform, seed=seed, cache_bytes=10**9)
        return StudyLoader(dataset, batch_size=64, shuffle=shuffle)

    def _prepare_report(self, study: dict[str, Any]) -> dict[str, Any]:
        return self.prepare_report(study) if self.prepare_report and study["report"].strip() else study

    def mask_loader(self, studies: Sequence[Mapping[str, Any]]) -> StudyLoader:
        """Batches of studies of the synthetic set with the masks of their findings."""
        keys = [key for key in KEYS if key != "label"] + ["mask"]
        transform = Compose([self.prepare, self.add_masks, SelectItemsd(keys)])
        return StudyLoader(
            StudyDataset([dict(study) for study in studies], transform, cache_bytes=10**9), batch_size=64
        )

    def add_masks(self, study: dict[str, Any]) -> dict[str, Any]:
        """A study of the synthetic set with the masks of its findings, ``mask`` (K, H, W)."""
        files = [self.masks / str(study["study_id"]) / f"{name}.png" for name in self.mask_names]
        empty = np.zeros((self.image_size, self.image_size), bool)
        masks = [np.asarray(Image.open(file)) > 0 if file.is_file() else empty for file in files]
        return {**study, "mask": torch.from_numpy(np.stack(masks))}

    @cached_property
    def mask_names(self) -> list[str]:
        """The findings that have masks."""
        return list(SyntheticChestXRay.drawable)


class LungCases:
    """Real frontal chest X-rays with lung masks drawn by people, for few-shot segmentation and for training on masks.

    The ten lateral views of the set have masks too, which are empty; they are left out.

    Args:
        prepare: the image preprocessing of the model.
        image_size: side of its images.
    """

    def __init__(self, prepare: Compose, image_size: int) -> None:
        self.prepare, self.read = prepare, LoadStudyImage()
        self.shape = Compose([ResizeLongest(image_size), PadToSquare(0)])
        with REAL["lungs"].open(newline="") as file:
            self.rows = [row for row in csv.DictReader(file) if row["lung_mask"] and row["view"] != "L"]

    def split(self, share: float = 0.6, seed: int = 0) -> tuple[StudyDataset, StudyDataset]:
        """Cases to draw labeled ones from or to train on, and test cases of other patients: the same for every model."""
        patients = sorted({row["patient"] for row in self.rows})
        order = np.random.default_rng(seed).permutation(len(patients))
        known = {patients[place] for place in order[: round(share * len(patients))]}
        parts = ([row for row in self.rows if (row["patient"] in known) is side] for side in (True, False))
        train, test = (
            StudyDataset(
                [{"study_id": row["image"], "patient_id": row["patient"], **row} for row in part],
                Compose([self._load]),
                cache_bytes=10**9,
            )
            for part in parts
        )
        return train, test

    def _load(self, row: Mapping[str, Any]) -> dict[str, Any]:
        folder = REAL["lungs"].parent
        mask = self.read(str(folder / row["lung_mask"]))
        image = self.prepare({"image": str(folder / row["image"])})["image"]
        inside = self.shape((mask > mask.max() / 2).float()) >= 0.5
        return {**{key: row[key] for key in ("study_id", "patient_id")}, "image": image, "mask": inside}
