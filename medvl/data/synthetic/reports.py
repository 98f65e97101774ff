"""Reports of findings in varied radiology English, and the states that their sentences state.

What is said is decided first: each finding that is present is stated, or hedged where it is mild; some of the others are
denied, a few hedged. Only then are sentences chosen, so that no sentence can contradict another. "The lungs are clear" is
said only where no finding of the lung is stated or hedged, and states that consolidation and opacity are absent, nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medvl.data.synthetic import phrases, remarks
from medvl.data.synthetic.draws import Draws
from medvl.data.synthetic.findings import DRAWABLE, ZONES, Finding
from medvl.data.synthetic.slots import SEEN, slots

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0

HEDGED_MILD = 0.15
"""Share of mild findings that the report hedges."""
HEDGED_ABSENT = 0.03
"""Share of findings that are absent and mentioned which the report hedges all the same."""
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
"""How often a finding that is absent is mentioned."""

LUNG = ("Consolidation", "Lung Opacity", "Lung Lesion", "Atelectasis", "Edema")
PLEURA = ("Pleural Effusion", "Pneumothorax")
HEART, BONES, DEVICES = ("Cardiomegaly",), ("Fracture",), ("Support Devices",)
CLEAR = ("Consolidation", "Lung Opacity")
"""What is absent from lungs that are clear."""
ORDERS = (
    (DEVICES, HEART, LUNG, PLEURA, BONES),
    (HEART, LUNG, PLEURA, BONES, DEVICES),
    (LUNG, PLEURA, HEART, BONES, DEVICES),
    (DEVICES, LUNG, PLEURA, HEART, BONES),
    (LUNG, HEART, PLEURA, DEVICES, BONES),
)


@dataclass(frozen=True)
class Mention:
    """What one phrase of a sentence states of one finding: 1 present, 0 absent, -1 uncertain."""

    name: str
    state: float
    phrase: str


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report.

    Args:
        section: "EXAM", "INDICATION", "COMPARISON", "TECHNIQUE", "FINDINGS" or "IMPRESSION".
        text: the sentence, from its capital to its period.
        mentions: what it states; empty where it speaks of no finding.
    """

    section: str
    text: str
    mentions: tuple[Mention, ...] = ()


def compose_report(findings: Sequence[Finding], draws: Draws) -> tuple[str, dict[str, float]]:
    """The report of a study, and what it states.

    Args:
        findings: what is present, at most one of each name.
        draws: the choices of words.

    Returns:
        The text, and a state for each finding that the text mentions: 1 present, 0 absent, -1 uncertain. "No Finding" is always
        among them: 1 where nothing but devices is stated or hedged, else 0.

    Example:
        >>> text, states = compose_report([Finding("Pneumothorax", "severe", "left", "upper")], Draws(0, "report"))
        >>> "left" in text.lower(), "right" in text.lower(), states["Pneumothorax"], states["No Finding"]
        (True, False, 1.0, 0.0)
    """
    sentences = compose_sentences(findings, draws)
    return _lay_out(sentences, draws), stated(sentences)


def stated(sentences: Sequence[Sentence]) -> dict[str, float]:
    """The states that the sentences of one report state, and "No Finding", which follows from them."""
    states = {mention.name: mention.state for sentence in sentences for mention in sentence.mentions}
    found = any(state != ABSENT for name, state in states.items() if name != "Support Devices")
    return {"No Finding": float(not found), **states}


def compose_sentences(findings: Sequence[Finding], draws: Draws) -> list[Sentence]:
    """The sentences of a report in their order, each with what it states."""
    preamble = _preamble(draws) if draws.chance(0.35) else []
    if not findings and draws.chance(0.3):
        return preamble + _short_normal(draws)
    present = {finding.name: finding for finding in findings}
    states, described = _decide(present, draws)
    sections = draws.weighted([("both", 0.8), ("findings", 0.1), ("impression", 0.1)])
    body = _findings(states, described, draws) if sections != "impression" else []
    ending = _impression(states, described, draws, whole=not body) if sections != "findings" else []
    return preamble + body + ending


def _decide(present: dict[str, Finding], draws: Draws) -> tuple[dict[str, float], dict[str, Finding]]:
    """What the report states of which finding, and the finding that it describes where it states or hedges one."""
    states, described = {}, dict(present)
    for name in DRAWABLE:
        finding = present.get(name)
        if finding is not None:
            hedged = name in phrases.UNCERTAIN and finding.severity == "mild" and draws.chance(HEDGED_MILD)
            states[name] = UNCERTAIN if hedged else PRESENT
        elif draws.chance(MENTIONED[name]):
            hedged = name in phrases.UNCERTAIN and draws.chance(HEDGED_ABSENT)
            states[name] = UNCERTAIN if hedged else ABSENT
            if hedged:
                zone = "lower" if name == "Atelectasis" else draws.pick(ZONES)
                described[name] = Finding(name, "mild", draws.pick(("right", "left")), zone)
    # "No opacity" would deny whatever else whitens the lung.
    if states.get("Lung Opacity") == ABSENT and any(name in described for name in LUNG):
        del states["Lung Opacity"]
    return states, described


def _findings(states: dict[str, float], described: dict[str, Finding], draws: Draws) -> list[Sentence]:
    denied = [name for name in DRAWABLE if states.get(name) == ABSENT]
    groups: dict[tuple[str, ...], list[Sentence]] = {LUNG: [], PLEURA: [], HEART: [], BONES: [], DEVICES: []}
    for group, sentences in groups.items():
        for name in draws.shuffled(group) if len(group) > 1 else group:
            if name in described:
                sentences.append(_sentence("FINDINGS", _mention(described[name], states[name], draws)))
    if not any(name in described for name in LUNG) and draws.chance(0.6):
        groups[LUNG].append(_denial("FINDINGS", CLEAR, draws.pick(phrases.LUNGS_CLEAR)))
        denied = [name for name in denied if name not in CLEAR]
    listed = [name for name in draws.shuffled(denied) if name in phrases.LISTED][: draws.pick((2, 3, 3, 4))]
    if len(listed) > 1 and draws.chance(0.65):
        groups[PLEURA].append(_denial("FINDINGS", listed, _listing(listed, draws)))
        denied = [name for name in denied if name not in listed]
    for group, sentences in groups.items():
        for name in group:
            if name in denied:
                form = draws.pick(phrases.ABSENT[name])
                sentences.append(_denial("FINDINGS", [name], form.replace("{seen}", draws.pick(SEEN))))
    if draws.chance(0.25):
        groups[HEART].append(Sentence("FINDINGS", draws.pick(remarks.NEUTRAL)))
    if any(name != "Support Devices" for name in described) and draws.chance(0.15):
        groups[BONES].append(Sentence("FINDINGS", draws.pick(remarks.INCIDENTAL)))
    body = [sentence for group in draws.pick(ORDERS) for sentence in groups[group]]
    return body or [_denial("FINDINGS", CLEAR, phrases.LUNGS_CLEAR[0])]


def _impression(states: dict[str, float], described: dict[str, Finding], draws: Draws, whole: bool) -> list[Sentence]:
    """The findings once more in other words; all of them where this is the ``whole`` report."""
    names = list(described)
    out = []
    if all(name == "Support Devices" for name in described):
        out.append(Sentence("IMPRESSION", draws.pick(remarks.NORMAL_IMPRESSIONS)))
    if not whole and len(names) > 3:
        names = names[: draws.pick((3, len(names)))]
    waiting: list[Mention] = []  # a noun phrase that may be joined with the next
    for name in draws.shuffled(names):
        if states[name] == PRESENT and name in phrases.BRIEF and draws.chance(0.7):
            phrase = draws.pick(phrases.BRIEF[name]).format_map(slots(described[name], draws))
            waiting.append(Mention(name, PRESENT, phrase))
            if len(waiting) == 2 or draws.chance(0.5):
                out.append(_sentence("IMPRESSION", *waiting))
                waiting = []
        else:
            out.append(_sentence("IMPRESSION", _mention(described[name], states[name], draws)))
    if waiting:
        out.append(_sentence("IMPRESSION", *waiting))
    denied = [name for name in ("Pneumothorax", "Pleural Effusion") if states.get(name) == ABSENT]
    if denied and draws.chance(0.6 if whole else 0.15):
        out.append(_denial("IMPRESSION", denied[:1], draws.pick(phrases.ABSENT[denied[0]][:2])))
    if names and draws.chance(0.2):
        out.append(Sentence("IMPRESSION", draws.pick(remarks.ADVICE)))
    return out


def _preamble(draws: Draws) -> list[Sentence]:
    choices = {
        "EXAM": remarks.EXAMS,
        "INDICATION": remarks.INDICATIONS,
        "COMPARISON": remarks.COMPARISONS,
        "TECHNIQUE": remarks.TECHNIQUES,
    }
    return [Sentence(section, draws.pick(options)) for section, options in choices.items() if draws.chance(0.6)]


def _short_normal(draws: Draws) -> list[Sentence]:
    *body, (ending, _) = draws.pick(remarks.SHORT_NORMAL)
    return [_denial("FINDINGS", names, text) for text, names in body] + [Sentence("IMPRESSION", ending)]


def _mention(finding: Finding, state: float, draws: Draws) -> Mention:
    """A whole sentence, less its capital, that states or hedges the finding."""
    if finding.name == "Support Devices":
        forms = phrases.DEVICE_FORMS[finding.location]
    else:
        forms = (phrases.PRESENT if state == PRESENT else phrases.UNCERTAIN)[finding.name]
    return Mention(finding.name, state, draws.pick(forms).format_map(slots(finding, draws)))


def _sentence(section: str, *mentions: Mention) -> Sentence:
    text = " and ".join(mention.phrase for mention in mentions)
    return Sentence(section, text[0].upper() + text[1:].rstrip(".") + ".", mentions)


def _denial(section: str, names: Sequence[str], text: str) -> Sentence:
    return Sentence(section, text, tuple(Mention(name, ABSENT, text) for name in names))


def _listing(names: Sequence[str], draws: Draws) -> str:
    nouns = [draws.pick(phrases.LISTED[name]) for name in names]
    comma = ", " if len(nouns) > 2 and draws.chance(0.5) else " "
    listed = ", ".join(nouns[:-1]) + comma + "or " + nouns[-1]
    return draws.pick(phrases.LIST_FORMS).format(list=listed, seen=draws.pick(SEEN))


def _lay_out(sentences: Sequence[Sentence], draws: Draws) -> str:
    """The sentences under their headers; one style of header, of wrapping and of numbering for the whole report."""
    case = draws.weighted([(str.upper, 0.65), (str.capitalize, 0.35)])
    break_after_header = draws.chance(0.25)
    colon = "" if break_after_header and draws.chance(0.4) else ":"
    numbered, gap = draws.chance(0.3), draws.pick(("\n", "\n", "\n\n"))
    width = draws.pick((60, 70, 80)) if draws.chance(0.25) else 0
    sections: dict[str, list[str]] = {}
    for sentence in sentences:
        sections.setdefault(sentence.section, []).append(sentence.text)
    if "FINDINGS" in sections and draws.chance(0.05):  # a few put the impression first
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
