"""Sections of a report, by their headers."""

from __future__ import annotations

from collections import Counter

from medvl.text.headers import section_name
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span


def extract_sections(text: str) -> dict[str, Span]:
    """Find the sections of a report, by the headers that radiologists write.

    A header is one of :data:`SECTION_ALIASES`, or several ("FINDINGS AND IMPRESSION": the first counts), with a colon or
    a dash at the start of a line or sentence, alone on its line, or capitalised with a colon anywhere; marks around it
    (``**FINDINGS**``, ``[FINDINGS]``, ``1. FINDINGS``) do not matter. Sub-headers such as ``LUNGS:`` stay inside their
    section. A section runs to the next header. A name that comes again (an addendum's second IMPRESSION) gets a number:
    ``"impression 2"``.

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
