"""The findings of a study with their side, location and severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medvl.data.synthetic.random_stream import RandomStream

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
"""The ten findings that are drawn, in the order of the masks."""

SEVERITIES = ("mild", "moderate", "severe")
DEVICES = {"endotracheal tube": 0.2, "central venous catheter": 0.35, "pacemaker": 0.35, "chest tube": 0.1}
"""Kinds of devices and their probabilities."""
ZONES = ("upper", "mid", "lower")

NORMAL_PROB = 0.2
"""Fraction of studies without any finding other than devices."""
FINDING_PROB = 0.3
"""Probability of each finding in the other studies, and of a device in any study."""


@dataclass(frozen=True)
class Finding:
    """One finding of a study.

    Args:
        name: one of ``DRAWABLE``.
        severity: "mild", "moderate" or "severe".
        side: the patient's side, "right", "left" or "bilateral"; "" if the finding has none.
        location: "upper", "mid" or "lower" zone, the kind of a device, or "".
    """

    name: str
    severity: str
    side: str = ""
    location: str = ""


def sample_findings(rng: RandomStream) -> list[Finding]:
    """The findings of one random study, in the order of :data:`DRAWABLE`."""
    device = rng.bernoulli(FINDING_PROB)
    normal = rng.bernoulli(NORMAL_PROB)
    found = [name for name in DRAWABLE[:-1] if rng.bernoulli(FINDING_PROB) and not normal]
    findings = [_sample_finding(name, rng) for name in found]
    return findings + ([_sample_finding("Support Devices", rng)] if device else [])


def _sample_finding(name: str, rng: RandomStream) -> Finding:
    severity = rng.weighted_choice([("mild", 0.2), ("moderate", 0.4), ("severe", 0.4)])
    one_side = rng.choice(("right", "left"))
    if name == "Cardiomegaly":
        return Finding(name, severity)
    if name == "Edema":
        return Finding(name, severity, "bilateral")
    if name == "Pleural Effusion":
        return Finding(name, severity, rng.weighted_choice([(one_side, 0.7), ("bilateral", 0.3)]))
    if name == "Pneumothorax":
        return Finding(name, severity, one_side, "upper")
    if name == "Atelectasis":
        return Finding(name, severity, rng.weighted_choice([(one_side, 0.75), ("bilateral", 0.25)]), "lower")
    if name == "Support Devices":
        kind = rng.weighted_choice(tuple(DEVICES.items()))
        return Finding(name, "moderate", "" if kind == "endotracheal tube" else one_side, kind)
    return Finding(name, severity, one_side, rng.choice(ZONES))


def image_states(findings: Sequence[Finding], drawable: Sequence[str] = DRAWABLE) -> dict[str, float]:
    """1 or 0 for each drawable finding, and for "No Finding": 1 if nothing but devices is present (as in CheXpert)."""
    present = {finding.name for finding in findings}
    states = {name: float(name in present) for name in drawable}
    states["No Finding"] = float(not present - {"Support Devices"})
    return states
