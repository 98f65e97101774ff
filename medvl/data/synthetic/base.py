"""What the synthetic data sets have in common: arguments, items and files."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.data.synthetic.findings import Finding, image_states, sample_findings
from medvl.data.synthetic.patients import patient_number, split_of_patient
from medvl.data.synthetic.random_stream import RandomStream, random_bytes
from medvl.utils.checks import check_integer, error_message
from medvl.utils.checksums import write_listed
from medvl.utils.csv_files import CsvWriter


class SyntheticDataset(Dataset[dict[str, Any]], ABC):
    """Studies that are generated on access; see :class:`~medvl.data.SyntheticChestXRay` for the items.

    Args:
        length: number of studies, at least 1.
        size: side of the images, in ``size_range``.
        seed: another seed gives other patients; at least 0.

    Attributes:
        names: the 14 findings of the labels.
        drawable: the findings that are drawn, in the order of the masks.
        size_range: smallest and largest ``size``.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is out of range.
    """

    names: ClassVar[tuple[str, ...]] = CHEXPERT_FINDINGS
    drawable: ClassVar[tuple[str, ...]]
    size_range: ClassVar[tuple[int, int]]
    file_suffix: ClassVar[str]
    id_prefix: ClassVar[str]
    stream_key: ClassVar[tuple[str, ...]] = ()

    def __init__(self, length: int, size: int, seed: int) -> None:
        check_integer(length, "length", minimum=1)
        check_integer(size, "size")
        check_integer(seed, "seed", minimum=0)
        low, high = self.size_range
        if not low <= size <= high:
            raise ValueError(error_message("size", f"be between {low} and {high}", size))
        self.length, self.size, self.seed = length, size, seed

    def get_metadata(self, index: int) -> dict[str, Any]:
        """All of a study but its image and masks, without drawing them.

        Args:
            index: of the study.

        Returns:
            ``report``, ``label``, ``text_label``, ``findings`` (a list of :class:`~medvl.data.synthetic.findings.Finding`),
            ``study_id``, ``patient_id`` and ``split``.
        """
        patient_id = f"{self.id_prefix}{self.seed}-p{patient_number(self.seed, index):06d}"
        findings = [
            finding for finding in sample_findings(self._rng("findings", index)) if finding.name in self.drawable
        ]
        report, stated = self._compose_report(findings, self._rng("report", index))
        return {
            "report": report,
            "label": _label(image_states(findings, self.drawable)),
            "text_label": _label(stated),
            "findings": findings,
            "study_id": f"{self.id_prefix}{self.seed}-s{index:06d}",
            "patient_id": patient_id,
            "split": split_of_patient(patient_id),
        }

    @abstractmethod
    def render(self, index: int, findings: Sequence[Finding]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The image of study ``index`` with the given findings, and the masks of the findings, in the order of ``drawable``."""

    @abstractmethod
    def _compose_report(self, findings: Sequence[Finding], rng: RandomStream) -> tuple[str, dict[str, float]]:
        """The report, and the states that it states."""

    @abstractmethod
    def _scale(self, pixels: NDArray[Any]) -> torch.Tensor:
        """The image as floats in [0, 1]."""

    @abstractmethod
    def _save_image(self, pixels: NDArray[Any], path: Path) -> None:
        """Save an image to a file."""

    @abstractmethod
    def _save_mask(self, mask: NDArray[np.uint8], path: Path) -> None:
        """Save a mask of 0 and 1 to a file."""

    def _rng(self, *key: object) -> RandomStream:
        return RandomStream(*self.stream_key, self.seed, *key)

    def _random_bytes(self, count: int, *key: object) -> NDArray[np.uint8]:
        return random_bytes(count, *self.stream_key, self.seed, *key)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(self.length)[index]
        study = self.get_metadata(index)
        pixels, masks = self.render(index, study["findings"])
        return {
            "image": self._scale(pixels).unsqueeze(0),
            "mask": torch.from_numpy(masks),
            **study,
            "label": torch.from_numpy(study["label"]),
            "text_label": torch.from_numpy(study["text_label"]),
            "findings": [vars(finding) for finding in study["findings"]],
        }

    def save(
        self,
        folder: str | Path,
        masks: bool = False,
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    ) -> Path:
        """Save the data set as image files and a table, which :func:`~medvl.data.read_manifest` reads.

        ``cases.csv`` has the columns image, study_id, patient_id, split, report and the 14 findings with 1, 0 or blank, as
        CheXpert's own files. Images are in ``images/``: 8-bit PNG, or NIfTI in Hounsfield units. The table is written last
        and atomically, with its checksum in ``SHA256SUMS``.

        Args:
            folder: where to save; created if missing.
            masks: whether to save the mask of each finding that is present, as ``masks/STUDY/FINDING`` with the image's
                suffix (PNG 0 and 255, NIfTI 0 and 1).
            progress: wraps the iteration over studies, as ``tqdm`` does.

        Returns:
            The path of ``cases.csv``.
        """
        folder = Path(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        rows = []
        indices: Iterable[int] = range(self.length)
        for index in progress(indices) if progress else indices:
            study = self.get_metadata(index)
            pixels, regions = self.render(index, study["findings"])
            name = f"images/{study['study_id']}{self.file_suffix}"
            self._save_image(pixels, folder / name)
            if masks:
                self._save_masks(regions, folder / "masks" / study["study_id"])
            cells = ["" if math.isnan(state) else str(int(state)) for state in study["label"]]
            rows.append([name, *(study[key] for key in ("study_id", "patient_id", "split", "report")), *cells])
        table = folder / "cases.csv"
        text = io.StringIO(newline="")
        writer = CsvWriter(text, raw=True)  # to be read back as it is, and nothing in it comes from outside
        writer.write_row(["image", "study_id", "patient_id", "split", "report", *self.names])
        writer.write_rows(rows)
        write_listed(table, text.getvalue())
        return table

    def _save_masks(self, masks: NDArray[np.uint8], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, mask in zip(self.drawable, masks, strict=True):
            if mask.any():
                self._save_mask(mask, folder / f"{name}{self.file_suffix}")


def _label(states: Mapping[str, float]) -> NDArray[np.float32]:
    """States by name as float32 (14,) in the order of :data:`CHEXPERT_FINDINGS`, NaN if unknown."""
    return np.array([states.get(name, math.nan) for name in CHEXPERT_FINDINGS], dtype=np.float32)
