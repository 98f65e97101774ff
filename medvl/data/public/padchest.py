"""PadChest (Bustos et al. 2020), read from its published table and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.cells import CellError, split_cell
from medvl.data.public.base import ImageIndex, PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError


@register_public_dataset("padchest")
class PadChest(PublicDataset):
    """PadChest as a datalist, one dictionary a study.

    Each study holds ``study_id``, ``patient_id``, ``image`` (list of paths), ``views`` (the projection of each image: "PA",
    "L", "AP", "AP_horizontal", "COSTAL"), ``report`` (in Spanish; stemmed and without accents and capitals, as it is
    published), ``label`` (float32 (K,): 1 for the labels of the study, 0 for the others; K about 190, sorted, without nan and
    blanks) and ``labeled_by`` ("Physician" or "RNN_model"). A study with no label has none. There are no splits. The English
    vocabularies of this library do not read the reports: use the labels, or a Spanish vocabulary.

    Layout: ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv``, as it is or gzipped, and ``<ImageDir>/<ImageID>``, or
    all images in any folder. License: PadChest Dataset Research Use Agreement, research that is not commercial. Apply at
    BIMCV. The table was compared with that in TorchXRayVision.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If an argument is unknown, or the table lacks a column.
        medvl.utils.errors.StudyError: If a cell of labels is not a list or an image does not exist.
    """

    title = "PadChest"
    layout = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv and the images"
    license = "PadChest Dataset Research Use Agreement (research that is not commercial)"
    url = "https://bimcv.cipf.es/bimcv-projects/padchest/"

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The studies of the table."""
        table = self.require("PADCHEST_chest_x_ray_images_labels_160K*.csv", "*PADCHEST*.csv")
        images = ImageIndex(self.path)
        studies: dict[str, dict[str, Any]] = {}
        columns = ("ImageID", "StudyID", "PatientID", "Projection", "Report", "Labels", "MethodLabel")
        for row in self.read_rows(table, columns):
            study_id = row["StudyID"]
            with self.handle_study_errors():
                found = _labels(row["Labels"], study_id)
                paths = self.indexed_images(images, Path(row["ImageID"]).stem, study_id)
                study = studies.setdefault(
                    study_id,
                    {
                        "study_id": study_id,
                        "patient_id": row["PatientID"],
                        "image": [],
                        "views": [],
                        "report": row["Report"].strip(),
                        "labels": {},
                        "labeled_by": row["MethodLabel"],
                    },
                )
                study["image"] += paths
                study["views"] += [row["Projection"]] * len(paths)
                study["labels"] |= dict.fromkeys(found)
        self.names = tuple(sorted({name for study in studies.values() for name in study["labels"]}))
        index = {name: number for number, name in enumerate(self.names)}
        for study in studies.values():
            rows = [index[name] for name in study.pop("labels")]
            if rows:
                study["label"] = np.zeros(len(self.names), dtype=np.float32)
                study["label"][rows] = 1
            yield study


def _labels(cell: str, study_id: str) -> list[str]:
    try:
        parts = split_cell(cell, "Labels")[0]
    except CellError as error:
        raise StudyError(study_id, "Labels", error.reason) from error
    names = [str(part).strip() for part in parts]
    return [name for name in names if name not in ("", "nan", "None")]
