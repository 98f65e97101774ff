"""Sentence segmentation that keeps every character of a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from medvl.text.headers import ENGLISH_HEADERS, Headers
from medvl.text.spans import Span
from medvl.utils.checks import check_text

_BREAK = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

# One pass over the text stops at each possible end of a sentence. The leading character class lets the regular expression
# engine skip plain text; the look-behinds select the branch. No branch can fail after an unbounded repetition. The first
# branch decides most cases alone: a full stop behind a word that does not end as an abbreviation (TAILS) does.
_CANDIDATE = rf"""[.!?:\uff1a\[\](0-9\-\u2013\u2014{_BREAK}](?:
        (?<=[a-z]{{4}}\.)(?<!TAILS)(?P<certain>[ \n](?=[A-Z])|\Z)
      | (?<=[.!?])[.!?]*(?:["')\]>\u201d\u2019]|&gt;)*   # terminators with closing quotes and brackets
      | (?<=[{_BREAK}])\s*                               # a line's end and the blank lines after it
      | (?<=[:\uff1a\]])[*\]:]*                           # what may end a header: a colon, a bracket
      | (?<=[-\u2013\u2014])(?=\s)                        # or a dash
      | (?<=\[)\*\*[^\[\]]{{0,200}}\]                    # [** a de-identification mark **]
      | (?<=[0-9])[0-9]?[.)](?=\s|[A-Z][a-z])            # 1. or 1)
      | (?<=\()[0-9]{{1,2}}\)(?=\s)                      # (1)
    )"""
_LINE_BREAK = re.compile(rf"[{_BREAK}]")
_NON_SPACE = re.compile(r"\S")
_WORD = re.compile(r"\w")
_NEXT_WORD = re.compile(r"\S{1,40}")
_ITEM = re.compile(r"[-*+>\u2022\u2023\u25e6\u25aa\u00b7\u2013\u2014](?=\s)|\(?[0-9]{1,2}[.)](?=\s)|[a-zA-Z][.)](?=\s)")
# "Pneumothorax: no" is complete.
_ANSWER = re.compile(r"[:=]\s{0,20}(?i:no)\Z")
# A line that begins with a heading of its own: "LUNGS:", "Pleura: no effusion".
_HEADING = re.compile(rf"[^:.!?{_BREAK}]{{1,40}}:")
_GLUED_ITEM = re.compile(r"[0-9]{1,2}[.)]\s?[A-Z]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_ENDS = _words("dr mr mrs ms prof vs e.g i.e eg ie cf fig figs st approx evid pulm sig mod def")
_ENDS_BEFORE_CAPITAL = _words(
    """
    a.m p.m am pm etc jr sr m.d md ph.d u.s u.k inc ltd dept hosp no nos ca resp bilat rt lt sm lg incl
    max min avg hx dx tx fx sx rx w wt ht poss prob neg pos temp est ref vol dist ant post lat sup inf med pt
    pts pg yr yrs mo mos wk wks hr hrs sec appt exam tel ext seg segm adv mm cm ml cc
    jan feb mar apr jun jul aug sep sept oct nov dec
    """
)
_UNITS = ("cm", "mm", "ml", "cc", "%", "x ")
_TITLES = _words("dr mr mrs ms prof")
# A single letter after one of these is part of a name and not a person's initial: "Hepatitis C."
_LETTERED = _words("hepatitis vitamin type stage grade class group influenza segment figure panel image view protein")
# The marks of de-identification replace words whose case is unknown.
_PLACEHOLDER = re.compile(r"XX|__|\[\*")
_STARTERS = _words(
    """
    the there no this these a an in on at as it its lungs lung heart cardiac mediastinum pleural normal stable
    chest patient he she they both right left bilateral mild moderate small large again and or but is was if
    """
)
_CONTINUES = _words(
    """
    and or nor the a an of with without in on at to for by from into over is are was were be been has have no
    not which that this these than as but may might could also
    """
)
# A number after one of these words is a count or a measure and not the number of a list item.
_COUNTED = _words(
    """
    day days level grade stage type rib ribs figure fig image images view views page number no least than of
    to by x and or segment zone lobe approximately about only within over hour hours week weeks covid t l c
    patient case exam study film rate through from at in is measures score class group phase series slice version xxxx
    """
)
# Widths, in characters, that reports are wrapped to.
_MIN_WRAP_WIDTH, _MAX_WRAP_WIDTH = 60, 100
_MAX_HEADING_LENGTH, _MAX_LINE_HEADING_LENGTH = 25, 40
# A word with so many letters is no abbreviation, unless its last ones are those of an abbreviation.
_TAIL_LENGTH = 4


@dataclass(frozen=True)
class SentenceConventions:
    """What the splitting of sentences knows of a language.

    Args:
        headers: the headers of sections.
        abbreviations: words that end no sentence with their full stop, in lower case without it: "dr".
        closing_abbreviations: words that end a sentence with their full stop if a capital follows: "a.m".
        units: what may follow a number that goes on behind its full stop: "1. 5 cm".
        counted: what an ordinal number such as "6." may count, in lower case, in languages that write one so.
    """

    headers: Headers = field(default_factory=lambda: ENGLISH_HEADERS)
    abbreviations: frozenset[str] = field(default_factory=lambda: _NEVER_ENDS)
    closing_abbreviations: frozenset[str] = field(default_factory=lambda: _ENDS_BEFORE_CAPITAL)
    units: tuple[str, ...] = _UNITS
    counted: tuple[str, ...] = ()

    @cached_property
    def abbreviation_tails(self) -> frozenset[str]:
        """The last letters of the abbreviations that have as many, which is a fast test."""
        return frozenset(word[-_TAIL_LENGTH:] for word in self.abbreviations | self.closing_abbreviations)

    @cached_property
    def candidate(self) -> re.Pattern[str]:
        """Matches each possible end of a sentence; group ``certain`` is the white space behind one that surely is."""
        tails = [
            f"{tail}\\." for tail in sorted(self.abbreviation_tails) if re.fullmatch(rf"[a-z]{{{_TAIL_LENGTH}}}", tail)
        ]
        return re.compile(_CANDIDATE.replace("TAILS", "|".join(tails) or "(?!)"), re.VERBOSE)

    @cached_property
    def measure(self) -> re.Pattern[str]:
        """Matches what goes on with a number behind its full stop."""
        measure = rf"[0-9]{{1,3}}\s?(?:{'|'.join(map(re.escape, self.units))})"
        return re.compile("|".join([measure, *(rf"(?i:{re.escape(word)})\b" for word in self.counted)]))


ENGLISH_CONVENTIONS = SentenceConventions()


def split_sentences(text: str, conventions: SentenceConventions = ENGLISH_CONVENTIONS) -> list[Span]:
    """Split a report into sentences that together contain every character outside white space.

    Decimals, titles, initials, abbreviations, clock times, numbered and bulleted lists, section headers (each a separate
    sentence), wrapped lines, lines without a terminator and de-identification marks are handled. A heading that is no
    section header, such as "HEART:", belongs to the sentence on the line below. Time is linear in the length of the text.

    Args:
        text: the report.
        conventions: headers, abbreviations and units of the report's language; those of a vocabulary are its ``conventions``.

    Returns:
        Spans in order, without overlap, each without white space at its ends; an empty list for white space alone. A
        fragment without a letter, digit or ``_`` is joined to its neighbor.

    Raises:
        TypeError: If ``text`` is not a string.

    Example:
        >>> text = "Effusion measures 1.5 cm. Dr. XXXX was told.\\n1. No pneumothorax 2. Stable heart"
        >>> [text[a:b] for a, b in split_sentences(text)]
        ['Effusion measures 1.5 cm.', 'Dr. XXXX was told.', '1. No pneumothorax', '2. Stable heart']
    """
    check_text(text)
    first = _NON_SPACE.search(text)
    if not first:
        return []
    return _Splitter(text, first.start(), conventions).split()


_new_span = tuple.__new__  # half the time of Span(start, end)


class _Splitter:
    """The state of one pass over a text.

    ``start`` is where the open sentence begins, ``content`` where its text begins behind the number of a list item, ``line``
    where the last line begins, ``item`` the number that the next list item would have, and ``searched`` how far the open
    sentence has been searched for a word.
    """

    def __init__(self, text: str, start: int, conventions: SentenceConventions) -> None:
        self.text, self.end, self.conventions = text, len(text), conventions
        self.start = self.content = start
        self.line = self.searched = 0
        self.item = 0
        self.spans: list[Span] = []
        self._wrap: int | None = None
        self._lower: bool | None = None

    def split(self) -> list[Span]:
        text, handlers = self.text, _HANDLERS
        for match in self.conventions.candidate.finditer(text):
            begin, end = match.span()
            if end <= self.start:
                continue
            if match.lastindex:
                self.spans.append(_new_span(Span, (self.start, begin + 1)))
                self.start = self.content = end
                if text.startswith("\n", begin + 1):
                    self.line = end
            elif (handler := handlers.get(text[begin])) is not None:
                handler(self, begin, end)
        stop = len(text.rstrip())
        if stop > self.start:
            self._close(stop, len(text))
            if not self.spans:
                self.spans.append(Span(self.start, stop))
        return self.spans

    def _close(self, stop: int, after: int) -> None:
        """End the sentence at ``stop``; the next one begins at the first non-blank character from ``after``.

        A fragment of punctuation joins the sentence before it, or the one after it if it is the first.
        """
        text, start = self.text, self.start
        if text[start].isalnum() or _WORD.search(text, max(start, self.searched), stop):
            self.spans.append(_new_span(Span, (start, stop)))
        elif self.spans:
            self.spans[-1] = Span(self.spans[-1].start, stop)
        else:
            self.searched = stop
            return
        blank = after
        if after < self.end and text[after] == " ":
            after += 1
        if after < self.end and text[after].isspace():
            found = _NON_SPACE.search(text, after)
            after = found.start() if found else self.end
            if _LINE_BREAK.search(text, blank, after):
                self.line = after
        self.start = self.content = after

    def _on_terminator(self, begin: int, end: int) -> None:
        """A full stop, exclamation or question mark may end a sentence."""
        text = self.text
        if end < len(text) and not text[end].isspace():
            if self._next_sentence_is_glued(begin, end):
                self._close(end, end)
        elif self._ends_plain_word(begin, end) or self._terminator_ends_sentence(begin, end):
            self._close(end, end)

    def _ends_plain_word(self, begin: int, end: int) -> bool:
        """Whether the mark at ``begin`` stands alone behind a word that is surely no abbreviation, as most do."""
        tail = self.text[begin - _TAIL_LENGTH : begin] if begin - _TAIL_LENGTH >= self.start else ""
        return end - begin == 1 and tail.isalpha() and tail.lower() not in self.conventions.abbreviation_tails

    def _next_sentence_is_glued(self, begin: int, end: int) -> bool:
        """Whether the next sentence follows without a space, as in ``clear.The heart``."""
        text = self.text
        if begin < 2 or text[begin] != "." or not text[begin - 2 : begin].isalpha():
            return False
        if text[end].isdigit():
            return _GLUED_ITEM.match(text, end) is not None
        pair, before = text[end : end + 2], text[begin - 2 : begin]
        cased = (pair.istitle() and len(pair) == 2 and before.islower()) or (
            pair.isupper() and len(pair) == 2 and before.isupper() and text[max(0, begin - 4) : begin].isalpha()
        )
        return cased and self._word_before(begin) not in self.conventions.abbreviations

    def _word_before(self, index: int) -> str:
        """The last word before ``index`` in the open sentence, in lower case."""
        words = self.text[max(self.start, index - 12) : index].split()
        return words[-1].lower().lstrip("([\"'") if words else ""

    def _terminator_ends_sentence(self, begin: int, end: int) -> bool:
        """Whether the terminator at ``begin``, followed by white space or the end, ends the sentence."""
        text = self.text
        word = self._word_before(begin)
        if text[begin] == "?" and (begin == self.start or text[begin - 1].isspace()):
            return not _NEXT_WORD.search(text, end)
        if text[begin] != "." or end - begin > 1:
            return not (text.startswith("...", begin) and self._lower_case_follows(end))
        if word in self.conventions.abbreviations:
            return False
        if word in self.conventions.closing_abbreviations:
            return not self._continues_after_abbreviation(word, end)
        if len(word) == 1 and word.isalpha():
            return not self._is_initial(begin, end)
        if word.isdigit():
            following = _NON_SPACE.search(text, end)
            return not (following and self.conventions.measure.match(text, following.start()))
        return True

    def _lower_case_follows(self, end: int) -> bool:
        """Whether the next word is in lower case, in a text that has capitals."""
        following = _NON_SPACE.search(self.text, end)
        return following is not None and self.text[following.start()].islower() and not self._all_lower()

    def _continues_after_abbreviation(self, word: str, end: int) -> bool:
        """Whether the sentence goes on after an abbreviation that may end one."""
        following = _NON_SPACE.search(self.text, end)
        if following is None:
            return False
        letter = self.text[following.start()]
        if word in ("no", "nos"):
            return letter.isdigit()
        if letter.isdigit():
            return not _ITEM.match(self.text, following.start())
        if letter.islower():
            return not self._all_lower() or self._continuing_word_follows(following.start())
        return _PLACEHOLDER.match(self.text, following.start()) is not None

    def _continuing_word_follows(self, start: int) -> bool:
        word = _NEXT_WORD.match(self.text, start)
        return word is not None and word[0] in _CONTINUES

    def _is_initial(self, begin: int, end: int) -> bool:
        """Whether a single letter is a person's initial and not the last word of a sentence (``hepatitis C.``)."""
        text = self.text
        if begin - 1 == self.start:
            return True
        if not text[begin - 1].isupper():
            return self._lower_case_follows(end)
        before = text[max(self.start, begin - 30) : begin - 1].split()
        following = _NEXT_WORD.search(text, end)
        if not before or following is None:
            return False
        previous, word = before[-1], following[0].strip(".,;:")
        if previous.rstrip(".").lower() in _TITLES or (len(previous) == 2 and previous[1] == "."):
            return True
        if previous.lower() in _LETTERED:
            return False
        if self._lower_case_follows(end):
            return True
        return previous.istitle() and word.istitle() and word.lower() not in _STARTERS

    def _all_lower(self) -> bool:
        """Whether the text has no capitals, so that case is no evidence."""
        if self._lower is None:
            self._lower = self.text.islower()
        return self._lower

    def _on_number(self, begin: int, end: int) -> None:
        """A number such as ``12.`` begins a list item, or ends a sentence as other words do."""
        text = self.text
        value = int(text[begin:end].strip("(.)"))
        if begin == self.content:
            self.content, self.item = end, value + 1
            return
        if text[begin - 1].isspace() and self._begins_item(begin, end, value):
            stop = begin
            while text[stop - 1].isspace():
                stop -= 1
            self._close(stop, begin)
            self.content, self.item = end, value + 1
        elif text[end - 1] == "." and self._terminator_ends_sentence(end - 1, end):
            self._close(end, end)

    def _begins_item(self, begin: int, end: int, value: int) -> bool:
        """Whether a number inside a sentence is the next of a list, or the first after a heading ("Chest 1. No")."""
        if self._word_before(begin).strip(",.:") in _COUNTED:
            return False
        if value == self.item:
            return True
        following = _NON_SPACE.search(self.text, end)
        heading = self.text[self.content : begin] if begin - self.content <= _MAX_HEADING_LENGTH else "-"
        return value == 1 and heading.replace(" ", "").isalpha() and bool(following and following[0].isupper())

    def _on_header_end(self, begin: int, end: int) -> None:
        """A colon, dash or closing bracket may end a section header, which is a separate sentence."""
        text = self.text
        start = self.conventions.headers.start(text, self.start, begin)
        if start is None or (text[begin] == "]" and text[start] != "["):
            return
        stop = start
        while stop > self.start and text[stop - 1].isspace():
            stop -= 1
        if stop > self.start:
            self._close(stop, start)
        self._close(end, end)

    def _on_line_end(self, begin: int, end: int) -> None:
        """The end of a line, with the blank lines after it, may end a sentence."""
        line, self.line = self.line, end
        if end == len(self.text) or begin <= self.content:
            return
        stop = begin
        while self.text[stop - 1].isspace():
            stop -= 1
        if stop > self.content and self._line_ends_sentence(line, begin, stop, end):
            self._close(stop, end)

    def _line_ends_sentence(self, line: int, begin: int, stop: int, end: int) -> bool:
        """Whether the line from ``line`` to ``stop`` ends its sentence; the next line begins at ``end``."""
        text = self.text
        if text[stop - 1] == ":":
            return not self._heading_goes_on(line, begin, stop, end)
        if len(text[begin:end].rstrip(" \t").splitlines()) > 1:
            return True
        if self._is_header(text[self.start : min(stop, self.start + 80)]) or _ITEM.match(text, end):
            return True
        if text[stop - 1] in ",(/-" or (
            self._word_before(stop) in _CONTINUES and not _ANSWER.search(text, max(self.start, stop - 24), stop)
        ):
            return False
        if text[end].islower() and not self._all_lower():
            return False
        width = self._wrap_width()
        following = _NEXT_WORD.match(text, end)
        fits = (stop - line) + 1 + (len(following[0]) if following else 0) <= width
        return fits or width > _MAX_WRAP_WIDTH

    def _heading_goes_on(self, line: int, begin: int, stop: int, end: int) -> bool:
        """Whether the line is a heading such as "HEART:" that belongs to the line below, at most a blank line away.

        It does not where a heading, a header or a list of several items follows.
        """
        text = self.text
        if self.start < line or stop - self.start > _MAX_LINE_HEADING_LENGTH:
            return False
        if len(text[begin:end].rstrip(" \t").splitlines()) > 2 or _HEADING.match(text, end):
            return False
        below = _LINE_BREAK.search(text, end)
        last = len(text) if below is None else below.start()
        if self._is_header(text[end : min(last, end + 80)]):
            return False
        if not (item := _ITEM.match(text, end)):
            return True
        following = _NON_SPACE.search(text, last)
        return len(item[0]) == 1 and not (following and _ITEM.match(text, following.start()))

    def _is_header(self, text: str) -> bool:
        return self.conventions.headers.name(text) is not None

    def _wrap_width(self) -> int:
        """The width that the text is wrapped to; a line with room for the next word was ended on purpose."""
        if self._wrap is None:
            self._wrap = max(_MIN_WRAP_WIDTH, max(map(len, self.text.splitlines())))
        return self._wrap


_HANDLERS: dict[str, Callable[[_Splitter, int, int], None]] = {
    **dict.fromkeys(".!?", _Splitter._on_terminator),
    **dict.fromkeys(_BREAK, _Splitter._on_line_end),
    **dict.fromkeys("(0123456789", _Splitter._on_number),
    **dict.fromkeys(":\uff1a]-\u2013\u2014", _Splitter._on_header_end),
}
