"""MS-CXR (Boecking et al. 2022), read from its published annotations and the images of MIMIC-CXR."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medvl.data.cells import describe_cell
from medvl.data.public.base import ImagesElsewhere, parse_box
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError
from medvl.utils.limits import read_small_text

_SPLITS = {"train": "train", "val": "val", "validate": "val", "valid": "val", "test": "test"}


@register_public_dataset("ms-cxr")
class MSCXR(ImagesElsewhere):
    """MS-CXR as a datalist, one dictionary a pair of an image and a phrase.

    Each study holds ``study_id`` ("s50414267"), ``patient_id`` ("p10000032"), ``image``, ``views`` ("frontal"), ``report``
    and ``phrase`` (the annotated sentence), ``regions`` (its boxes, under the finding's name) and, in version 1.1.0,
    ``split``. ``names`` are the eight findings.

    Layout: ``MS_CXR_Local_Alignment_v1.0.0.csv`` or ``v1.1.0.csv`` (a row a box: category_name, label_text, path, x, y, w, h,
    image_width, image_height, dicom_id), or the ``.json`` of the same name in COCO's form; images
    ``files/p10/p10000032/s50414267/<dicom_id>.jpg`` of MIMIC-CXR-JPG (or .dcm, .png) in the same folder or in ``images``.
    License: PhysioNet Credentialed Health Data License 1.5.0. Apply at PhysioNet. Columns and keys were compared with public
    code that reads them. The split of version 1.1.0 is not that of MIMIC-CXR.

    Args:
        path: see :class:`~medvl.data.public.base.PublicDataset`.
        split: see :class:`~medvl.data.public.base.PublicDataset`.
        views: see :class:`~medvl.data.public.base.PublicDataset`.
        images: folder with MIMIC-CXR's ``files``; the data set's folder if it is blank.
        check_files: see :class:`~medvl.data.public.base.PublicDataset`.
        on_error: see :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no file of annotations.
        ValueError: If an argument is unknown, or the annotations are not of the form above.
        medvl.utils.errors.StudyError: If a box is not of numbers, or an image does not exist.
    """

    title = "MS-CXR"
    layout = "MS_CXR_Local_Alignment_v1.1.0.csv (or .json, or v1.0.0) and MIMIC-CXR's files/"
    license = "PhysioNet Credentialed Health Data License 1.5.0"
    url = "https://physionet.org/content/ms-cxr/"

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The pairs, in the order of the annotations."""
        names = ("MS_CXR_Local_Alignment_v1.1*", "MS_CXR_Local_Alignment_v*")
        table = self.require(*(f"{name}.{suffix}" for name in names for suffix in ("csv", "json")))
        rows = self._read_coco(table) if table.suffix == ".json" else self.read_rows(table, _COLUMNS, ["split"])
        pairs: dict[tuple[str, str, str], list[dict[str, str]]] = {}
        for row in rows:
            pairs.setdefault((row["path"], row["label_text"], row["category_name"]), []).append(row)
        self.names = tuple(dict.fromkeys(category for _, _, category in pairs))
        for (name, phrase, category), boxes in pairs.items():
            parts = PurePosixPath(name).parts
            study_id = parts[-2] if len(parts) > 2 else name
            with self.handle_study_errors():
                place = self.images / name
                if not place.is_file() and parts[0] == "files" and not (self.images / "files").is_dir():
                    place = self.images.joinpath(*parts[1:])  # the folder files itself
                study = {
                    "study_id": study_id,
                    "patient_id": parts[-3] if len(parts) > 2 else study_id,
                    "image": [self.image_path(place, study_id, ".dcm", ".png")],
                    "views": ["frontal"],
                    "report": phrase,
                    "phrase": phrase,
                    "regions": {category: [_box(box, study_id) for box in boxes]},
                }
                if boxes[0].get("split"):
                    split = _SPLITS.get(boxes[0]["split"].strip().lower())
                    if split is None:
                        raise StudyError(
                            study_id, "split", f"expected train, val or test, got {describe_cell(boxes[0]['split'])}"
                        )
                    study["split"] = split
                yield study

    def _read_coco(self, path: Path) -> Iterator[dict[str, str]]:
        """COCO's annotations as rows of the table."""
        try:
            content = json.loads(read_small_text(path))
            images = {image["id"]: image for image in content["images"]}
            names = {category["id"]: category["name"] for category in content["categories"]}
            for annotation in content["annotations"]:
                image = images[annotation["image_id"]]
                values = (
                    names[annotation["category_id"]],
                    annotation["label_text"],
                    image["path"],
                    *annotation["bbox"],
                )
                row = dict(zip(_COLUMNS, map(str, (*values, image["width"], image["height"])), strict=True))
                yield row | ({"split": str(image["split"])} if image.get("split") else {})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path.name} must hold images, categories and annotations as in COCO, got others."
            ) from error


_COLUMNS = ("category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")


def _box(row: dict[str, str], study_id: str) -> dict[str, Any]:
    box = parse_box([row[name] for name in ("x", "y", "w", "h")], study_id, "x")
    try:
        return {"bbox": box, "size": [float(row["image_height"]), float(row["image_width"])]}
    except ValueError as error:
        raise StudyError(study_id, "image_height", "expected the image's size") from error
