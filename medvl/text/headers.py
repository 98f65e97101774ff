"""Section headers of reports, such as FINDINGS and IMPRESSION, with one name for all aliases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

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
"""Name of a section -> the headers that reports write for it, in lower case."""

# Words before an alias that do not change the section.
_QUALIFIERS = (
    *("radiologic", "radiological", "radiographic", "radiologist", "radiologist's"),
    *("imaging", "ct", "mri", "cxr", "xr", "chest", "final", "overall"),
)
_NAME_OF_ALIAS = {
    f"{word} {alias}": name
    for name in ("findings", "impression")
    for alias in SECTION_ALIASES[name]
    for word in _QUALIFIERS
}
_NAME_OF_ALIAS |= {alias: name for name, aliases in SECTION_ALIASES.items() for alias in aliases}
# A word that is a header only with its colon: "Clinical correlation" may break behind its first word.
_NAME_WITH_COLON = {"clinical": "indication"}
_COLONS = (":", "\uff1a")
_MIN_MISSPELLED_LENGTH = 7


def _misspellings(alias: str) -> Iterator[str]:
    """The header with one letter missing, doubled or swapped with the next in one of its long words, not the first."""
    words = alias.split()
    for index, word in enumerate(words):
        if len(word) < _MIN_MISSPELLED_LENGTH:
            continue
        for place in range(1, len(word)):
            for letters in (
                word[place + 1 :],
                word[place] + word[place:],
                word[place + 1 : place + 2] + word[place] + word[place + 2 :],
            ):
                yield " ".join((*words[:index], word[:place] + letters, *words[index + 1 :]))


_NAME_OF_ALIAS = {
    wrong: _NAME_OF_ALIAS[alias] for alias in _NAME_OF_ALIAS for wrong in _misspellings(alias)
} | _NAME_OF_ALIAS
# The last word of every header, which is a fast test.
_LAST_WORD = re.compile(r"[a-z]+\Z")
_MAX_WORD_LENGTH = 20
_LAST_WORDS = {alias[alias.rfind(" ") + 1 :] for alias in _NAME_OF_ALIAS}


def _may_be_header(text: str) -> bool:
    last = _LAST_WORD.search(text, max(0, len(text) - _MAX_WORD_LENGTH))
    return (last is not None and last[0] in _LAST_WORDS) or text.endswith(")")


_MAX_HEADER_LENGTH = 60
# Characters around a header: bullets, rules, Markdown, brackets, a byte order mark.
_MARKS = "#*_[]<>:\uff1a-\u2013\u2014=|\u2022\ufeff\u200b \t\n\r\f\v\xa0"
_NUMBER = re.compile(r"\(?[0-9]{1,2}[.)][ \t]")
_PARENTHESIS = re.compile(r"\([^()]*\)\Z")
_CONJUNCTION = re.compile(r"[/&+,]|\band\b")
_WORD_START = re.compile(r"(?:(?<![^\s.;!?])|\A)[^\s.;!?]")


def is_header(text: str) -> bool:
    """Whether ``text`` is a section header and nothing else, in any case, with or without a colon.

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
    """The normalized section name of a header, or None if ``text`` is not a header.

    Marks, a leading number, a remark in parentheses at the end and words such as "radiologist's" are ignored; of several
    names the first counts.

    Args:
        text: a line or a sentence.

    Returns:
        A key of :data:`SECTION_ALIASES`, or None.

    Example:
        >>> section_name("OPINION:"), section_name("## Chest findings / impression"), section_name("Opinions differ.")
        ('impression', 'findings', None)
    """
    return _section_name(text) if len(text) <= _MAX_HEADER_LENGTH else None


@lru_cache(maxsize=4096)  # reports repeat their headers
def _section_name(text: str) -> str | None:
    ends_in_colon = text.rstrip().endswith(_COLONS)
    text = text.strip(_MARKS).lower()
    if ends_in_colon and text in _NAME_WITH_COLON:
        return _NAME_WITH_COLON[text]
    if text in _NAME_OF_ALIAS or not _may_be_header(text):
        return _NAME_OF_ALIAS.get(text)
    text = _PARENTHESIS.sub("", _NUMBER.sub("", text, count=1)).strip(_MARKS)
    names = [_NAME_OF_ALIAS.get(" ".join(part.split())) for part in _CONJUNCTION.split(text)]
    return names[0] if all(names) else None


def header_start(text: str, start: int, end: int) -> int | None:
    """Find where the header begins that a colon or dash ends.

    Inside a sentence a header must follow the end of a line or a terminator, be capitalized and end in a colon, or be in
    capitals.

    Args:
        text: the report.
        start: the search does not go back beyond this offset.
        end: offset of the colon, dash or bracket.

    Returns:
        The offset of the header, or None if there is none.
    """
    low = max(start, end - _MAX_HEADER_LENGTH)
    whole = text[low:end].strip(_MARKS).lower()
    if low == start and (whole in _NAME_OF_ALIAS or (whole in _NAME_WITH_COLON and text[end] in _COLONS)):
        return start
    if not _may_be_header(whole):
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
