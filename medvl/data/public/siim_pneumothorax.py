"""The SIIM-ACR Pneumothorax Segmentation challenge, read from its published table and DICOM files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medvl.data.public.base import ImageIndex, PublicDataset
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError

_SIDE = 1024


@register_public_dataset("siim")
class SIIMPneumothorax(PublicDataset):
    """The labeled images of the SIIM-ACR Pneumothorax Segmentation challenge as a datalist, one dictionary an image.

    Each study holds ``study_id`` (the image's SOP instance UID), ``image``, ``views`` ("frontal"), ``label`` (float32 (1,):
    pneumothorax present or absent) and ``regions`` (one run-length encoded mask an annotation; they are united). There are no
    splits and no patients. The images come from ChestX-ray14.

    Layout: ``train-rle.csv`` (columns ``ImageId`` and, with a space before it, ``EncodedPixels``) or ``stage_2_train.csv``,
    and ``dicom-images-train/<study UID>/<series UID>/<ImageId>.dcm``, or .png, .jpg in any folder. A mask is pairs of the
    distance from the end of the last run and the length of a run, down the columns of 1024 x 1024 pixels; -1 is none.
    License: the rules of the Kaggle competition. Apply by joining it on Kaggle; the DICOM files are in Google's Cloud
    Healthcare API and on Academic Torrents. The table was compared with that in TorchXRayVision.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table of masks.
        ValueError: If an argument is unknown, or the table lacks a column.
        medvl.utils.errors.StudyError: If a mask is not of pairs of numbers or an image does not exist.
    """

    title = "SIIM-ACR pneumothorax"
    layout = "train-rle.csv or stage_2_train.csv, and dicom-images-train"
    license = "rules of the Kaggle competition"
    url = "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation"
    names = ("Pneumothorax",)

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The images of the table, in its order."""
        table = self.require("train-rle.csv", "stage_2_train.csv")
        images = ImageIndex(self.path)
        masks: dict[str, list[str]] = {}
        for row in self.read_rows(table, ("ImageId", "EncodedPixels")):
            found = masks.setdefault(row["ImageId"], [])
            if row["EncodedPixels"] != "-1":
                found.append(row["EncodedPixels"])
        for image_id, found in masks.items():
            with self.handle_study_errors():
                paths = self.indexed_images(images, image_id, image_id)
                regions = [
                    {"segmentation": {"size": [_SIDE, _SIDE], "counts": _run_lengths(text, image_id)}} for text in found
                ]
                yield {
                    "study_id": image_id,
                    "image": paths,
                    "views": ["frontal"] * len(paths),
                    "label": np.array([bool(found)], dtype=np.float32),
                    "regions": {"Pneumothorax": regions} if regions else {},
                }


def _run_lengths(text: str, study_id: str) -> list[int]:
    """The lengths of the runs outside and inside in turn, which is what the pairs of distance and length are."""
    parts = text.split()
    if not parts or len(parts) % 2 or not all(part.isdecimal() for part in parts):
        raise StudyError(study_id, "EncodedPixels", "expected pairs of numbers or -1")
    lengths = [int(part) for part in parts]
    if sum(lengths) > _SIDE * _SIDE:
        raise StudyError(study_id, "EncodedPixels", f"the runs are longer than an image of {_SIDE} x {_SIDE} pixels")
    return lengths
