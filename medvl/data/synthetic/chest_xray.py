"""The synthetic chest X-ray set: images, masks, reports and labels, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medvl.data.synthetic.anatomy import Body, Changes, Chest, Exposure
from medvl.data.synthetic.canvas import Canvas
from medvl.data.synthetic.draws import Draws, noise_bytes, patient_of, split_of
from medvl.data.synthetic.effects import change_shape, draw_finding, draw_marker
from medvl.data.synthetic.findings import DRAWABLE, Finding, draw_findings, image_states
from medvl.data.synthetic.reports import compose_report
from medvl.data.synthetic.study_set import SyntheticSet, states_in_order

TEXTURE_BYTES = 13 * 13


class SyntheticChestXRay(SyntheticSet):
    """Chest X-ray phantoms with findings of known place, side and severity, their masks, and reports on them.

    The same seed and index give the same study on every machine, in any order and whatever the length. At another size a
    study shows the same chest. No patient is in it and nothing is downloaded.

    Each item is a dictionary:

    - ``image``: float32 (1, size, size) in [0, 1], eight-bit levels, row 0 at the top, the patient's right on the left;
    - ``mask``: uint8 (10, size, size), the pixels of each finding in ``drawable``, 0 or 1;
    - ``report``: text with sections, varied phrasing, negations, hedges and sentences about something else;
    - ``label``: float32 (14,), what the image shows, in the order of ``names``: 1 present, 0 absent, NaN not determined (the
      findings that are not drawn); "No Finding" is derived, and devices do not contradict it;
    - ``text_label``: float32 (14,), what the report says: 1 present, 0 absent, -1 uncertain, NaN not mentioned;
    - ``findings``: a list of dictionaries with ``name``, ``severity``, ``side`` and ``location``;
    - ``study_id``, ``patient_id`` (one to three studies a patient) and ``split``, by patient: train, val or test, about 70, 10
      and 20 %.

    Args:
        length: number of studies, at least 1.
        size: side of the images in pixels, 32 to 1024.
        seed: another seed, other patients; at least 0.

    Raises:
        TypeError: where an argument is not an integer.
        ValueError: where it is out of its range.

    Example:
        >>> study = SyntheticChestXRay(length=3, size=64, seed=0)[2]
        >>> study["image"].shape, study["mask"].shape, study["study_id"], study["patient_id"]
        (torch.Size([1, 64, 64]), torch.Size([10, 64, 64]), 'syn0-s000002', 'syn0-p000000')
    """

    drawable = DRAWABLE
    sizes = (32, 1024)
    suffix = ".png"

    def __init__(self, length: int = 2000, size: int = 128, seed: int = 0) -> None:
        super().__init__(length, size, seed)

    def describe(self, index: int) -> dict[str, Any]:
        """All of a study but its pixels: findings, report, labels and ids."""
        patient = f"syn{self.seed}-p{patient_of(self.seed, index):06d}"
        findings = draw_findings(Draws(self.seed, "findings", index))
        report, stated = compose_report(findings, Draws(self.seed, "report", index))
        return {
            "report": report,
            "label": states_in_order(image_states(findings)),
            "text_label": states_in_order(stated),
            "findings": findings,
            "study_id": f"syn{self.seed}-s{index:06d}",
            "patient_id": patient,
            "split": split_of(patient),
        }

    def draw(self, index: int, findings: list[Finding]) -> tuple[np.ndarray, np.ndarray]:
        """A study's picture, uint8 (size, size), and the masks of its findings, uint8 (10, size, size)."""
        seed = self.seed
        body = Body.draw(Draws(seed, "patient", patient_of(seed, index)))
        exposure = Exposure.draw(Draws(seed, "exposure", index))
        changes = Changes()
        for finding in findings:
            change_shape(changes, finding, body, Draws(seed, "place", index, finding.name))
        texture = noise_bytes(TEXTURE_BYTES, seed, "texture", index)
        chest = Chest(Canvas(self.size, exposure.pose), body, changes, exposure.breath, texture)
        masks = np.zeros((len(DRAWABLE), self.size, self.size), dtype=np.uint8)
        for finding in findings:
            mask = draw_finding(chest, finding, Draws(seed, "place", index, finding.name))
            masks[DRAWABLE.index(finding.name)] = mask
        if exposure.marker:
            draw_marker(chest, exposure.marker)
        noise = noise_bytes(2 * self.size * self.size, seed, "noise", index, self.size)
        return chest.picture(exposure, noise), masks

    def write(
        self,
        folder: str | Path,
        masks: bool = False,
        progress: Callable[[Iterable], Iterable] | None = None,
    ) -> Path:
        """Writes the set as files that any reader of tables can use.

        ``cases.csv`` has the columns image, study_id, patient_id, split, report and the fourteen findings with 1, 0 or blank,
        as CheXpert's own files have them; images are 8-bit PNG in ``images/``. The table is written last and whole.

        Args:
            folder: made where it is missing.
            masks: whether to write ``masks/STUDY/FINDING.png`` (0 or 255) of each finding that is present.
            progress: wraps the iteration over studies, as ``tqdm`` does.

        Returns:
            The path of ``cases.csv``.
        """
        return self._write(folder, masks, progress)

    def _scaled(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels).float() / 255

    def _save(self, pixels: np.ndarray, path: Path) -> None:
        Image.fromarray(pixels).save(path)
