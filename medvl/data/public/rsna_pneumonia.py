"""The RSNA Pneumonia Detection Challenge (Shih et al. 2019), read from its published tables and DICOM files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medvl.data.cells import describe_cell
from medvl.data.public.base import PublicDataset, parse_box
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError

_SIDE = 1024


@register_public_dataset("rsna")
class RSNAPneumonia(PublicDataset):
    """The labeled images of the RSNA Pneumonia Detection Challenge as a datalist, one dictionary an image.

    Each study holds ``study_id`` and ``patient_id`` (the challenge's patientId, one image each), ``image``, ``views``
    ("frontal": they are PA and AP), ``label`` (float32 (1,): pneumonia present or absent), ``regions`` (the boxes; none where
    it is absent) and ``class`` ("Normal", "No Lung Opacity / Not Normal" or "Lung Opacity") if that table is there. There are
    no splits: the challenge's own test images have no labels. The images come from ChestX-ray14.

    Layout: ``stage_2_train_labels.csv`` (a row a box), ``stage_2_detailed_class_info.csv`` and
    ``stage_2_train_images/<patientId>.dcm`` (or .png, .jpg). License: the rules of the Kaggle competition, which allow
    research and other use that is not commercial. Apply by joining the competition on Kaggle. Columns were compared with the
    tables in TorchXRayVision and the readers of GLoRIA and MGCA.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table of labels.
        ValueError: If an argument is unknown, or a table lacks a column.
        medvl.utils.errors.StudyError: If a box is not of numbers or an image does not exist.
    """

    title = "RSNA pneumonia"
    layout = "stage_2_train_labels.csv and stage_2_train_images/*.dcm"
    license = "rules of the Kaggle competition (use that is not commercial)"
    url = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
    names = ("Pneumonia",)

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The images of the table, in its order."""
        table = self.require("stage_2_train_labels.csv")
        details = self.find("stage_2_detailed_class_info.csv")
        classes = (
            {row["patientId"]: row["class"] for row in self.read_rows(details, ("patientId", "class"))}
            if details
            else {}
        )
        folder = self.path / "stage_2_train_images"
        boxes: dict[str, list[dict[str, Any]]] = {}
        bad: dict[str, StudyError] = {}
        for row in self.read_rows(table, ("patientId", "x", "y", "width", "height", "Target")):
            found = boxes.setdefault(row["patientId"], [])
            try:
                if row["Target"] in ("1", "1.0"):
                    box = parse_box([row[name] for name in ("x", "y", "width", "height")], row["patientId"], "x")
                    found.append({"bbox": box, "size": [_SIDE, _SIDE]})
                elif row["Target"] not in ("0", "0.0"):
                    raise StudyError(row["patientId"], "Target", f"expected 0 or 1, got {describe_cell(row['Target'])}")
            except StudyError as error:
                bad[row["patientId"]] = error
        for patient, found in boxes.items():
            with self.handle_study_errors():
                if patient in bad:
                    raise bad[patient]
                yield {
                    "study_id": patient,
                    "patient_id": patient,
                    "image": [self.image_path(folder / f"{patient}.dcm", patient, ".png", ".jpg")],
                    "views": ["frontal"],
                    "label": np.array([bool(found)], dtype=np.float32),
                    "regions": {"Pneumonia": found} if found else {},
                    **({"class": classes[patient]} if patient in classes else {}),
                }
