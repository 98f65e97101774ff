"""What the synthetic sets have in common: arguments, items and files. They differ in what they draw."""

from __future__ import annotations

import csv
import io
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from medvl.data.synthetic.findings import NAMES, Finding


class SyntheticSet(Dataset):
    """Studies drawn by index; see :class:`SyntheticChestXRay` for the items.

    Args:
        length: number of studies, at least 1.
        size: side of the images, in ``sizes``.
        seed: another seed, other patients; at least 0.

    Raises:
        TypeError: where an argument is not an integer.
        ValueError: where it is out of its range.
    """

    names = NAMES
    drawable: ClassVar[tuple[str, ...]]
    sizes: ClassVar[tuple[int, int]]
    suffix: ClassVar[str]

    def __init__(self, length: int, size: int, seed: int) -> None:
        for name, value, low, high in (
            ("length", length, 1, None),
            ("size", size, *self.sizes),
            ("seed", seed, 0, None),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, received {value!r}.")
            if value < low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ValueError(f"{name} must be {bounds}, received {value}.")
        self.length, self.size, self.seed = length, size, seed

    @abstractmethod
    def describe(self, index: int) -> dict[str, Any]:
        """All of a study but its pixels: findings, report, labels and ids."""

    @abstractmethod
    def draw(self, index: int, findings: list[Finding]) -> tuple[np.ndarray, np.ndarray]:
        """A study's picture and the masks of its findings, uint8, in the order of ``drawable``."""

    @abstractmethod
    def _scaled(self, pixels: np.ndarray) -> torch.Tensor:
        """The picture as floats in [0, 1]."""

    @abstractmethod
    def _save(self, pixels: np.ndarray, path: Path) -> None:
        """Writes the picture."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(self.length)[index]
        study = self.describe(index)
        pixels, masks = self.draw(index, study["findings"])
        return {
            "image": self._scaled(pixels).unsqueeze(0),
            "mask": torch.from_numpy(masks),
            **study,
            "label": torch.from_numpy(study["label"]),
            "text_label": torch.from_numpy(study["text_label"]),
            "findings": [vars(finding) for finding in study["findings"]],
        }

    def _write(self, folder: str | Path, masks: bool, progress: Callable[[Iterable], Iterable] | None) -> Path:
        folder = Path(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image", "study_id", "patient_id", "split", "report", *NAMES])
        indices: Iterable[int] = range(self.length)
        for index in progress(indices) if progress else indices:
            study = self.describe(index)
            pixels, regions = self.draw(index, study["findings"])
            name = f"images/{study['study_id']}{self.suffix}"
            self._save(pixels, folder / name)
            if masks:
                self._write_masks(folder / "masks" / study["study_id"], regions)
            cells = ["" if math.isnan(state) else str(int(state)) for state in study["label"]]
            writer.writerow([name, *(study[k] for k in ("study_id", "patient_id", "split", "report")), *cells])
        path = folder / "cases.csv"
        partial = path.with_suffix(".partial")
        partial.write_text(table.getvalue(), encoding="utf-8", newline="")
        partial.replace(path)
        return path

    def _write_masks(self, folder: Path, regions: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, region in zip(self.drawable, regions, strict=True):
            if region.any():
                Image.fromarray(region * np.uint8(255)).save(folder / f"{name}.png")


def states_in_order(known: dict[str, float]) -> np.ndarray:
    """States by name as an array in the order of :data:`NAMES`, NaN where unknown."""
    return np.array([known.get(name, math.nan) for name in NAMES], dtype=np.float32)
