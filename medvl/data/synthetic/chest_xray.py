"""The synthetic data set of chest radiographs: images, masks, reports and labels, generated on access."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medvl.data.synthetic.anatomy import Body, Changes, Chest, Exposure
from medvl.data.synthetic.base import SyntheticDataset
from medvl.data.synthetic.canvas import Canvas
from medvl.data.synthetic.effects import change_shape, draw_finding, draw_marker
from medvl.data.synthetic.findings import DRAWABLE, Finding
from medvl.data.synthetic.patients import patient_number
from medvl.data.synthetic.random_stream import RandomStream
from medvl.data.synthetic.reports import compose_report

TEXTURE_BYTES = 13 * 13


class SyntheticChestXRay(SyntheticDataset):
    """Chest X-ray phantoms with findings of known place, side and severity, their masks, and reports on them.

    The same seed and index give the same study on every machine, in any order and at any length; at another size, the same
    chest at another resolution. Nothing is downloaded, and no patient data is used.

    Each item is a dictionary:

    - ``image``: float32 (1, size, size) in [0, 1], eight-bit levels, row 0 at the top, the patient's right on the left;
    - ``mask``: uint8 (10, size, size), the pixels of each finding in ``drawable``, 0 or 1;
    - ``report``: text with sections, varied phrasing, negations, hedges and unrelated sentences;
    - ``label``: float32 (14,), the findings of the image in the order of ``names``: 1 present, 0 absent, NaN for those that
      are not drawn; "No Finding" is 1 if nothing but support devices is present;
    - ``text_label``: float32 (14,), the findings of the report: 1 present, 0 absent, -1 uncertain, NaN not mentioned;
    - ``findings``: a list of dictionaries with ``name``, ``severity``, ``side`` and ``location``;
    - ``study_id``, ``patient_id`` (one to three studies a patient) and ``split``, by patient: train, val or test, about 70, 10
      and 20 %.

    Args:
        length: number of studies, at least 1.
        size: side of the images in pixels, 32 to 1024.
        seed: another seed gives other patients; at least 0.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is out of range.

    Example:
        >>> study = SyntheticChestXRay(length=3, size=64, seed=0)[2]
        >>> study["image"].shape, study["mask"].shape, study["study_id"], study["patient_id"]
        (torch.Size([1, 64, 64]), torch.Size([10, 64, 64]), 'syn0-s000002', 'syn0-p000000')
    """

    drawable = DRAWABLE
    size_range = (32, 1024)
    file_suffix = ".png"
    id_prefix = "syn"

    def __init__(self, length: int = 2000, size: int = 128, seed: int = 0) -> None:
        super().__init__(length, size, seed)

    def render(self, index: int, findings: Sequence[Finding]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The radiograph of study ``index`` with the given findings.

        Args:
            index: of the study.
            findings: what to draw, at most one of each name.

        Returns:
            The image, uint8 (size, size), and the masks of the findings, uint8 (10, size, size).
        """
        chest, exposure = self._chest(index, findings)
        masks = np.zeros((len(DRAWABLE), self.size, self.size), dtype=np.uint8)
        for finding in findings:
            mask = draw_finding(chest, finding, self._rng("place", index, finding.name))
            masks[DRAWABLE.index(finding.name)] = mask
        if exposure.marker:
            draw_marker(chest, exposure.marker)
        noise = self._random_bytes(2 * self.size * self.size, "noise", index, self.size)
        return chest.picture(exposure, noise), masks

    def lungs(self, index: int) -> NDArray[np.uint8]:
        """The lungs of study ``index``, without what heart and mediastinum hide.

        Fluid, opacities and the air of a pneumothorax are inside: the mask ends at the chest wall and the diaphragm.

        Args:
            index: of the study.

        Returns:
            uint8 (size, size), 1 in a lung and 0 elsewhere.

        Raises:
            IndexError: If there is no such study.

        Example:
            >>> lungs = SyntheticChestXRay(length=3, size=64, seed=0).lungs(2)
            >>> lungs.shape, int(lungs.max()), int(lungs[:, 31:33].max())
            ((64, 64), 1, 0)
        """
        index = range(self.length)[index]
        chest, _ = self._chest(index, self.get_metadata(index)["findings"])
        return (chest.lung * (1 - chest.center) > 0.5).astype(np.uint8)

    def _chest(self, index: int, findings: Sequence[Finding]) -> tuple[Chest, Exposure]:
        """The chest of study ``index`` in the shape that findings give it, without their densities, and its exposure."""
        body = Body.sample(self._rng("patient", patient_number(self.seed, index)))
        exposure = Exposure.sample(self._rng("exposure", index))
        changes = Changes()
        for finding in findings:
            change_shape(changes, finding, body, self._rng("place", index, finding.name))
        texture = self._random_bytes(TEXTURE_BYTES, "texture", index)
        chest = Chest(Canvas(self.size, exposure.pose), body, changes, exposure.breath, texture)
        return chest, exposure

    def _compose_report(self, findings: Sequence[Finding], rng: RandomStream) -> tuple[str, dict[str, float]]:
        return compose_report(findings, rng)

    def _scale(self, pixels: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(pixels).float() / 255

    def _save_image(self, pixels: NDArray[Any], path: Path) -> None:
        Image.fromarray(pixels).save(path)

    def _save_mask(self, mask: NDArray[np.uint8], path: Path) -> None:
        Image.fromarray(mask * np.uint8(255)).save(path)
