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
    **dict.fromkeys("\u2610\u25a1\u2717\u2718", "[ ]"),
    **dict.fromkeys("\u2611\u2612\u2713\u2714\u25a0", "[x]"),
}
_DEIDENTIFICATION_MARK = re.compile(r"\[\*\*[^\[\]]{0,200}\]")
# Marks of templates and of HTML, and what they are read as. The look-ahead says where one may begin, which is a fast test.
_MARKUP = re.compile(
    r"""(?=[\[(<&|=?*]|[ ][(.]|\.\.\.|:[ ]?[0N]|->|(?i:none)/)(?:
        (?P<absent>\(-\)|\[-\])
      | (?P<present>\(\+\)|\[\+\])
      | (?P<remark>(?<=\w)[ ]?\((?:(?i:no|yes)|N|Y)\))
      | (?P<scale>\(?\b(?i:none)(?:/[a-zA-Z]+){1,5}\)?(?=[ ]?:))
      | (?P<asked>\((?=[^()?\n]{2,60}\?[^()\n]{0,60}\)))
      | (?P<bold>(?<![\w*])\*\*(?=\w)[^*\n]{1,80}(?<=[\w.:])\*\*(?![\w*]))
      | (?P<inline></?(?i:b|i|u|em|strong|span|font)[ ]?/?>)
      | (?P<tag></?[a-zA-Z]{1,10}[ ]?/?>)
      | (?P<space>&nbsp;)
      | (?P<leader>(?<=\w)[ ]?\.{3,}[ ]?(?=(?i:no|yes|none|nil|absent|present|negative|positive)\b[ ]*(?:[.;,|\n]|\Z)))
      | (?P<question>\?(?=[ ](?:(?i:no|yes|none)|Y)\b(?:[ ]*(?:[.;,(|\n]|\Z)|[ ]{2})))
      | (?P<denied>\?[ ]N(?=[ ]*(?:[.;,|\n]|\Z)))
      | (?P<cell>\|(?=[ ]?(?i:no|yes|none|nil|absent|present|negative|positive)\b))
      | (?P<equals>(?<!=)=(?!=)|->)
      | (?P<answer>:[ ]?[0N][ ]{2,})
      | (?P<none>:[ ]?[0N](?![\w.,/]|[ ]?[cm]m\b)|:[ ]?[0N](?=\.(?:\s|\Z)))
      | (?P<bar>\|)
      | (?P<end>(?<=\w)\*{1,2}(?=\s|\Z)))""",
    re.VERBOSE,
)
_REMARK = re.compile(r"\((?:(?i:no|yes)|N|Y)\)")
_COLON_MARK = re.compile(r":[ ]?[0N](?!\w)")
_READ_AS = {
    "absent": "neg",
    "tag": "\n",
    "equals": ":",
    "leader": ":",
    "question": ":",
    "cell": ":",
    "none": ":no",
    "denied": ":no",
    "asked": ";",
    "end": ";",
    "answer": ":no;",
    "bar": "|",
}
# Boxes of a form, which stand before what they tick, or behind it; and answers that are ticked themselves.
_BOX = re.compile(r"\[ ?(?P<mark>[ xXyYnN]?) ?\][ ]?")
_ROUND_BOX = re.compile(r"(?:\[ ?(?P<mark>[ xXyYnN]?) ?\]|\( ?(?P<round>[ xX]?) ?\))[ ]?")
_ANSWER_BEHIND = re.compile(r"(?i:no|yes|none|nil|absent|present|negative|positive)\b(?=[ ]*(?:[\[(.;,|\n]|\Z))")
_ANSWER_BEFORE = re.compile(r"\b(?i:no|yes|none|nil|absent|present|negative|positive)[ :]*\Z")


def plain_characters(text: str) -> tuple[str, list[int] | None]:
    """Replace look-alike characters and remove invisible ones.

    Returns:
        The text, and the offset in the original of each of its characters; None where nothing moved.
    """
    if "[" in text and "[**" in text:
        text = _DEIDENTIFICATION_MARK.sub(lambda mark: "_" * len(mark[0]), text)
    if text.isascii():
        return _read_markup(text.replace("`", "'")), None
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
    return _read_markup("".join(characters)), origin


def _read_markup(text: str) -> str:
    """The text with its marks read, and every character at the same offset."""
    if not _has_markup(text):
        return text
    if "[" in text or "( )" in text:
        text = "".join(_read_boxes(line) for line in text.splitlines(keepends=True))
    return _MARKUP.sub(_read_mark, text)


def _read_boxes(line: str) -> str:
    """A line with its boxes read: "[x] Edema [ ] Effusion", "Edema [x] Effusion [ ]", "Edema: [x] Yes [ ] No"."""
    boxes = list((_ROUND_BOX if "( )" in line else _BOX).finditer(line))
    if not boxes:
        return line
    before = line[: boxes[0].start()].rstrip()
    are_behind = before[-1:].isalnum() and not any(map(str.isalnum, line[boxes[-1].end() :]))
    parts, place = [], 0
    for index, box in enumerate(boxes):
        ticked = (box["mark"] or box.groupdict().get("round") or "").lower() in ("x", "y")
        start, end = box.span()
        if are_behind:
            item = line[place:start]
            if (answer := _ANSWER_BEFORE.search(item)) is not None:
                item = item if ticked else item[: answer.start()] + " " * (len(item) - answer.start())
                mark = ""
            else:
                mark = "|" if ticked else ":no|" if end - start > 3 else ":no"
            parts += [item, mark.ljust(end - start)]
            place = end
            continue
        parts.append(line[place:start])
        stop = boxes[index + 1].start() if index + 1 < len(boxes) else len(line)
        answer = _ANSWER_BEHIND.match(line, end, stop + 1)
        if answer is not None and before.endswith(":"):
            parts.append(" " * (end - start) + (answer[0] if ticked else " " * len(answer[0])))
            place = answer.end()
        else:
            parts.append(("|" if ticked else "|no")[: end - start].ljust(end - start))
            place = end
    return "".join([*parts, line[place:]])


def _has_markup(text: str) -> bool:
    """Whether a text may have marks of templates or of HTML, which is a fast test."""
    return (
        "=" in text
        or "<" in text
        or "[" in text
        or "*" in text
        or "&" in text
        or "|" in text
        or (">" in text and "->" in text)  # one character is found much faster than two
        or ("(" in text and ("(-" in text or "( )" in text or _REMARK.search(text) is not None))
        or ("?" in text and ("? " in text or "?)" in text))
        or "..." in text
        or "one/" in text
        or _COLON_MARK.search(text) is not None
    )


def _read_mark(mark: re.Match[str]) -> str:
    """What a mark is read as, with as many characters."""
    if mark.lastgroup == "bold":
        return mark[0].replace("*", " ")
    if mark.lastgroup == "remark":
        answer = mark[0].strip(" ()")
        return f":{'no' if answer == 'N' else answer}".ljust(len(mark[0]))
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
