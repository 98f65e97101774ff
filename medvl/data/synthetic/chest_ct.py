"""The synthetic data set of chest CT: volumes, masks, reports and labels, generated on access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from medvl.data.synthetic.base import SyntheticDataset
from medvl.data.synthetic.canvas import bump, smoothstep
from medvl.data.synthetic.findings import Finding
from medvl.data.synthetic.patients import patient_number
from medvl.data.synthetic.random_stream import RandomStream
from medvl.data.synthetic.reports import compose_sentences, stated_findings

DRAWABLE_CT = (
    "Cardiomegaly",
    "Pleural Effusion",
    "Pneumothorax",
    "Consolidation",
    "Lung Opacity",
    "Lung Lesion",
    "Atelectasis",
)
"""The seven findings that are drawn, in the order of the masks."""

AIR, LUNG, GROUND_GLASS, FAT, FLUID, TISSUE, BLOOD, BONE = -1000, -820, -520, -90, 8, 40, 50, 500
LOW, HIGH = -1000, 400
"""Hounsfield units, and the window from 0 to 1."""

TEXTURE_CELLS = 17
HEART = {"": 1.0, "mild": 1.16, "moderate": 1.28, "severe": 1.42}
EFFUSION = {"mild": 0.3, "moderate": 0.42, "severe": 0.58}
PNEUMOTHORAX = {"mild": 0.2, "moderate": 0.32, "severe": 0.48}
ATELECTASIS = {"mild": 0.16, "moderate": 0.24, "severe": 0.34}
RADIUS = {
    "Consolidation": {"mild": 0.16, "moderate": 0.22, "severe": 0.28},
    "Lung Opacity": {"mild": 0.2, "moderate": 0.26, "severe": 0.32},
    "Lung Lesion": {"mild": 0.08, "moderate": 0.11, "severe": 0.15},
}
HEIGHT = {"upper": 0.42, "mid": 0.1, "lower": -0.2}
DEPTH = {"upper": (-0.15, 0.1), "mid": (-0.25, 0.05), "lower": (-0.34, -0.18)}
"""Where a zone's findings lie along z and y: at the base behind the heart and above the diaphragm, whatever their sizes."""
CT_WORDING = {
    "chest radiograph": "chest CT",
    "Follow-up radiograph": "Follow-up CT",
    "radiographic": "CT",
    "on this view": "on this scan",
}
"""Wording of the radiographs' reports, and its replacement for CT."""


@dataclass(frozen=True)
class Body:
    """One patient, shared by that patient's studies; lengths in half volumes."""

    wide: float
    deep: float
    lung: float
    dome: float
    heart: float
    rib_start: float

    @classmethod
    def sample(cls, rng: RandomStream) -> Body:
        """A random patient."""
        return cls(
            wide=rng.uniform(0.82, 0.9),
            deep=rng.uniform(0.62, 0.7),
            lung=rng.uniform(0.94, 1.06),
            dome=rng.uniform(-0.66, -0.56),
            heart=rng.uniform(0.92, 1.06),
            rib_start=rng.uniform(0.0, 0.22),
        )


class SyntheticChestCT(SyntheticDataset):
    """CT-like volumes of chest phantoms with findings of known place, side and severity, their masks, and reports on them.

    The same seed and index give the same study on every machine, in any order and at any length. Nothing is downloaded, and
    no patient data is used. Voxels are Hounsfield units, scaled so that -1000 is 0 and 400 is 1.

    Each item is a dictionary:

    - ``image``: float32 (1, size, size, size) in [0, 1], axes in RAS order as :class:`medvl.transforms.LoadStudyImage` gives
      volumes: indices grow to the patient's right, front and head;
    - ``mask``: uint8 (7, size, size, size), the voxels of each finding in ``drawable``, 0 or 1;
    - ``report``, ``label``, ``text_label``, ``findings``, ``study_id``, ``patient_id`` and ``split`` as in
      :class:`SyntheticChestXRay`. Findings that are not drawn are NaN in ``label``; a report may still deny them.

    Args:
        length: number of studies, at least 1.
        size: side of the volumes in voxels, 32 to 256.
        seed: another seed gives other patients; at least 0.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is out of range.

    Example:
        >>> study = SyntheticChestCT(length=3, size=32)[2]
        >>> study["image"].shape, study["mask"].shape, study["study_id"]
        (torch.Size([1, 32, 32, 32]), torch.Size([7, 32, 32, 32]), 'synct0-s000002')
    """

    drawable = DRAWABLE_CT
    size_range = (32, 256)
    file_suffix = ".nii.gz"
    id_prefix = "synct"
    stream_key = ("ct",)

    def __init__(self, length: int = 400, size: int = 64, seed: int = 0) -> None:
        super().__init__(length, size, seed)

    def render(self, index: int, findings: Sequence[Finding]) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """The volume of study ``index`` with the given findings.

        Args:
            index: of the study.
            findings: what to draw, at most one of each name.

        Returns:
            The volume in Hounsfield units, int16 (size, size, size), and the masks of the findings, uint8 (7, size, size,
            size).
        """
        size = self.size
        body = Body.sample(self._rng("patient", patient_number(self.seed, index)))
        pose = self._rng("pose", index)
        texture = self._random_bytes(TEXTURE_CELLS**3, "texture", index)
        chest = ChestVolume(size, body, pose, findings, smooth_texture(texture, size))
        masks = np.zeros((len(DRAWABLE_CT), size, size, size), dtype=np.uint8)
        for finding in findings:
            region = chest.add(finding, self._rng("place", index, finding.name))
            masks[DRAWABLE_CT.index(finding.name)] = region > 0.5
        noise = self._random_bytes(2 * size**3, "noise", index, size).reshape(2, size, size, size)
        grain = (noise[0].astype(np.int16) + noise[1] - 255) // 8  # about 13 Hounsfield units
        return np.clip(chest.hounsfield() + grain, -1024, 3071).astype(np.int16), masks

    def _compose_report(self, findings: Sequence[Finding], rng: RandomStream) -> tuple[str, dict[str, float]]:
        return compose_ct_report(findings, rng)

    def _scale(self, pixels: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy((pixels.astype(np.float32) - LOW) / (HIGH - LOW)).clamp(0, 1)

    def _save_image(self, pixels: NDArray[Any], path: Path) -> None:
        spacing = 360 / self.size
        nibabel.save(nibabel.Nifti1Image(pixels, np.diag([spacing, spacing, spacing, 1.0])), path)

    def _save_mask(self, mask: NDArray[np.uint8], path: Path) -> None:
        self._save_image(mask, path)


class ChestVolume:
    """One chest in body coordinates, to which findings are added.

    Coordinates run from -1 to 1: x to the patient's right, y to the front, z to the head.

    Args:
        size: voxels along each side.
        body: the patient.
        pose: random stream of the patient's position in the scanner.
        findings: all findings of the study, of which some change the shape of the chest.
        texture: smooth noise (size, size, size) about 0.
    """

    def __init__(
        self, size: int, body: Body, pose: RandomStream, findings: Sequence[Finding], texture: np.ndarray
    ) -> None:
        axis = ((np.arange(size, dtype=np.float32) * 2 + 1) / size - 1).astype(np.float32)
        scale = np.float32(pose.uniform(0.96, 1.04))
        offset = [np.float32(pose.uniform(-0.04, 0.04)) for _ in range(3)]
        x, y, z = np.meshgrid(*((axis - shift) / scale for shift in offset), indexing="ij", copy=False)
        self.x, self.y, self.z = (np.ascontiguousarray(v) for v in (x, y, z))
        self.body, self.texture, self.edge = body, texture, max(0.05, 3.0 / size)
        self.severity = {finding.name: finding.severity for finding in findings}
        shell = self._ellipse(body.wide, body.deep)
        self.inside = smoothstep(shell, self.edge)
        self.chest = self._ellipse(body.wide - 0.09, body.deep - 0.09)
        self.heart = self._heart()
        self.lungs = self._lungs()
        self.filled = np.zeros_like(self.x)
        """How much of the lung is replaced, 0 to 1; ``filling`` is by what, in Hounsfield units."""
        self.filling = np.zeros_like(self.x)

    def _ellipse(self, wide: float, deep: float) -> np.ndarray:
        """Distance, roughly, to an elliptic cylinder along the body's axis; positive inside."""
        square = (self.x / np.float32(wide)) ** 2
        square += (self.y / np.float32(deep)) ** 2
        return (1 - np.sqrt(square)) * np.float32(deep)

    def _ball(self, center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        """Distance, roughly, to an ellipsoid; positive inside."""
        square = np.zeros_like(self.x)
        for axis, middle, radius in zip((self.x, self.y, self.z), center, radii, strict=True):
            square += ((axis - np.float32(middle)) / np.float32(radius)) ** 2
        return (1 - np.sqrt(square)) * np.float32(min(radii))

    def _heart(self) -> np.ndarray:
        grow = self.body.heart * HEART[self.severity.get("Cardiomegaly", "")]
        # The apex points to the patient's left and front.
        ball = self._ball((-0.1 * grow, 0.14, -0.2), (0.3 * grow, 0.24 * (0.6 + 0.4 * grow), 0.27 * grow))
        return smoothstep(ball, self.edge)

    def _lungs(self) -> np.ndarray:
        body, across = self.body, np.abs(self.x)
        wall = np.minimum(self.chest, across - 0.12)
        tip = self._ball((0, 0, -0.3), (1.3, 1.1, 1.1 * body.lung))  # rounds the apices
        floor = self.z - np.float32(body.dome) - 0.3 * bump(across - 0.4, 0.5) * (1 - np.abs(self.y))
        return smoothstep(np.minimum(np.minimum(wall, tip), floor), self.edge) * (1 - self.heart)

    def _side(self, side: str) -> np.ndarray | float:
        """1 on the side of a finding."""
        return 1.0 if side == "bilateral" else (self.x > 0 if side == "right" else self.x < 0)

    def add(self, finding: Finding, rng: RandomStream) -> np.ndarray:
        """Add a finding; returns its region (size, size, size), 0 to 1."""
        if finding.name == "Cardiomegaly":
            return self.heart * self.inside
        region = self._region(finding, rng) * self.lungs * self._side(finding.side)
        value = {"Pneumothorax": AIR, "Pleural Effusion": FLUID, "Lung Opacity": GROUND_GLASS}.get(finding.name, TISSUE)
        fresh = region > self.filled
        self.filling[fresh] = value
        np.maximum(self.filled, region, out=self.filled)
        return region

    def _region(self, finding: Finding, rng: RandomStream) -> np.ndarray:
        severity = finding.severity
        if finding.name == "Pleural Effusion":  # at the back and the base
            depth = self.y * -0.8 - self.z * 0.35 - (0.62 - np.float32(EFFUSION[severity]))
            return smoothstep(depth, self.edge)
        if finding.name == "Pneumothorax":  # at the front and the apex
            height = self.y * 0.7 + self.z * 0.45 - (0.68 - np.float32(PNEUMOTHORAX[severity]))
            return smoothstep(height, self.edge)
        if finding.name == "Atelectasis":  # a plate above the diaphragm
            above = self.z - np.float32(self.body.dome) - 0.3 * bump(np.abs(self.x) - 0.4, 0.5)
            return smoothstep(np.float32(ATELECTASIS[severity]) - above, self.edge) * smoothstep(0.1 - self.y, 0.2)
        radius = RADIUS[finding.name][severity]
        sign = 1 if finding.side == "right" else -1
        center = (
            sign * rng.uniform(0.38, 0.5),
            rng.uniform(*DEPTH[finding.location]),
            HEIGHT[finding.location] + rng.uniform(-0.06, 0.06),
        )
        ball = self._ball(center, (radius, radius, radius))
        soft = finding.name != "Lung Lesion"
        return smoothstep(ball + 0.12 * self.texture if soft else ball, 3 * self.edge if soft else self.edge)

    def hounsfield(self) -> np.ndarray:
        """The volume in Hounsfield units, float32."""
        x, y, z, body = self.x, self.y, self.z, self.body
        units = np.full_like(x, TISSUE)
        units += (FAT - TISSUE) * smoothstep(0.05 - self._ellipse(body.wide, body.deep), self.edge)
        units += (BLOOD - TISSUE) * self.heart
        vessels = bump(self.texture, 0.22) * 260
        lung = LUNG + vessels * bump(np.abs(x) - 0.3, 0.6) + 40 * self.texture
        lung += (self.filling + 25 * self.texture - lung) * self.filled
        units += (lung - units) * self.lungs
        # Trachea, spine, and ribs that slope down to the front.
        units += (AIR - units) * smoothstep(0.055 - np.sqrt(x**2 + (y + 0.05) ** 2), 0.04) * (z > 0.25)
        spine = smoothstep(0.12 - np.sqrt(x**2 + (y + np.float32(body.deep - 0.2)) ** 2), self.edge)
        phase = (z + 0.35 * y + np.float32(body.rib_start)) / 0.22
        phase = phase - np.floor(phase) - 0.5
        rib = bump(phase, 0.28) * bump(self.chest + 0.035, 0.05)
        units += (BONE - units) * np.maximum(spine, rib * (np.abs(x) > 0.1))
        return AIR + (units - AIR) * self.inside


def compose_ct_report(findings: Sequence[Finding], rng: RandomStream) -> tuple[str, dict[str, float]]:
    """The report of a study under FINDINGS and IMPRESSION, and the states that it states.

    The sentences are those of the radiographs' reports, with the wording of CT.

    Args:
        findings: what is present, at most one of each name.
        rng: of the choice of words.

    Example:
        >>> text, states = compose_ct_report([Finding("Pneumothorax", "severe", "left", "upper")], RandomStream("report"))
        >>> "left" in text.lower(), states["Pneumothorax"]
        (True, 1.0)
    """
    sentences = [s for s in compose_sentences(findings, rng) if s.section in ("FINDINGS", "IMPRESSION")]
    sentences = [s for s in sentences if s.mentions or "lateral view" not in s.text] or sentences
    sections: dict[str, list[str]] = {}
    for sentence in sentences:
        text = sentence.text
        for radiograph, ct in CT_WORDING.items():
            text = text.replace(radiograph, ct)
        sections.setdefault(sentence.section, []).append(text)
    return "\n".join(f"{name}: {' '.join(texts)}" for name, texts in sections.items()), stated_findings(sentences)


def smooth_texture(raw: np.ndarray, size: int) -> np.ndarray:
    """Smooth noise (size, size, size) between -1 and 1 from random bytes of a cubic grid, interpolated along each axis."""
    cells = round(len(raw) ** (1 / 3))
    values = raw.reshape(cells, cells, cells).astype(np.float32) / np.float32(127.5) - 1
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32((cells - 1) / size)
    left = np.minimum(place.astype(np.int64), cells - 2)
    part = place - left.astype(np.float32)
    part = part * part * (3 - 2 * part)
    for axis in range(3):
        weight = part.reshape([-1 if other == axis else 1 for other in range(3)])
        low, high = values.take(left, axis), values.take(left + 1, axis)
        values = low + (high - low) * weight
    return values
