"""Reports of findings in varied radiology English, and the finding states that they state.

The states are decided first: each finding that is present is stated, or hedged if it is mild; some of the others are denied,
and a few hedged. Only then are sentences chosen, so no sentence contradicts another. "The lungs are clear" is used only if no
finding of the lung is stated or hedged, and states that consolidation and opacity are absent, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medvl.data.synthetic import phrases, remarks
from medvl.data.synthetic.findings import DRAWABLE, ZONES, Finding
from medvl.data.synthetic.random_stream import RandomStream
from medvl.data.synthetic.slots import SEEN, slot_words

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0

HEDGED_MILD = 0.15
"""Fraction of mild findings that the report hedges."""
HEDGED_ABSENT = 0.03
"""Fraction of absent findings that are mentioned which the report hedges."""
MENTIONED = {
    "Cardiomegaly": 0.35,
    "Pleural Effusion": 0.4,
    "Pneumothorax": 0.4,
    "Consolidation": 0.3,
    "Lung Opacity": 0.2,
    "Lung Lesion": 0.2,
    "Atelectasis": 0.15,
    "Edema": 0.25,
    "Fracture": 0.25,
    "Support Devices": 0.3,
}
"""Probability that a finding is mentioned if it is absent."""

LUNG = ("Consolidation", "Lung Opacity", "Lung Lesion", "Atelectasis", "Edema")
PLEURA = ("Pleural Effusion", "Pneumothorax")
HEART, BONES, DEVICES = ("Cardiomegaly",), ("Fracture",), ("Support Devices",)
CLEAR = ("Consolidation", "Lung Opacity")
"""What is absent if the lungs are clear."""
ORDERS = (
    (DEVICES, HEART, LUNG, PLEURA, BONES),
    (HEART, LUNG, PLEURA, BONES, DEVICES),
    (LUNG, PLEURA, HEART, BONES, DEVICES),
    (DEVICES, LUNG, PLEURA, HEART, BONES),
    (LUNG, HEART, PLEURA, DEVICES, BONES),
)


@dataclass(frozen=True)
class Mention:
    """The state of one finding that a phrase states: 1 present, 0 absent, -1 uncertain."""

    name: str
    state: float
    phrase: str


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report.

    Args:
        section: "EXAM", "INDICATION", "COMPARISON", "TECHNIQUE", "FINDINGS" or "IMPRESSION".
        text: the sentence, from its capital to its period.
        mentions: what it states; empty if it is about no finding.
    """

    section: str
    text: str
    mentions: tuple[Mention, ...] = ()


def compose_report(findings: Sequence[Finding], rng: RandomStream) -> tuple[str, dict[str, float]]:
    """The report of a study, and the states that it states.

    Args:
        findings: what is present, at most one of each name.
        rng: of the choice of words.

    Returns:
        The text, and a state for each finding that the text mentions: 1 present, 0 absent, -1 uncertain. "No Finding" is always
        among them: 1 if nothing but devices is stated or hedged, else 0.

    Example:
        >>> text, states = compose_report([Finding("Pneumothorax", "severe", "left", "upper")], RandomStream(0, "report"))
        >>> "left" in text.lower(), "right" in text.lower(), states["Pneumothorax"], states["No Finding"]
        (True, False, 1.0, 0.0)
    """
    sentences = compose_sentences(findings, rng)
    return _lay_out(sentences, rng), stated_findings(sentences)


def stated_findings(sentences: Sequence[Sentence]) -> dict[str, float]:
    """The finding states that the sentences of a report state, with "No Finding", which is derived from them."""
    states = {mention.name: mention.state for sentence in sentences for mention in sentence.mentions}
    found = any(state != ABSENT for name, state in states.items() if name != "Support Devices")
    return {"No Finding": float(not found), **states}


def compose_sentences(findings: Sequence[Finding], rng: RandomStream) -> list[Sentence]:
    """The sentences of a report in their order, each with what it states."""
    preamble = _preamble(rng) if rng.bernoulli(0.35) else []
    if not findings and rng.bernoulli(0.3):
        return preamble + _short_normal(rng)
    present = {finding.name: finding for finding in findings}
    states, described = _decide(present, rng)
    sections = rng.weighted_choice([("both", 0.8), ("findings", 0.1), ("impression", 0.1)])
    body = _findings(states, described, rng) if sections != "impression" else []
    ending = _impression(states, described, rng, whole=not body) if sections != "findings" else []
    return preamble + body + ending


def _decide(present: dict[str, Finding], rng: RandomStream) -> tuple[dict[str, float], dict[str, Finding]]:
    """The state of each finding that the report mentions, and the findings that it describes (stated or hedged)."""
    states, described = {}, dict(present)
    for name in DRAWABLE:
        finding = present.get(name)
        if finding is not None:
            hedged = name in phrases.UNCERTAIN and finding.severity == "mild" and rng.bernoulli(HEDGED_MILD)
            states[name] = UNCERTAIN if hedged else PRESENT
        elif rng.bernoulli(MENTIONED[name]):
            hedged = name in phrases.UNCERTAIN and rng.bernoulli(HEDGED_ABSENT)
            states[name] = UNCERTAIN if hedged else ABSENT
            if hedged:
                zone = "lower" if name == "Atelectasis" else rng.choice(ZONES)
                described[name] = Finding(name, "mild", rng.choice(("right", "left")), zone)
    # "No opacity" would deny every other density of the lung.
    if states.get("Lung Opacity") == ABSENT and any(name in described for name in LUNG):
        del states["Lung Opacity"]
    return states, described


def _findings(states: dict[str, float], described: dict[str, Finding], rng: RandomStream) -> list[Sentence]:
    denied = [name for name in DRAWABLE if states.get(name) == ABSENT]
    groups: dict[tuple[str, ...], list[Sentence]] = {LUNG: [], PLEURA: [], HEART: [], BONES: [], DEVICES: []}
    for group, sentences in groups.items():
        for name in rng.permutation(group) if len(group) > 1 else group:
            if name in described:
                sentences.append(_sentence("FINDINGS", _mention(described[name], states[name], rng)))
    if not any(name in described for name in LUNG) and rng.bernoulli(0.6):
        groups[LUNG].append(_denial("FINDINGS", CLEAR, rng.choice(phrases.LUNGS_CLEAR)))
        denied = [name for name in denied if name not in CLEAR]
    listed = [name for name in rng.permutation(denied) if name in phrases.LISTED][: rng.choice((2, 3, 3, 4))]
    if len(listed) > 1 and rng.bernoulli(0.65):
        groups[PLEURA].append(_denial("FINDINGS", listed, _listing(listed, rng)))
        denied = [name for name in denied if name not in listed]
    for group, sentences in groups.items():
        for name in group:
            if name in denied:
                form = rng.choice(phrases.ABSENT[name])
                sentences.append(_denial("FINDINGS", [name], form.replace("{seen}", rng.choice(SEEN))))
    if rng.bernoulli(0.25):
        groups[HEART].append(Sentence("FINDINGS", rng.choice(remarks.NEUTRAL)))
    if any(name != "Support Devices" for name in described) and rng.bernoulli(0.15):
        groups[BONES].append(Sentence("FINDINGS", rng.choice(remarks.INCIDENTAL)))
    body = [sentence for group in rng.choice(ORDERS) for sentence in groups[group]]
    return body or [_denial("FINDINGS", CLEAR, phrases.LUNGS_CLEAR[0])]


def _impression(
    states: dict[str, float], described: dict[str, Finding], rng: RandomStream, whole: bool
) -> list[Sentence]:
    """The findings in other words; all of them if the impression is the ``whole`` report."""
    names = list(described)
    out = []
    if all(name == "Support Devices" for name in described):
        out.append(Sentence("IMPRESSION", rng.choice(remarks.NORMAL_IMPRESSIONS)))
    if not whole and len(names) > 3:
        names = names[: rng.choice((3, len(names)))]
    waiting: list[Mention] = []  # a noun phrase that may be joined with the next one
    for name in rng.permutation(names):
        if states[name] == PRESENT and name in phrases.BRIEF and rng.bernoulli(0.7):
            phrase = rng.choice(phrases.BRIEF[name]).format_map(slot_words(described[name], rng))
            waiting.append(Mention(name, PRESENT, phrase))
            if len(waiting) == 2 or rng.bernoulli(0.5):
                out.append(_sentence("IMPRESSION", *waiting))
                waiting = []
        else:
            out.append(_sentence("IMPRESSION", _mention(described[name], states[name], rng)))
    if waiting:
        out.append(_sentence("IMPRESSION", *waiting))
    denied = [name for name in ("Pneumothorax", "Pleural Effusion") if states.get(name) == ABSENT]
    if denied and rng.bernoulli(0.6 if whole else 0.15):
        out.append(_denial("IMPRESSION", denied[:1], rng.choice(phrases.ABSENT[denied[0]][:2])))
    if names and rng.bernoulli(0.2):
        out.append(Sentence("IMPRESSION", rng.choice(remarks.ADVICE)))
    return out


def _preamble(rng: RandomStream) -> list[Sentence]:
    choices = {
        "EXAM": remarks.EXAMS,
        "INDICATION": remarks.INDICATIONS,
        "COMPARISON": remarks.COMPARISONS,
        "TECHNIQUE": remarks.TECHNIQUES,
    }
    return [Sentence(section, rng.choice(options)) for section, options in choices.items() if rng.bernoulli(0.6)]


def _short_normal(rng: RandomStream) -> list[Sentence]:
    *body, (ending, _) = rng.choice(remarks.SHORT_NORMAL)
    return [_denial("FINDINGS", names, text) for text, names in body] + [Sentence("IMPRESSION", ending)]


def _mention(finding: Finding, state: float, rng: RandomStream) -> Mention:
    """A sentence, without its capital letter, that states or hedges the finding."""
    if finding.name == "Support Devices":
        forms = phrases.DEVICE_FORMS[finding.location]
    else:
        forms = (phrases.PRESENT if state == PRESENT else phrases.UNCERTAIN)[finding.name]
    return Mention(finding.name, state, rng.choice(forms).format_map(slot_words(finding, rng)))


def _sentence(section: str, *mentions: Mention) -> Sentence:
    text = " and ".join(mention.phrase for mention in mentions)
    return Sentence(section, text[0].upper() + text[1:].rstrip(".") + ".", mentions)


def _denial(section: str, names: Sequence[str], text: str) -> Sentence:
    return Sentence(section, text, tuple(Mention(name, ABSENT, text) for name in names))


def _listing(names: Sequence[str], rng: RandomStream) -> str:
    nouns = [rng.choice(phrases.LISTED[name]) for name in names]
    comma = ", " if len(nouns) > 2 and rng.bernoulli(0.5) else " "
    listed = ", ".join(nouns[:-1]) + comma + "or " + nouns[-1]
    return rng.choice(phrases.LIST_FORMS).format(list=listed, seen=rng.choice(SEEN))


def _lay_out(sentences: Sequence[Sentence], rng: RandomStream) -> str:
    """The sentences under their section headers, with one style of headers, wrapping and numbering a report."""
    case = rng.weighted_choice([(str.upper, 0.65), (str.capitalize, 0.35)])
    break_after_header = rng.bernoulli(0.25)
    colon = "" if break_after_header and rng.bernoulli(0.4) else ":"
    numbered, gap = rng.bernoulli(0.3), rng.choice(("\n", "\n", "\n\n"))
    width = rng.choice((60, 70, 80)) if rng.bernoulli(0.25) else 0
    sections: dict[str, list[str]] = {}
    for sentence in sentences:
        sections.setdefault(sentence.section, []).append(sentence.text)
    if "FINDINGS" in sections and rng.bernoulli(0.05):  # a few reports put the impression first
        sections["FINDINGS"] = sections.pop("FINDINGS")
    blocks = []
    for section, texts in sections.items():
        lines = [" ".join(texts)]
        if section == "IMPRESSION" and numbered and len(texts) > 1:
            lines = [f"{number}. {text}" for number, text in enumerate(texts, 1)]
        own_line = break_after_header or len(lines) > 1
        lines[0] = case(section) + colon + ("\n" if own_line else " ") + lines[0]
        blocks.append("\n".join(_wrapped("\n".join(lines), width) if width else lines))
    return gap.join(blocks)


def _wrapped(text: str, width: int) -> list[str]:
    out = []
    for line in text.split("\n"):
        while len(line) > width:
            cut = line.rfind(" ", 0, width + 1)
            out.append(line[:cut])
            line = line[cut + 1 :]
        out.append(line)
    return out
