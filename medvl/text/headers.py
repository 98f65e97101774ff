"""Section headers of reports, such as FINDINGS and IMPRESSION, with one name for all aliases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

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
# A word that is a header only with its colon: "Clinical correlation" may break behind its first word.
_NAME_WITH_COLON = {"clinical": "indication", "chest": "findings", "cxr": "findings"}
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


# The last word of every header, which is a fast test.
_LAST_WORD = re.compile(r"[^\W\d_]+\Z")
_MAX_WORD_LENGTH = 20
_MAX_HEADER_LENGTH, _MAX_KNOWN = 60, 4096
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


class Headers:
    """The headers of reports in one language.

    Args:
        aliases: name of a section -> the headers that reports write for it, in lower case.
        qualifiers: words before a header of findings or of the impression that do not change the section.
        with_colon: words that are a header only with a colon behind, each with the name of its section.

    Attributes:
        aliases: ``aliases``, as they were given.
    """

    def __init__(
        self,
        aliases: Mapping[str, Sequence[str]],
        qualifiers: Sequence[str] = (),
        with_colon: Mapping[str, str] | None = None,
    ) -> None:
        self.aliases = dict(aliases)
        self._qualifiers, self._with_colon = tuple(qualifiers), dict(with_colon or {})
        names = {
            f"{word} {alias}": name
            for name in ("findings", "impression")
            for alias in aliases.get(name, ())
            for word in qualifiers
        }
        names |= {alias: name for name, written in aliases.items() for alias in written}
        self._names = {wrong: names[alias] for alias in names for wrong in _misspellings(alias)} | names
        self._last_words = {alias[alias.rfind(" ") + 1 :] for alias in self._names}
        self._known: dict[str, str | None] = {}
        self._known_starts: set[str] = set()

    def with_aliases(self, aliases: Mapping[str, Sequence[str]]) -> Headers:
        """The same with other aliases."""
        return Headers(aliases, self._qualifiers, self._with_colon)

    def name(self, text: str) -> str | None:
        """The section of a header, or None if ``text`` is not a header; see ``section_name``."""
        if len(text) > _MAX_HEADER_LENGTH:
            return None
        if text not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[text] = self._find_name(text)
        return self._known[text]

    def _find_name(self, text: str) -> str | None:
        ends_in_colon = text.rstrip().endswith(_COLONS)
        text = text.strip(_MARKS).lower()
        if ends_in_colon and text in self._with_colon:
            return self._with_colon[text]
        if text in self._names or not self._may_be_header(text):
            return self._names.get(text)
        text = _PARENTHESIS.sub("", _NUMBER.sub("", text, count=1)).strip(_MARKS)
        names = [self._names.get(" ".join(part.split())) for part in _CONJUNCTION.split(text)]
        return names[0] if all(names) else None

    def _may_be_header(self, text: str) -> bool:
        last = _LAST_WORD.search(text, max(0, len(text) - _MAX_WORD_LENGTH))
        return (last is not None and last[0] in self._last_words) or text.endswith(")")

    def start(self, text: str, start: int, end: int) -> int | None:
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
        raw = text[low:end]
        if low == start and raw in self._known_starts:
            return start
        whole = raw.strip(_MARKS).lower()
        if low == start and whole in self._names:
            if len(self._known_starts) < _MAX_KNOWN:
                self._known_starts.add(raw)
            return start
        if low == start and whole in self._with_colon and text[end] in _COLONS:
            return start
        if not self._may_be_header(whole):
            return None
        for word in _WORD_START.finditer(text, low, end):
            place = word.start()
            if self.name(text[place:end]) is None:
                continue
            before = text[low:place].rstrip(" \t\xa0")
            letters = text[place:end].strip(_MARKS)
            if before[-1:] in "\n\r.;!?" or letters.isupper() or (text[end] in ":\uff1a" and letters[:1].isupper()):
                return place
        return None


ENGLISH_HEADERS = Headers(SECTION_ALIASES, _QUALIFIERS, _NAME_WITH_COLON)


def section_name(text: str, headers: Headers = ENGLISH_HEADERS) -> str | None:
    """The normalized section name of a header, or None if ``text`` is not a header.

    Marks, a leading number, a remark in parentheses at the end and words such as "radiologist's" are ignored; of several
    names the first counts.

    Args:
        text: a line or a sentence.
        headers: the headers to look for.

    Returns:
        A key of :data:`SECTION_ALIASES`, or None.

    Example:
        >>> section_name("OPINION:"), section_name("## Chest findings / impression"), section_name("Opinions differ.")
        ('impression', 'findings', None)
    """
    return headers.name(text)
