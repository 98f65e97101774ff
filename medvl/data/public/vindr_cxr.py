"""VinDr-CXR (Nguyen et al. 2022), read from its published annotations and DICOM files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.cells import describe_cell, is_missing
from medvl.data.public.base import PublicDataset, parse_box
from medvl.data.public.registry import register_public_dataset
from medvl.utils.checks import check_integer
from medvl.utils.errors import StudyError

_RENAMED = {"Other disease": "Other diseases"}  # the test table's name for the training table's column
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


@register_public_dataset("vindr-cxr")
class VinDrCXR(PublicDataset):
    """VinDr-CXR as a datalist, one dictionary an image.

    Each study holds ``study_id`` (image_id), ``split`` (train, test), ``image``, ``views`` ("frontal": all are PA), ``label``
    (float32 (K,), the findings in the order of the training table) and ``regions`` (the boxes of the findings that are
    present). The 15,000 training images are read by three radiologists each: a finding is present where at least ``votes`` of
    them mark it, uncertain (-1) where fewer do, absent where none does. The 3,000 test images have one label, a consensus of
    five. The data set has no patients.

    Layout: ``annotations/image_labels_train.csv`` (image_id, rad_id, a column a finding), ``image_labels_test.csv``,
    ``annotations_train.csv`` (image_id, rad_id, class_name, x_min, y_min, x_max, y_max), ``annotations_test.csv``,
    ``train/<image_id>.dicom`` and ``test/<image_id>.dicom`` (or .dcm, .png, .jpg), as on PhysioNet. License: PhysioNet
    Credentialed Health Data License 1.5.0. Apply at PhysioNet. File and column names were compared with public code that
    reads them, not with the tables themselves.

    The form of the Kaggle competition is read where there is no table of labels: ``train.csv`` (image_id, class_name, class_id,
    rad_id, x_min, y_min, x_max, y_max, a row for each mark of a radiologist) and ``train/<image_id>.dicom``. It has the 14
    findings with boxes and No finding, in the order of class_id, and no labels of its test images, which are left out. The
    competition's rules apply (https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection).

    Args:
        path: see :class:`~medvl.data.public.base.PublicDataset`.
        split: see :class:`~medvl.data.public.base.PublicDataset`.
        views: see :class:`~medvl.data.public.base.PublicDataset`.
        votes: how many of the three radiologists a finding needs to be present; 1 takes what any of them marks.
        check_files: see :class:`~medvl.data.public.base.PublicDataset`.
        on_error: see :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table of labels.
        ValueError: If an argument is unknown, or a table lacks a column.
        medvl.utils.errors.StudyError: If a label is not 0 or 1, or an image does not exist.
    """

    title = "VinDr-CXR"
    layout = "annotations/image_labels_train.csv, annotations_train.csv (and _test), or Kaggle's train.csv, and train/*.dicom"
    license = "PhysioNet Credentialed Health Data License 1.5.0"
    url = "https://physionet.org/content/vindr-cxr/"

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        views: str | Sequence[str] = "all",
        votes: int = 2,
        check_files: bool = True,
        on_error: str = "raise",
    ) -> None:
        check_integer(votes, "votes", minimum=1)
        self.votes = votes
        super().__init__(path, split, views, check_files, on_error)

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The images of both tables of labels."""
        found = {name: self._find(f"image_labels_{name}.csv") for name in ("train", "test")}
        kaggle = None if any(found.values()) else self.find("train.csv")
        if kaggle is not None:
            yield from self._read_kaggle(kaggle)
            return
        if not any(found.values()):
            self.require("annotations/image_labels_train.csv", "train.csv")
        for split, table in found.items():
            if table is not None:
                yield from self._read_split(split, table)

    def _find(self, name: str) -> Path | None:
        return self.find(f"annotations/{name}", name)

    def _read_split(self, split: str, table: Path) -> Iterator[dict[str, Any]]:
        marks: dict[str, list[list[float]]] = defaultdict(list)
        bad: dict[str, StudyError] = {}
        for row in self.read_rows(table, ["image_id"]):
            cells = {_RENAMED.get(name, name): cell for name, cell in row.items() if name not in ("image_id", "rad_id")}
            self.names = self.names or tuple(name for name in cells if name)
            if missing := [name for name in self.names if name not in cells]:
                raise ValueError(
                    f"{table.name} has no column {', '.join(missing)}, unlike the table of the training set."
                )
            try:
                marks[row["image_id"]].append([_mark(cells, name, row["image_id"]) for name in self.names])
            except StudyError as error:
                bad[row["image_id"]] = error
        regions = self._read_boxes(self._find(f"annotations_{split}.csv"))
        for image_id in dict.fromkeys([*marks, *bad]):
            with self.handle_study_errors():
                if image_id in bad:
                    raise bad[image_id]
                yield self._study(image_id, split, marks[image_id], regions.get(image_id, {}))

    def _read_kaggle(self, table: Path) -> Iterator[dict[str, Any]]:
        columns = ("image_id", "class_name", "class_id", "rad_id", *_CORNERS)
        readers: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        numbers: dict[str, int] = {}
        bad: dict[str, StudyError] = {}
        for row in self.read_rows(table, columns):
            image_id = row["image_id"]
            readers[image_id][row["rad_id"]].add(row["class_name"])
            if not row["class_id"].isdecimal():
                bad[image_id] = StudyError(
                    image_id, "class_id", f"expected a number, got {describe_cell(row['class_id'])}"
                )
            else:
                numbers[row["class_name"]] = int(row["class_id"])
        self.names = tuple(sorted(numbers, key=numbers.__getitem__))
        regions = self._read_boxes(table)
        for image_id, marks in readers.items():
            with self.handle_study_errors():
                if image_id in bad:
                    raise bad[image_id]
                votes = [[float(name in marked) for name in self.names] for marked in marks.values()]
                yield self._study(image_id, "train", votes, regions.get(image_id, {}))

    def _study(
        self, image_id: str, split: str, marks: list[list[float]], regions: dict[str, list[dict[str, Any]]]
    ) -> dict[str, Any]:
        """An image with the marks (K) of each of its readers and the boxes of its findings."""
        counts = np.array(marks).sum(axis=0)
        label = np.where(counts >= min(self.votes, len(marks)), 1, np.where(counts > 0, -1, 0)).astype(np.float32)
        present = {name for name, state in zip(self.names, label, strict=True) if state == 1}
        path = self.path / split / f"{image_id}.dicom"
        return {
            "study_id": image_id,
            "split": split,
            "image": [self.image_path(path, image_id, ".dcm", ".png", ".jpg")],
            "views": ["PA"],
            "label": label,
            "regions": {name: boxes for name, boxes in regions.items() if name in present},
        }

    def _read_boxes(self, table: Path | None) -> dict[str, dict[str, list[dict[str, Any]]]]:
        boxes: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for row in self.read_rows(table, ("image_id", "class_name", *_CORNERS)) if table else ():
            if is_missing(row["x_min"]):
                continue  # no finding
            with self.handle_study_errors():
                try:
                    left, top, right, bottom = (float(row[name]) for name in _CORNERS)
                except ValueError as error:
                    raise StudyError(row["image_id"], "x_min", "expected a box of four numbers") from error
                name = _RENAMED.get(row["class_name"], row["class_name"])
                box = parse_box((left, top, right - left, bottom - top), row["image_id"], "x_min")
                boxes[row["image_id"]][name].append({"bbox": box})
        return boxes


def _mark(cells: dict[str, str], name: str, image_id: str) -> float:
    text = cells.get(name, "")
    if text not in ("", "0", "1", "0.0", "1.0"):
        raise StudyError(image_id, name, f"expected 0 or 1, got {describe_cell(text)}")
    return float(text or 0)
