"""The findings of a study: which there are, on which side, where and how severe."""

from __future__ import annotations

from dataclasses import dataclass

from medvl.data.synthetic.draws import Draws
from medvl.text import load_vocabulary

NAMES = load_vocabulary("chexpert14").names
"""The fourteen findings in the order of CheXpert's own files."""

DRAWABLE = (
    "Cardiomegaly",
    "Pleural Effusion",
    "Pneumothorax",
    "Consolidation",
    "Lung Opacity",
    "Lung Lesion",
    "Atelectasis",
    "Edema",
    "Fracture",
    "Support Devices",
)
"""The ten that are drawn, in the order of the masks."""

SEVERITIES = ("mild", "moderate", "severe")
DEVICES = {"endotracheal tube": 0.2, "central venous catheter": 0.35, "pacemaker": 0.35, "chest tube": 0.1}
"""Kinds of devices, and how often a device is of each."""
ZONES = ("upper", "mid", "lower")

NORMAL = 0.2
"""Share of studies in which nothing is drawn but, at times, a device."""
RATE = 0.3
"""How often each finding is drawn in the others."""


@dataclass(frozen=True)
class Finding:
    """One finding of a study.

    Args:
        name: one of :data:`DRAWABLE`.
        severity: "mild", "moderate" or "severe".
        side: the patient's side, "right", "left" or "bilateral"; "" where the finding has none.
        location: "upper", "mid" or "lower" zone, the kind of a device, or "".
    """

    name: str
    severity: str
    side: str = ""
    location: str = ""


def draw_findings(draws: Draws) -> list[Finding]:
    """The findings of one study at random, in the order of :data:`DRAWABLE`."""
    device = draws.chance(RATE)
    normal = draws.chance(NORMAL)
    found = [name for name in DRAWABLE[:-1] if draws.chance(RATE) and not normal]
    findings = [_describe(name, draws) for name in found]
    return findings + ([_describe("Support Devices", draws)] if device else [])


def _describe(name: str, draws: Draws) -> Finding:
    severity = draws.weighted([("mild", 0.2), ("moderate", 0.4), ("severe", 0.4)])
    one_side = draws.pick(("right", "left"))
    if name == "Cardiomegaly":
        return Finding(name, severity)
    if name == "Edema":
        return Finding(name, severity, "bilateral")
    if name == "Pleural Effusion":
        return Finding(name, severity, draws.weighted([(one_side, 0.7), ("bilateral", 0.3)]))
    if name == "Pneumothorax":
        return Finding(name, severity, one_side, "upper")
    if name == "Atelectasis":
        return Finding(name, severity, draws.weighted([(one_side, 0.75), ("bilateral", 0.25)]), "lower")
    if name == "Support Devices":
        kind = draws.weighted(tuple(DEVICES.items()))
        return Finding(name, "moderate", "" if kind == "endotracheal tube" else one_side, kind)
    return Finding(name, severity, one_side, draws.pick(ZONES))


def image_states(findings: list[Finding]) -> dict[str, float]:
    """1 or 0 for each finding that can be drawn, and for "No Finding", which devices do not contradict (as in CheXpert)."""
    present = {finding.name for finding in findings}
    states = {name: float(name in present) for name in DRAWABLE}
    states["No Finding"] = float(not present - {"Support Devices"})
    return states
