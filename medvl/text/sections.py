"""Sections of a report: FINDINGS, IMPRESSION and the like, under one name for each alias."""

from __future__ import annotations

import re
from collections import Counter

from medvl.text.spans import Span, require_text

SECTION_ALIASES: dict[str, tuple[str, ...]] = {
    "findings": (
        "findings",
        "finding",
        "findings and impression",
        "findings/impression",
        "observations",
        "observation",
        "report",
        "description",
        "results",
        "result",
        "chest findings",
        "radiographic findings",
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
        "final impression",
    ),
    "indication": (
        "indication",
        "indications",
        "clinical indication",
        "clinical information",
        "clinical data",
        "clinical details",
        "reason for exam",
        "reason for examination",
        "reason for study",
        "reason for this examination",
        "reason",
    ),
    "history": ("history", "clinical history", "medical history", "patient history"),
    "comparison": (
        "comparison",
        "comparisons",
        "comparison study",
        "comparison studies",
        "prior studies",
        "comparison exam",
    ),
    "technique": ("technique", "techniques", "procedure", "protocol", "technical factors"),
    "examination": ("examination", "exam", "study", "type of exam", "type of examination", "views"),
    "recommendation": ("recommendation", "recommendations"),
    "addendum": ("addendum",),
    "notification": ("notification", "notifications"),
    "wet read": ("wet read", "preliminary report", "prelim"),
    "final report": ("final report",),
}

_CANONICAL = {alias: name for name, aliases in SECTION_ALIASES.items() for alias in aliases}
_LONGEST_ALIAS = max(map(len, _CANONICAL))


def _alternatives(aliases: list[str]) -> str:
    return "|".join(re.escape(alias).replace(r"\ ", r"[ \t]{1,3}") for alias in sorted(aliases, key=len, reverse=True))


_ANY_CASE = _alternatives(list(_CANONICAL))
_UPPER = _alternatives([alias.upper() for alias in _CANONICAL])
_TITLE_OR_UPPER = _alternatives([form for alias in _CANONICAL for form in (alias.upper(), alias.capitalize())])

# Three ways to write a header: with a colon where a sentence may begin; alone on its line; in capitals anywhere, with a
# colon. Every repetition is bounded, so that no text makes the search go back over itself.
_HEADER = re.compile(
    rf"(?:\A|(?<=[\n\r.!?;]))[^\S\n\r]{{0,20}}(?P<colon>(?i:{_ANY_CASE}))[^\S\n\r]{{0,5}}:"
    rf"|(?:\A|(?<=[\n\r]))[^\S\n\r]{{0,20}}(?P<alone>{_TITLE_OR_UPPER})[^\S\n\r]{{0,20}}(?=[\n\r])"
    rf"|(?:(?<=\s)|\A)(?P<inline>{_UPPER})(?::|[ ]-(?=\s))"
)
_INLINE_TAIL = re.compile(rf"(?:(?<=\s)|(?<=[.;])|\A)(?:{_UPPER})\Z")


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

    Args:
        text: a line or a sentence.

    Returns:
        A key of :data:`SECTION_ALIASES`.

    Example:
        >>> section_name("OPINION:"), section_name("Opinions differ.")
        ('impression', None)
    """
    text = text.strip()
    if len(text) > _LONGEST_ALIAS + 2:
        return None
    return _CANONICAL.get(" ".join(text.rstrip(":").lower().split()))


def header_start(text: str, start: int, colon: int) -> int | None:
    """Where the header begins that the colon at ``colon`` ends, looking no further back than ``start``."""
    if colon - start <= _LONGEST_ALIAS + 1 and is_header(text[start:colon]):
        return start
    low = max(start, colon - _LONGEST_ALIAS)
    found = _INLINE_TAIL.search(text[low:colon])
    return low + found.start() if found else None


def extract_sections(text: str) -> dict[str, Span]:
    """Find the sections of a report, by the headers that radiologists write.

    A header is one of :data:`SECTION_ALIASES` at the start of a line or sentence with a colon, alone on its line, or in
    capitals with a colon anywhere. Sub-headers such as ``LUNGS:`` stay inside their section. A section runs to the next
    header. A name that comes again (an addendum's second IMPRESSION) gets a number: ``"impression 2"``.

    Args:
        text: the report.

    Returns:
        Normalised name to the span of the section's content, without header and surrounding white space, in the order
        of the text. A header with nothing under it has an empty span. Text before the first header is in no section;
        a report without headers gives an empty dictionary.

    Raises:
        TypeError: if ``text`` is not a string.

    Example:
        >>> text = "INDICATION: Cough.  FINDINGS: Clear lungs.  OPINION: Normal."
        >>> {name: text[a:b] for name, (a, b) in extract_sections(text).items()}
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'Normal.'}
    """
    require_text(text)
    headers = []
    for match in _HEADER.finditer(text):
        kind = match.lastgroup or "colon"
        headers.append((match.start(kind), match.end(), _CANONICAL[" ".join(match[kind].lower().split())]))
    sections: dict[str, Span] = {}
    seen: Counter[str] = Counter()
    for index, (_, begin, name) in enumerate(headers):
        end = headers[index + 1][0] if index + 1 < len(headers) else len(text)
        content = text[begin:end]
        start = begin + len(content) - len(content.lstrip())
        stop = begin + len(content.rstrip())
        seen[name] += 1
        key = name if seen[name] == 1 else f"{name} {seen[name]}"
        sections[key] = Span(start, stop) if stop > start else Span(begin, begin)
    return sections
