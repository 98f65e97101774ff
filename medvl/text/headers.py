"""Headers of a report's sections: FINDINGS, IMPRESSION and the like, under one name for each alias."""

from __future__ import annotations

import re

SECTION_ALIASES: dict[str, tuple[str, ...]] = {
    "findings": (
        "findings",
        "finding",
        "observations",
        "observation",
        "report",
        "description",
        "discussion",
        "narrative",
        "results",
        "result",
    ),
    "impression": (
        "impression",
        "impressions",
        "imp",
        "conclusion",
        "conclusions",
        "opinion",
        "summary",
        "interpretation",
        "assessment",
        "diagnosis",
    ),
    "indication": (
        "indication",
        "indications",
        "clinical indication",
        "clinical information",
        "clinical info",
        "clinical data",
        "clinical details",
        "clinical question",
        "clinical statement",
        "reason for exam",
        "reason for examination",
        "reason for study",
        "reason for request",
        "reason for this exam",
        "reason for this examination",
        "reason for this study",
        "reason",
        "chief complaint",
    ),
    "history": (
        "history",
        "hx",
        "clinical history",
        "clinical hx",
        "medical history",
        "past medical history",
        "pmh",
        "hpi",
        "medical condition",
        "patient history",
    ),
    "comparison": (
        "comparison",
        "comparisons",
        "comp",
        "comparison study",
        "comparison studies",
        "comparison exam",
        "correlation",
        "prior study",
        "prior studies",
        "prior exam",
        "prior exams",
    ),
    "technique": ("technique", "techniques", "procedure", "protocol", "technical factors"),
    "examination": ("examination", "exam", "study", "type of exam", "type of examination", "exam type", "views"),
    "recommendation": ("recommendation", "recommendations", "plan"),
    "addendum": ("addendum",),
    "notification": ("notification", "notifications"),
    "wet read": ("wet read", "preliminary report", "prelim"),
    "final report": ("final report",),
}

# Words before an alias that do not change which section it is.
_QUALIFIERS = (
    *("radiologic", "radiological", "radiographic", "radiologist", "radiologist's"),
    *("imaging", "ct", "mri", "cxr", "xr", "chest", "final", "overall"),
)
_CANONICAL = {
    f"{word} {alias}": name
    for name in ("findings", "impression")
    for alias in SECTION_ALIASES[name]
    for word in _QUALIFIERS
}
_CANONICAL |= {alias: name for name, aliases in SECTION_ALIASES.items() for alias in aliases}
# A header ends in one of these, which is quickly seen.
_ENDINGS = (*{alias.split()[-1] for alias in _CANONICAL}, ")")
_LONGEST = 60
# Marks around a header: bullets, rules, Markdown, brackets, a byte order mark.
_MARKS = "#*_[]<>:\uff1a-\u2013\u2014=|\u2022\ufeff\u200b \t\n\r\f\v\xa0"
_NUMBER = re.compile(r"\(?[0-9]{1,2}[.)][ \t]")
_ASIDE = re.compile(r"\([^()]*\)\Z")
_JOINT = re.compile(r"[/&+,]|\band\b")
_WORD_START = re.compile(r"(?:(?<![^\s.;!?])|\A)[^\s.;!?]")


def is_header(text: str) -> bool:
    """Say whether ``text`` is nothing but a section's header, in any case, with or without its colon.

    Args:
        text: a line or a sentence.

    Returns:
        True for a known header.

    Example:
        >>> is_header("FINDINGS:"), is_header("Reason for exam"), is_header("Findings are stable.")
        (True, True, False)
    """
    return section_name(text) is not None


def section_name(text: str) -> str | None:
    """The normalised name of the section that ``text`` is the header of, or None where it is no header.

    Marks, a number before it, a remark in brackets behind it and words like "radiologist's" do not matter; of several
    names the first counts.

    Args:
        text: a line or a sentence.

    Returns:
        A key of :data:`SECTION_ALIASES`.

    Example:
        >>> section_name("OPINION:"), section_name("## Chest findings / impression"), section_name("Opinions differ.")
        ('impression', 'findings', None)
    """
    if len(text) > _LONGEST:
        return None
    text = text.strip(_MARKS).lower()
    if text in _CANONICAL or not text.endswith(_ENDINGS):
        return _CANONICAL.get(text)
    text = _ASIDE.sub("", _NUMBER.sub("", text, count=1)).strip(_MARKS)
    names = [_CANONICAL.get(" ".join(part.split())) for part in _JOINT.split(text)]
    return names[0] if all(names) else None


def header_start(text: str, start: int, end: int) -> int | None:
    """Where the header begins that the colon or dash at ``end`` ends, looking no further back than ``start``.

    Inside a sentence a header must follow a line's end or a full stop, or be capitalised and have a colon, or be in
    capitals.
    """
    low = max(start, end - _LONGEST)
    whole = text[low:end].strip(_MARKS).lower()
    if low == start and whole in _CANONICAL:
        return start
    if not whole.endswith(_ENDINGS):
        return None
    for word in _WORD_START.finditer(text, low, end):
        place = word.start()
        if not is_header(text[place:end]):
            continue
        before = text[low:place].rstrip(" \t\xa0")
        letters = text[place:end].strip(_MARKS)
        if before[-1:] in "\n\r.;!?" or letters.isupper() or (text[end] in ":\uff1a" and letters[:1].isupper()):
            return place
    return None
