"""CheXlocalize (Saporta et al. 2022), read from its published annotations and CheXpert's images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.data.public.base import PublicDataset
from medvl.data.public.chexpert import CheXpert
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError, plain_reason

_RENAMED = {"Airspace Opacity": "Lung Opacity"}  # the annotations' name for CheXpert's finding
_FOLDERS = {"val": ("val", "valid"), "test": ("test",)}
_ABOVE = ("CheXpert", "CheXpert-v1.0", "CheXpert-v1.0-small", "")


@register_public_dataset("chexlocalize")
class CheXlocalize(PublicDataset):
    """CheXlocalize as a datalist, one dictionary an annotated image.

    Each study holds ``study_id`` ("patient64622/study1"), ``patient_id``, ``split`` (val, test), ``image``, ``views``,
    ``regions`` (masks by finding, under CheXpert's names: its "Airspace Opacity" is "Lung Opacity") and ``label`` (float32
    (14,), the radiologists') if the table of labels is there.

    Layout: ``CheXlocalize/gt_segmentations_val.json`` (COCO's run-length encoding), else ``gt_annotations_val.json``
    (polygons with ``img_size``), and so for ``test``, in that folder or beside it; CheXpert's ``val`` (or ``valid``) and
    ``test`` with ``val_labels.csv`` (or ``valid.csv``) and ``test_labels.csv`` in ``CheXpert``, ``CheXpert-v1.0`` or the
    folder itself. License: Stanford University CheXlocalize Dataset Research Use Agreement. Apply at the Stanford AIMI
    Center. Files were compared with the sample in the data set's repository and the reader in TorchXRayVision.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no file of annotations.
        ValueError: If an argument is unknown, or a file is not of the form above.
        medvl.utils.errors.StudyError: If an image does not exist.
    """

    title = "CheXlocalize"
    layout = (
        "CheXlocalize/gt_segmentations_val.json (or gt_annotations_val.json, or _test) and CheXpert/val, CheXpert/test"
    )
    license = "CheXlocalize Dataset Research Use Agreement (research that is not commercial)"
    url = "https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c"
    names: tuple[str, ...] = CHEXPERT_FINDINGS

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The annotated images of both splits."""
        found = {split: self._annotations(split) for split in _FOLDERS}
        if not any(found.values()):
            self.require("CheXlocalize/gt_segmentations_val.json")
        labels = self._labels()
        for split, path in found.items():
            for image_id, entry in _read_json(path).items() if path else ():
                with self.handle_study_errors():
                    patient, study, view = [*image_id.split("_", 2), "", ""][:3]
                    study_id = f"{patient}/{study}"
                    if not view:
                        raise StudyError(image_id, "image", "expected an id as patient64622_study1_view1_frontal")
                    out = {
                        "study_id": study_id,
                        "patient_id": patient,
                        "split": split,
                        "image": [self._image(split, f"{study_id}/{view}.jpg", study_id)],
                        "views": ["lateral" if "lateral" in view else "frontal"],
                        "regions": _regions(entry, study_id),
                    }
                    yield out | ({"label": labels[study_id]} if study_id in labels else {})

    def _annotations(self, split: str) -> Path | None:
        names = [f"gt_{kind}_{split}.json" for kind in ("segmentations", "annotations")]
        return self.find(*(f"{above}{name}" for name in names for above in ("CheXlocalize/", "")))

    def _labels(self) -> dict[str, Any]:
        for above in _ABOVE:
            folder = self.path / above
            if any(
                (folder / name).is_file() for name in ("val_labels.csv", "valid.csv", "test_labels.csv", "test.csv")
            ):
                return {study["study_id"]: study["label"] for study in CheXpert(folder, check_files=False)}
        return {}

    def _image(self, split: str, name: str, study_id: str) -> str:
        for above in _ABOVE:
            for folder in _FOLDERS[split]:
                if (path := self.path / above / folder / name).is_file():
                    return str(path)
        return self.image_path(self.path / "CheXpert" / split / name, study_id)


def _read_json(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged or cut off: {plain_reason(error)}.") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise ValueError(f"{path.name} must hold the annotations by image and finding, got another content.")
    return content


def _regions(entry: dict[str, Any], study_id: str) -> dict[str, list[dict[str, Any]]]:
    """Masks or polygons of each finding; a mask without a pixel inside is none."""
    size = entry.get("img_size")
    regions: dict[str, list[dict[str, Any]]] = {}
    for name, drawn in entry.items():
        if name == "img_size":
            continue
        if size is not None:
            polygons = [[coordinate for point in polygon for coordinate in point] for polygon in drawn]
            regions[_RENAMED.get(name, name)] = [{"segmentation": polygons, "size": size}]
        elif isinstance(drawn, dict) and {"size", "counts"} <= set(drawn):
            if _has_pixels(drawn["counts"]):
                regions[_RENAMED.get(name, name)] = [{"segmentation": drawn}]
        else:
            raise StudyError(study_id, name, "expected a mask with size and counts, or polygons with img_size")
    return regions


def _has_pixels(counts: Any) -> bool:
    """Whether run lengths have a run inside: one number is a run outside, which fills the image."""
    groups = (
        sum(1 for character in counts if not (ord(character) - 48) & 32) if isinstance(counts, str) else len(counts)
    )
    return groups > 1
