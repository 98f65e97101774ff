"""NIH ChestX-ray14 (Wang et al. 2017), read from its published tables and archives."""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.cells import describe_cell
from medvl.data.public.base import ImageIndex, PublicDataset, parse_box
from medvl.data.public.registry import register_public_dataset
from medvl.utils.errors import StudyError
from medvl.utils.limits import read_small_text

_SIDE = 1024
_SPLIT_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


@register_public_dataset("nih")
class NIHChestXray14(PublicDataset):
    """ChestX-ray14 as a datalist, one dictionary an image: the data set has no studies.

    Each study holds ``study_id`` ("00000013_005"), ``patient_id`` ("00000013"), ``split`` if the lists are there (``train``
    for train_val_list, which is published undivided, and ``test``), ``image``, ``views`` ("PA" or "AP"), ``label`` (float32
    (15,): 1 present, 0 absent; of the 14 findings and "No Finding") and ``regions`` for the images of ``BBox_List_2017.csv``.

    Layout: ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``, ``train_val_list.txt``, ``test_list.txt``,
    ``BBox_List_2017.csv`` and the images in ``images_001/images`` to ``images_012/images``, or in any other folder. License:
    none is named; the NIH Clinical Center allows use without restrictions and asks to be named as source, with its link and
    the paper. No application. The tables were compared with those in TorchXRayVision.

    The arguments are those of :class:`~medvl.data.public.base.PublicDataset`.

    Raises:
        FileNotFoundError: If there is no table of images.
        ValueError: If an argument is unknown, or the table lacks a column.
        medvl.utils.errors.StudyError: If a finding is unknown or an image does not exist.
    """

    title = "ChestX-ray14"
    layout = "Data_Entry_2017.csv, train_val_list.txt, test_list.txt and images_001/images to images_012/images"
    license = "no restrictions; NIH Clinical Center to be named as source"
    url = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    names = (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
        "No Finding",
    )

    def read_studies(self) -> Iterator[dict[str, Any]]:
        """The images of the table."""
        table = self.require("Data_Entry_2017*.csv")
        images = ImageIndex(self.path)
        lists = {name: self.find(name) for name in _SPLIT_LISTS}
        if any(lists.values()):
            for name in lists:
                self.require(name)  # with one of them, the studies of the other would be split anew
        splits: dict[str, str] = {}
        for name, listed in lists.items():
            splits |= dict.fromkeys(read_small_text(listed).split() if listed else (), _SPLIT_LISTS[name])
        regions = _read_boxes(self.find("BBox_List_2017.csv"))
        index = {name: number for number, name in enumerate(self.names)}
        for row in self.read_rows(table, ("Image Index", "Finding Labels", "View Position")):
            file = row["Image Index"]
            study_id = Path(file).stem
            with self.handle_study_errors():
                label = np.zeros(len(self.names), dtype=np.float32)
                if splits and file not in splits:
                    raise StudyError(study_id, "split", f"the image is in neither of {' and '.join(_SPLIT_LISTS)}")
                for name in map(str.strip, row["Finding Labels"].split("|")):
                    if name not in index:
                        reason = f"expected findings of ChestX-ray14, got {describe_cell(name)}"
                        raise StudyError(study_id, "Finding Labels", reason)
                    label[index[name]] = 1
                paths = self.indexed_images(images, study_id, study_id)
                yield {
                    "study_id": study_id,
                    "patient_id": study_id.partition("_")[0],
                    "image": paths,
                    "views": [row["View Position"]] * len(paths),
                    "label": label,
                    **({"split": splits[file]} if file in splits else {}),
                    **({"regions": regions[file]} if file in regions else {}),
                }


def _read_boxes(path: Path | None) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Boxes by image and finding; the header has commas in a name, so that rows and header differ in length."""
    boxes: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    if path is None:
        return {}
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        try:
            box = parse_box(cells[2:6], cells[0], "Bbox")
        except StudyError as error:
            raise ValueError(f"{path.name}, the box of {cells[0][:40]!r}: {error.reason}.") from error
        name = "Infiltration" if cells[1] == "Infiltrate" else cells[1]
        boxes[cells[0]][name].append({"bbox": box, "size": [_SIDE, _SIDE]})
    return {image: dict(found) for image, found in boxes.items()}
