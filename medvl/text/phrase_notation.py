"""The notation of a vocabulary's phrases: ``(small|tiny)? pleural effusion``."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from medvl.utils.checks import error_message
from medvl.utils.limits import ALTERNATIVES, limit

LETTER = r"[^\W\d_]"
_TOKEN_PATTERN = re.compile(rf"{LETTER}+(?:'{LETTER}+)?|[()|?/&,:]")
_MAX_DEPTH = 20

Alternatives: TypeAlias = list[list[Any]]
"""A phrase as it is written: sequences, one of which is read, of words and of alternatives within. An empty one is optional."""


def expand_phrase(phrase: str) -> list[tuple[str, ...]]:
    """List the word sequences of a phrase in the notation of the vocabularies.

    Args:
        phrase: words; ``(a|b c)`` are alternatives, ``(...)?`` is optional, a comma or a colon is a word and a hyphen a space.

    Returns:
        Distinct sequences of lower-case words.

    Raises:
        ValueError: If the phrase has no words or its parentheses are unbalanced.

    Example:
        >>> expand_phrase("(small|tiny)? pleural effusion")
        [('small', 'pleural', 'effusion'), ('tiny', 'pleural', 'effusion'), ('pleural', 'effusion')]
    """
    return list(dict.fromkeys(_sequences(parse_phrase(phrase))))


def parse_phrase(phrase: str) -> Alternatives:
    """A phrase as its alternatives.

    Args:
        phrase: in the notation of :func:`expand_phrase`.

    Raises:
        ValueError: As :func:`expand_phrase`.
    """
    text = str(phrase).lower()
    tokens = _TOKEN_PATTERN.findall(text)
    if re.search(rf"(?!{LETTER})[^'()|?/&,:\s-]", text) or not tokens:
        raise ValueError(f"the phrase {phrase!r} must consist of words, (a|b) and (...)?.")
    options, _, rest = _alternatives(tokens, limit(ALTERNATIVES))
    if rest:
        raise ValueError(f"the phrase {phrase!r} must have balanced parentheses.")
    if _is_optional(options):
        raise ValueError(f"the phrase {phrase!r} must have a word that is not optional.")
    return options


def _alternatives(tokens: list[str], most: int, depth: int = 0) -> tuple[Alternatives, int, list[str]]:
    """``a|b c`` up to the parenthesis that closes it, the number of its word sequences, and the tokens from there."""
    options: Alternatives = [[]]
    done, number = 0, 1
    while tokens and tokens[0] != ")":
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            options.append([])
            done, number = done + number, 1
            continue
        part: Any = token
        count = 1
        if token == "(":
            if depth == _MAX_DEPTH:
                raise ValueError(
                    error_message("a phrase", f"have at most {_MAX_DEPTH} parentheses in one another", "more")
                )
            part, count, tokens = _alternatives(tokens, most, depth + 1)
            if not tokens:
                return [], 0, ["("]
            tokens = tokens[1:]
        if tokens and tokens[0] == "?":
            part, count, tokens = [[part], []], count + 1, tokens[1:]
        number *= count
        if done + number > most:
            raise ValueError(error_message("a phrase", f"have at most {most} alternatives ({ALTERNATIVES})", "more"))
        options[-1].append(part)
    return options, done + number, tokens


def _is_optional(part: Any) -> bool:
    return not isinstance(part, str) and any(all(map(_is_optional, sequence)) for sequence in part)


def _sequences(part: Any) -> list[tuple[str, ...]]:
    """The word sequences of a part of a phrase."""
    if isinstance(part, str):
        return [(part,)]
    found = []
    for sequence in part:
        heads: list[tuple[str, ...]] = [()]
        for inner in sequence:
            tails = _sequences(inner)
            heads = [head + tail for head in heads for tail in tails]
        found += heads
    return found
