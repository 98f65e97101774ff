"""Plain characters for a report: look-alikes, invisible characters, and marks of templates and HTML."""

from __future__ import annotations

import re
import unicodedata

from medvl.text.spans import Span

_INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_LOOKALIKES = {
    **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb00": "ff",
    "\ufb03": "ffi",
    "\u00e6": "ae",
    "\u0153": "oe",
}
_DEIDENTIFICATION_MARK = re.compile(r"\[\*\*[^\[\]]{0,200}\]")
# Marks of templates and of HTML, and what they are read as.
_MARKUP = re.compile(
    r"""(?P<absent>\(-\)|\[-\])
      | (?P<present>\(\+\)|\[\+\])
      | (?P<unticked>\[[ ]\])
      | (?P<ticked>\[[xX]\])
      | (?P<bold>(?<![\w*])\*\*(?=\w)[^*\n]{1,80}(?<=[\w.:])\*\*(?![\w*]))
      | (?P<inline></?(?i:b|i|u|em|strong|span|font)[ ]?/?>)
      | (?P<tag></?[a-zA-Z]{1,10}[ ]?/?>)
      | (?P<space>&nbsp;)
      | (?P<question>\?(?=[ ](?i:no|yes|none)(?:[.;,]|\Z)))
      | (?P<cell>\|(?=[ ]?(?i:no|yes|none|nil|absent|present|negative|positive)\b))
      | (?P<equals>(?<!=)=(?!=)|->)
      | (?P<answer>:[ ]?[0N][ ]{2,})
      | (?P<none>:[ ]?[0N](?![\w.,/]))
      | (?P<bar>\|)
      | (?P<end>(?<=\w)\*{1,2}(?=\s|\Z))""",
    re.VERBOSE,
)
_COLON_MARK = re.compile(r":[ ]?[0N](?!\w)")
_READ_AS = {
    "absent": "neg",
    "unticked": ";no",
    "ticked": ";",
    "tag": "\n",
    "equals": ":",
    "question": ":",
    "cell": ":",
    "none": ":no",
    "end": ";",
    "answer": ":no;",
    "bar": ";",
}


def plain_characters(text: str) -> tuple[str, list[int] | None]:
    """Replace look-alike characters and remove invisible ones.

    Returns:
        The text, and the offset in the original of each of its characters; None where nothing moved.
    """
    if "[**" in text:
        text = _DEIDENTIFICATION_MARK.sub(lambda mark: " " * len(mark[0]), text)
    if text.isascii():
        text = text.replace("`", "'")
        return (_MARKUP.sub(_read_mark, text) if _has_markup(text) else text), None
    characters: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if character in _INVISIBLE:
            continue
        if characters and unicodedata.combining(character):
            composed = unicodedata.normalize("NFC", characters[-1] + character)
            if len(composed) == 1:  # a letter and its mark, such as the dots of an umlaut
                characters[-1] = composed
                continue
        for plain in _LOOKALIKES.get(character, character):
            characters.append(plain)
            origin.append(index)
    plain = "".join(characters)
    return (_MARKUP.sub(_read_mark, plain) if _has_markup(plain) else plain), origin


def _has_markup(text: str) -> bool:
    """Whether a text may have marks of templates or of HTML, which is a fast test."""
    return (
        "=" in text
        or "<" in text
        or "[" in text
        or "*" in text
        or "->" in text
        or "(-" in text
        or "&" in text
        or "|" in text
        or "? " in text
        or _COLON_MARK.search(text) is not None
    )


def _read_mark(mark: re.Match[str]) -> str:
    """What a mark is read as, with as many characters."""
    if mark.lastgroup == "bold":
        return mark[0].replace("*", " ")
    return _READ_AS.get(mark.lastgroup or "", "").ljust(len(mark[0]))


def lower_case(text: str) -> str:
    """The text in lower case, with every character at the same offset."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)


def original_span(span: tuple[int, int], origin: list[int] | None) -> Span:
    """The span in the original text of a span of the text with plain characters."""
    start, end = span
    return Span(start, end) if origin is None else Span(origin[start], origin[end - 1] + 1)
