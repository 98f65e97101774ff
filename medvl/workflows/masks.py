"""Masks of regions beside the images of a run: from columns of the table, or drawn again for the synthetic set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, SelectItemsd, Transform

from medvl.data import Manifest, StudyDataset, SyntheticChestCT, SyntheticChestXRay, table_path
from medvl.data.studies import SYNTHETIC, synthetic_dataset
from medvl.data.tables import read_table
from medvl.transforms import LoadStudyImage, PadToSquare, ResizeLongest, image_preprocessing
from medvl.workflows.trained_run import TrainedRun, complete_study

REGIONS, MASK = "regions", "mask"
PROPORTIONS = 0.02
"""How far a mask's proportions may be from its image's; files of both are at times scaled with rounding."""


class Masks:
    """Where the masks of a run's studies come from.

    Args:
        names: of the K regions.
        studies: K paths (or None) by row of the table; None where masks are drawn by ``synthetic``.
        synthetic: the set that draws them.
    """

    def __init__(
        self,
        names: Sequence[str],
        studies: Mapping[int, list[str | None]] | None = None,
        synthetic: SyntheticChestXRay | SyntheticChestCT | None = None,
    ) -> None:
        self.names, self._paths, self._synthetic = tuple(names), studies, synthetic

    def given(self, studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The studies that have a mask, each with what :class:`LoadMasks` reads under ``regions``."""
        if self._synthetic is not None:
            draw = self._synthetic
            return [{**study, REGIONS: (draw, int(study["study_id"].rpartition("-s")[2]))} for study in studies]
        paths = self._paths or {}
        return [{**study, REGIONS: paths[study["row"]]} for study in studies if study["row"] in paths]


class LoadMasks(Transform):
    """Reads the masks of a study whose image has been read: boolean ``mask`` (K, H, W[, D]) in the image's geometry.

    What is above half of a file's maximum is inside. A blank cell is an empty mask.

    Args:
        image_size: side of the prepared images in pixels.
        spatial_dims: 2 or 3.
    """

    keys = (MASK,)

    def __init__(self, image_size: int, spatial_dims: int = 2) -> None:
        self.image_size = image_size
        self.read = LoadStudyImage(spatial_dims=spatial_dims)
        self.shape = Compose([ResizeLongest(image_size), PadToSquare(0)])

    def __call__(self, study: Mapping[str, Any]) -> dict[str, Any]:
        regions = study[REGIONS]
        sides = study["image"].shape[1:]
        if isinstance(regions, tuple):
            dataset, index = regions
            drawn = dataset.render(index, dataset.get_metadata(index)["findings"])[1]
            return {**study, MASK: self.shape(torch.from_numpy(drawn).float()) >= 0.5}
        empty = torch.zeros(1, *[self.image_size] * len(sides), dtype=torch.bool)
        masks = [empty if path is None else self._file(path, study["image"]) for path in regions]
        return {**study, MASK: torch.cat(masks)}

    def _file(self, path: str, image: torch.Tensor) -> torch.Tensor:
        values = self.read(path)
        own, sides = values.shape[1:], image.shape[1:]
        ratios = [side / mask for side, mask in zip(sides, own, strict=True)]
        if max(ratios) > min(ratios) * (1 + PROPORTIONS):
            raise ValueError(
                f"{Path(path).name} has the shape {tuple(own)}, which is not of the proportions of its image, {tuple(sides)}"
            )
        inside = (values > values.max() / 2).float()
        if isinstance(image, MetaTensor):  # a volume's resizing goes by the size of its voxels
            inside = MetaTensor(inside, meta=image.meta)
        return self.shape(inside) >= 0.5


def find_masks(
    run: TrainedRun, manifest: Manifest, data: str | Path | None = None, mask_columns: Sequence[str] = ()
) -> Masks | None:
    """The masks of a table's studies.

    Args:
        run: the trained run.
        manifest: the studies.
        data: their table; that of the training where None.
        mask_columns: columns with paths of mask files, each as ``COLUMN`` or ``NAME=COLUMN``. Without any, the synthetic
            set's own masks are drawn again; another table then has no masks.

    Returns:
        The masks; None where there are none.

    Raises:
        ValueError: where a column is not there or a file is missing.
    """
    table = table_path(data or run.config["data"], run.path)
    if not mask_columns:
        return _drawn(run, manifest, data)
    rows = read_table(table)
    named = [(name, column or name) for name, _, column in (entry.partition("=") for entry in mask_columns)]
    for _, column in named:
        rows.resolve_column(column, "mask_column")
    paths: dict[int, list[str | None]] = {}
    for row in rows.rows:
        cells = [str(row.cells.get(column) or "").strip() for _, column in named]
        if any(cells):
            paths[row.number] = [str(_existing(table, cell, row.place)) if cell else None for cell in cells]
    return Masks([name for name, _ in named], paths)


def masked_dataset(run: TrainedRun, studies: Sequence[Mapping[str, Any]], masks: Masks) -> StudyDataset:
    """The studies that have masks, as ``image``, ``mask``, ``report``, ``study_id`` and ``patient_id``."""
    size, dims = run.model.image_size, run.model.spatial_dims
    load, *rest = image_preprocessing(image_size=size, spatial_dims=dims).transforms
    steps = [load, LoadMasks(size, dims), *rest, SelectItemsd(["image", MASK, "report", "study_id", "patient_id"])]
    return StudyDataset([complete_study(study, 0) for study in masks.given(studies)], Compose(steps))


def _drawn(run: TrainedRun, manifest: Manifest, data: str | Path | None) -> Masks | None:
    config = run.config
    known = all(str(study["study_id"]).startswith("syn") for study in manifest.studies)
    if str(data or config["data"]) != SYNTHETIC or config["data"] != SYNTHETIC or not known:
        return None
    size = int(config.get("synthetic_size") or config["image_size"])
    drawn = synthetic_dataset(int(config["synthetic_length"]), size, int(config["seed"]), run.model.spatial_dims)
    masks = Masks(drawn.drawable, synthetic=drawn)
    first = masks.given(manifest.studies[:1])[0]
    written = LoadStudyImage()(first["image"])[0].numpy()
    again = drawn.render(first[REGIONS][1], drawn.get_metadata(first[REGIONS][1])["findings"])[0]
    if not np.array_equal(written, again):
        warnings.warn(
            f"the images of {manifest.name} were drawn by another version of the synthetic set, so there are no masks",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return masks


def _existing(table: Path, cell: str, place: str) -> Path:
    path = table.parent / cell
    if not path.is_file():
        raise ValueError(f"{table.name}, {place}: the mask {cell} does not exist (looked for {path})")
    return path
