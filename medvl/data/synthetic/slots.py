"""The words for the slots of a sentence template: severity, side and location, each with several wordings.

Slots: ``sev`` how severe ("small"), ``a_sev`` the same with its article, ``badly`` its adverb; ``side``, ``sided``
("right-sided") and ``on`` ("on the right"); ``zone`` ("right upper lobe"), ``base`` ("right basilar") and ``at`` ("in the right
upper lobe"); ``rib`` which ribs; ``lump`` nodule or mass; ``seen`` a verb of perception; ``s`` and ``are`` the grammatical
number of a finding that may be on both sides.
"""

from __future__ import annotations

from medvl.data.synthetic.findings import Finding
from medvl.data.synthetic.random_stream import RandomStream

SEEN = ("seen", "noted", "identified", "present", "demonstrated", "visualized", "visible")

SEVERITY: dict[str, dict[str, tuple[str, ...]]] = {
    "": {
        "mild": ("mild", "minimal", "slight"),
        "moderate": ("moderate",),
        "severe": ("severe", "marked", "extensive"),
    },
    "Cardiomegaly": {"mild": ("mild", "slight"), "moderate": ("moderate",), "severe": ("severe", "marked")},
    "Pleural Effusion": {
        "mild": ("small", "trace", "minimal", "tiny"),
        "moderate": ("moderate", "moderate-sized"),
        "severe": ("large", "very large", "extensive"),
    },
    "Pneumothorax": {
        "mild": ("small", "tiny", "minimal", "trace"),
        "moderate": ("moderate", "moderate-sized"),
        "severe": ("large", "very large", "extensive"),
    },
    "Consolidation": {
        "mild": ("mild", "small", "minimal"),
        "moderate": ("moderate",),
        "severe": ("extensive", "dense", "marked"),
    },
    "Lung Opacity": {
        "mild": ("faint", "mild", "subtle", "minimal"),
        "moderate": ("moderate",),
        "severe": ("extensive", "marked"),
    },
    "Lung Lesion": {
        "mild": ("small", "tiny"),
        "moderate": ("moderate-sized", "medium-sized"),
        "severe": ("large", "very large"),
    },
    "Fracture": {
        "mild": ("nondisplaced", "minimally displaced"),
        "moderate": ("displaced", "moderately displaced"),
        "severe": ("markedly displaced", "severely displaced"),
    },
}
"""The words for each severity; those under "" are for findings without an entry."""

ADVERBS = {"mild": ("mildly", "slightly"), "moderate": ("moderately",), "severe": ("markedly", "severely")}
LUMPS = {"mild": ("nodule",), "moderate": ("nodule", "lesion"), "severe": ("mass",)}

ZONES = {
    "upper": ("upper lobe", "upper lung zone", "upper lung"),
    "mid": ("mid lung zone", "mid lung"),
    "lower": ("lower lobe", "lower lung zone", "lower lung"),
}
MIDDLE_LOBE = "middle lobe"
"""Only the right lung has one."""


def slot_words(finding: Finding, rng: RandomStream) -> dict[str, str]:
    """Random words for the slots of a sentence template, each true of the finding."""
    severity, side = finding.severity, finding.side
    both = side == "bilateral"
    word = rng.choice(SEVERITY.get(finding.name, SEVERITY[""])[severity])
    words = {
        "sev": word,
        "a_sev": word if both else ("an " if word[0] in "aeiou" else "a ") + word,
        "badly": rng.choice(ADVERBS[severity]),
        "seen": rng.choice(SEEN),
        "lump": rng.choice(LUMPS[severity]),
        "side": side,
        "sided": side if both else side + "-sided",
        "on": "bilaterally" if both else f"on the {side}",
        "rib": "middle" if finding.location == "mid" else finding.location,
        "base": "bibasilar" if both else f"{side} basilar",
        "s": "s" if both else "",
        "are": "are" if both else "is",
    }
    if finding.location in ZONES:
        options = ZONES[finding.location]
        if finding.location == "mid" and side == "right":
            options = (*options, MIDDLE_LOBE)
        zone = rng.choice(options)
        words["zone"] = f"{side} {zone}"
        words["at"] = f"in both {zone}s" if both else f"in the {side} {zone}"
        if finding.location == "lower" and rng.bernoulli(0.3):
            words["at"] = "at both lung bases" if both else f"at the {side} lung base"
    return words
