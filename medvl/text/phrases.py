"""Phrases of a vocabulary, compiled to one trie over words that a text is scanned with once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Words with their apostrophes; punctuation that can end a clause; a dash only where it stands alone.
TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[,;:?/&]|(?<=\s)-{1,3}(?=\s)|[\u2013\u2014]")
_GRAMMAR = re.compile(r"[a-z]+(?:'[a-z]+)?|[()|?/&,]")
_FUZZY_LENGTH = 7
_MEMORY = 1 << 16


def expand(phrase: str) -> list[tuple[str, ...]]:
    """List the word sequences of a phrase in the notation of the vocabularies.

    Args:
        phrase: words; ``(a|b c)`` are alternatives and ``(...)?`` may be left out; a comma is a word. Hyphens are like spaces.

    Returns:
        Different sequences of lower-case words.

    Raises:
        ValueError: for a phrase without words or with brackets that do not match.

    Example:
        >>> expand("(small|tiny)? pleural effusion")
        [('small', 'pleural', 'effusion'), ('tiny', 'pleural', 'effusion'), ('pleural', 'effusion')]
    """
    text = str(phrase).lower()
    tokens = _GRAMMAR.findall(text)
    if re.search(r"[^a-z'()|?/&,\s-]", text) or not tokens:
        raise ValueError(f"the phrase {phrase!r} must be words, (a|b) and (...)?")
    options, rest = _alternatives(tokens)
    if rest:
        raise ValueError(f"the phrase {phrase!r} has brackets that do not match")
    if () in options:
        raise ValueError(f"the phrase {phrase!r} must hold a word that cannot be left out")
    return list(dict.fromkeys(options))


def _alternatives(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    options: list[tuple[str, ...]] = []
    sequence: list[tuple[str, ...]] = [()]
    while tokens and tokens[0] != ")":
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            options += sequence
            sequence = [()]
            continue
        if token == "(":
            part, tokens = _alternatives(tokens)
            if not tokens:
                return [], ["("]
            tokens = tokens[1:]
        else:
            part = [(token,)]
        if tokens and tokens[0] == "?":
            part, tokens = [*part, ()], tokens[1:]
        sequence = [head + tail for head in sequence for tail in part]
    return options + sequence, tokens


class Phrases:
    """A set of phrases with what each stands for, and the forgiving spelling of their words.

    Words are matched in lower case; a plural stands for its singular where only that is in a phrase; a long word of
    ``fuzzy`` is also found with one letter wrong, missing, too much or swapped with its neighbour, after the same first
    letter, when that leaves no doubt which word was meant.
    """

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._entries: list[tuple[tuple[str, ...], Any]] = []
        self._words: dict[str, str | None] = {}
        self._inflected: set[str] = set()
        self._deletions: dict[str, set[str]] = {}

    def add(self, phrase: str, meaning: Any, inflect: bool = False) -> None:
        """Let ``phrase`` stand for ``meaning`` too; with ``inflect`` its words may be plural or misspelt."""
        for words in expand(phrase):
            self._entries.append((words, meaning))
            self._words.update({word: word for word in words})
            if inflect:
                self._inflected.update(words)

    def add_sign(self, sign: str, meaning: Any) -> None:
        """Let a punctuation mark stand for ``meaning``."""
        self._words[sign] = sign
        self._root.setdefault(sign, {}).setdefault("", []).append(meaning)

    def spell(self, word: str, variants: Iterable[str]) -> None:
        """Read each of ``variants`` as ``word``."""
        for variant in variants:
            self._words.setdefault(variant, word)

    def finish(self) -> None:
        """Build the trie with its plurals and the table for misspellings, once all phrases are in."""
        for word in sorted(self._inflected):
            if not word.isalpha() or len(word) < 3:
                continue
            for plural in (word[:-1] + "ies" if word.endswith("y") else word + "s", word + "es"):
                # A plural that a phrase spells out is the same word as its singular.
                if plural not in self._words or plural in self._inflected:
                    self._words[plural] = word
        for words, meaning in self._entries:
            node = self._root
            for word in words:
                node = node.setdefault(self._words[word] or word, {})
            meanings = node.setdefault("", [])
            if meaning not in meanings:
                meanings.append(meaning)
        self._entries = []
        for word in sorted(self._inflected):
            if len(word) >= _FUZZY_LENGTH:
                for variant in (word, *_one_less(word)):
                    self._deletions.setdefault(variant, set()).add(word)

    def read(self, words: list[str]) -> list[str | None]:
        """For each lower-case word of a text the word of a phrase that it stands for, or None."""
        known = self._words
        try:
            return [known[word] for word in words]
        except KeyError:
            return [known[word] if word in known else self._unknown(word) for word in words]

    def _unknown(self, word: str) -> str | None:
        meant = self._misspelt(word) if len(word) >= _FUZZY_LENGTH else None
        if len(self._words) < _MEMORY:
            self._words[word] = meant
        return meant

    def _misspelt(self, word: str) -> str | None:
        if len(word) > 30:
            return None
        near = {
            known
            for variant in (word, *_one_less(word))
            for known in self._deletions.get(variant, ())
            if known[0] == word[0] and _one_edit(word, known)
        }
        return near.pop() if len(near) == 1 else None

    def scan(self, words: list[str | None]) -> list[tuple[list[Any], int, int]]:
        """Find the longest phrase at each place, from left to right.

        Args:
            words: words as :meth:`read` gives them.

        Returns:
            (meanings, first word, one past the last word) of each phrase, in order and without overlap.
        """
        found = []
        root, index, count = self._root, 0, len(words)
        while index < count:
            word = words[index]
            node = root.get(word) if word is not None else None
            if node is None:
                index += 1
                continue
            end, meanings, after = index + 1, node.get(""), index + 1
            while after < count and (word := words[after]) is not None:
                node = node.get(word)
                if node is None:
                    break
                after += 1
                if "" in node:
                    end, meanings = after, node[""]
            if meanings is not None:
                found.append((meanings, index, end))
            index = end
        return found


def _one_less(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


def _one_edit(a: str, b: str) -> bool:
    """Whether one letter added, dropped, changed or swapped with its neighbour makes ``a`` into ``b``."""
    if len(a) == len(b):
        different = [i for i in range(len(a)) if a[i] != b[i]]
        if len(different) == 2:
            i, j = different
            return j == i + 1 and a[i] == b[j] and a[j] == b[i]
        return len(different) == 1
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return len(longer) - len(shorter) == 1 and shorter in _one_less(longer)
