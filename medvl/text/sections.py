"""Sections of a report."""

from __future__ import annotations

from collections import Counter

from medvl.text.headers import section_name
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span


def extract_sections(text: str) -> dict[str, Span]:
    """Find the sections of a report by their headers.

    A header is one of :data:`~medvl.text.headers.SECTION_ALIASES`, or several ("FINDINGS AND IMPRESSION": the first
    counts), with a colon or a dash at the start of a line or sentence, alone on its line, or capitalized with a colon
    anywhere; marks around it (``**FINDINGS**``, ``[FINDINGS]``, ``1. FINDINGS``) are ignored. Sub-headers such as
    ``LUNGS:`` belong to their section.
    A section extends to the next header. A repeated name (the second IMPRESSION of an addendum) gets a number:
    ``"impression 2"``.

    Args:
        text: the report.

    Returns:
        Normalized name to the span of the section's content, without header and surrounding white space, in the order
        of the text. A header without content has an empty span. Text before the first header is in no section, and a
        report without headers gives an empty dictionary.

    Raises:
        TypeError: If ``text`` is not a string.

    Example:
        >>> text = "INDICATION: Cough.  FINDINGS: Clear lungs.  OPINION: Normal."
        >>> {name: text[a:b] for name, (a, b) in extract_sections(text).items()}
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'Normal.'}
    """
    sections: dict[str, Span] = {}
    seen: Counter[str] = Counter()
    key = None
    for start, end in split_sentences(text):
        if (name := section_name(text[start:end])) is not None:
            seen[name] += 1
            key = name if seen[name] == 1 else f"{name} {seen[name]}"
            sections[key] = Span(end, end)
        elif key is not None:
            first, last = sections[key]
            sections[key] = Span(start if first == last else first, end)
    return sections
