"""Matching of a vocabulary's phrases: compiled to one graph of words, which reads a text once.

1. :mod:`medvl.text.phrase_notation` reads a phrase of a vocabulary file, with its alternatives and optional parts.
2. :class:`PhraseMatcher` collects the phrases with what each means, and compiles them to one graph of words: which word may
   follow, and what the words so far mean. The alternatives of a phrase go on in the same place and are not written out.
3. :meth:`PhraseMatcher.normalize_words` maps the words of a text, plural or misspelled, to words of the phrases.
4. :meth:`PhraseMatcher.match` finds the longest phrase at each place. A phrase that was added as *yielding* gives way to one
   that begins inside it and ends behind it: "is negative" to "negative for".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from medvl.text.phrase_notation import LETTER, Alternatives, parse_phrase


class Meanings(list[Any]):
    """The meanings of a phrase. ``kinds`` is for whoever reads them to note what kinds they have; 0 until then."""

    __slots__ = ("kinds",)

    def __init__(self) -> None:
        super().__init__()
        self.kinds = 0


PhraseMatch: TypeAlias = tuple[Meanings, int, int]
"""Meanings of a phrase in a text, its first word, and one past its last word."""

# Words with their apostrophes; punctuation that can end a clause; a dash only where it stands alone.
# "non-displaced" is one word, since "non" denies no more than the word that it stands before.
_TOKEN = r"non[- ]LETTER+|LETTER+(?:'LETTER+)?|[,;:?/&|]|(?<=\s)-{1,3}(?=\s)|[\u2013\u2014]"
_ASCII_TOKEN_PATTERN = re.compile(_TOKEN.replace("LETTER", "[a-z]"))
_TOKEN_PATTERN = re.compile(_TOKEN.replace("LETTER", LETTER))
# Characters of a sentence whose words are its letters between others, and whose punctuation is its commas.
_PLAIN = bytes(byte for byte in range(128) if chr(byte) not in "';:?/&|-")
_LETTERS_AND_COMMAS = bytes(byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz," else ord(" ") for byte in range(256))
# Shorter words are too close to other words of the language for a misspelling to be certain.
_MIN_SHORT_LENGTH = 5
_MIN_FUZZY_LENGTH, _MAX_FUZZY_LENGTH = 7, 30
_MAX_KNOWN_WORDS = 1 << 16
# Keys of a node of the graph that are no words: the meanings of the phrase that ends there, and whether it may give way.
_MEANINGS, _YIELDS = "", " "


def find_words(lower: str) -> list[str]:
    """The words and punctuation of a sentence in lower case."""
    data = lower.encode() if lower.isascii() else b"-"
    if not data.translate(None, _PLAIN) and b"non " not in data:  # the same words, faster
        return data.translate(_LETTERS_AND_COMMAS).replace(b",", b" , ").decode().split()
    return (_ASCII_TOKEN_PATTERN if lower.isascii() else _TOKEN_PATTERN).findall(lower)


def word_spans(lower: str) -> list[tuple[int, int]]:
    """The offsets of the words that :func:`find_words` returns."""
    pattern = _ASCII_TOKEN_PATTERN if lower.isascii() else _TOKEN_PATTERN
    return [match.span() for match in pattern.finditer(lower)]


class PhraseMatcher:
    """A set of phrases with their meanings, matched with plurals and misspellings.

    Words are matched in lower case. Of the phrases that were added with ``inflect``, a plural stands for its singular unless
    a phrase spells it out, and a word of seven letters or more is also found with one letter wrong, missing, added or swapped
    with its neighbor, after the same first letter, if only one word is that close. A word of five or six letters is found with
    two neighbors swapped or a letter doubled.

    Args:
        endings: endings of the inflected words of a language; None for the plurals of English.
        letters: letters that may also be written otherwise, each with how: ``{"ä": "ae"}``.
    """

    def __init__(self, endings: Sequence[str] | None = None, letters: Mapping[str, str] | None = None) -> None:
        self._endings = endings
        self._letters = str.maketrans(dict(letters or {}))
        self._root: dict[str, Any] = {}
        self._places = [_Place("", ())]
        self._words: dict[str, str | None] = {}
        self._inflected: set[str] = set()
        self._deletions: dict[str, set[str]] = {}
        self._kept_words: frozenset[str] = frozenset()

    @property
    def words(self) -> frozenset[str]:
        """The words of all phrases."""
        return frozenset(self._words)

    @property
    def phrases(self) -> list[tuple[tuple[str, ...], list[Any]]]:
        """All phrases, each with its meanings."""
        found: list[tuple[tuple[str, ...], list[Any]]] = []
        stack: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), self._root)]
        while stack:
            words, node = stack.pop()
            for word, child in node.items():
                if word == _MEANINGS:
                    found.append((words, child))
                elif word != _YIELDS:
                    stack.append(((*words, word), child))
        return found

    def add(self, phrase: str, meaning: Any, inflect: bool = False, yielding: bool = False) -> None:
        """Add a phrase; one that exists already gets a further meaning. "is not" also stands for "isn't".

        Args:
            phrase: in the notation of :func:`~medvl.text.phrase_notation.expand_phrase`.
            meaning: any hashable value.
            inflect: also match plurals and misspellings of its words.
            yielding: give way to a phrase that begins inside this one and ends behind it.
        """
        options = parse_phrase(phrase)
        first = len(self._places)
        for end in self._add_places(options, [self._places[0]]):
            end.meaning, end.yielding = (meaning,), yielding
        words = dict.fromkeys(word for place in self._places[first:] for word in place.words)
        self._words.update(zip(words, words, strict=True))
        if inflect:
            self._inflected.update(words)

    def _add_places(self, options: Alternatives, before: list[_Place]) -> list[_Place]:
        """Add a place for each word of a part of a phrase; those that it can end with, among which ``before`` may be."""
        ends: list[_Place] = []
        for sequence in options:
            here = before
            for part in sequence:
                if not isinstance(part, str):
                    here = self._add_places(part, here)
                    continue
                place = _Place(part, here)
                number = len(self._places)
                self._places.append(place)
                for previous in here:
                    previous.following.append((part, number))
                    short = _CONTRACTIONS.get((previous.words[0], part))
                    if short is not None:
                        place.words.append(short)
                        for earlier in previous.before:
                            earlier.following.append((short, number))
                here = [place]
            ends += here
        return list(dict.fromkeys(ends))

    def add_punctuation(self, mark: str, meaning: Any) -> None:
        """Add a punctuation mark."""
        self._words[mark] = mark
        (place,) = self._add_places([[mark]], [self._places[0]])
        place.meaning = (meaning,)

    def add_misspellings(self, word: str, misspellings: Iterable[str]) -> None:
        """Read each of ``misspellings`` as ``word``."""
        for misspelling in misspellings:
            self._words.setdefault(misspelling, word)

    def know_words(self, words: Iterable[str]) -> None:
        """Know words that stand in no phrase, so that :meth:`normalize_words` keeps them."""
        for word in words:
            self._words.setdefault(word, word)

    def keep_words(self, words: Iterable[str]) -> None:
        """Never correct these words: they are words of their own, close to words of the phrases."""
        self._kept_words |= frozenset(words)

    def compile(self) -> None:
        """Build the graph, the plurals and the table of misspellings, after all phrases were added."""
        plurals = self._add_plurals()
        for word in [word for word in self._words if "'" in word]:
            self._words.setdefault(word.replace("'", ""), word)
        if self._letters:
            for word, known in list(self._words.items()):
                self._words.setdefault(word.translate(self._letters), known)
        for word in sorted(self._inflected):
            for variant in _short_variants(word):
                self._words.setdefault(variant, word)
        self._build_graph()
        for word in sorted(self._inflected | plurals):
            if len(word) >= _MIN_FUZZY_LENGTH:
                for variant in (word, *_deletions(word)):
                    self._deletions.setdefault(variant, set()).add(word)

    def _add_plurals(self) -> set[str]:
        plurals = set()
        for word in sorted(self._inflected):
            if not word.isalpha() or len(word) < 3:
                continue
            for plural in self._inflections(word):
                # A plural in a phrase is the same word as its singular.
                if plural not in self._words or plural in self._inflected:
                    self._words[plural] = word
                    plurals.add(plural)
        return plurals

    def _inflections(self, word: str) -> list[str]:
        if self._endings is not None:
            return [word + ending for ending in self._endings]
        return [word[:-1] + "ies" if word.endswith("y") else word + "s", word + "es"]

    def _build_graph(self) -> None:
        """Make a node of each set of places that the same words lead to, beginning with the first."""
        shared: dict[tuple[Any, ...], Meanings] = {}
        nodes = {frozenset([0]): self._root}
        left = list(nodes)
        while left:
            numbers = left.pop()
            following: dict[str, set[int]] = {}
            for number in sorted(numbers):
                for word, reached in self._places[number].following:
                    following.setdefault(self._words[word] or word, set()).add(reached)
            node = nodes[numbers]
            for word, group in following.items():
                key = frozenset(group)
                if key not in nodes:
                    nodes[key] = _end_of([self._places[number] for number in sorted(key)], shared)
                    left.append(key)
                node[word] = nodes[key]
        self._places = [_Place("", ())]

    def normalize_words(self, words: list[str]) -> list[str | None]:
        """Map each lower-case word of a text to the word of the phrases that it stands for, or to None."""
        known = self._words
        try:
            return [known[word] for word in words]
        except KeyError:
            return [known[word] if word in known else self._unknown(word) for word in words]

    def _unknown(self, word: str) -> str | None:
        """Correct a word that is not known, and remember the result."""
        if word.startswith(("non-", "non ")):
            return self._words.get("non" + word[4:])
        if self._letters and (plain := self._words.get(word.translate(self._letters))) is not None:
            return plain
        is_correctable = _MIN_FUZZY_LENGTH <= len(word) <= _MAX_FUZZY_LENGTH and word not in self._kept_words
        corrected = self._corrected(word) if is_correctable else None
        if len(self._words) < _MAX_KNOWN_WORDS:
            self._words[word] = corrected
        return corrected

    def _corrected(self, word: str) -> str | None:
        """The only word of the phrases within one edit, or None."""
        candidates = {
            self._words[known]
            for variant in (word, *_deletions(word))
            for known in self._deletions.get(variant, ())
            if known[0] == word[0] and _within_one_edit(word, known)
        }
        return candidates.pop() if len(candidates) == 1 else None

    def match(self, words: list[str | None]) -> list[PhraseMatch]:
        """Find the longest phrase at each place, from left to right.

        Args:
            words: words as :meth:`normalize_words` returns them.

        Returns:
            (meanings, first word, one past the last word) of each phrase, in order and without overlap.
        """
        matches: list[PhraseMatch] = []
        root: Any = self._root
        index, count = 0, len(words)
        while index < count:
            node = root.get(words[index])
            if node is None:
                index += 1
                continue
            end = after = index + 1
            last = node
            while after < count:
                node = node.get(words[after])
                if node is None:
                    break
                after += 1
                if _MEANINGS in node:
                    end, last = after, node
            meanings = last.get(_MEANINGS)
            if _YIELDS in last:
                end, meanings = self._given_way(words, index, end, last)
            if meanings is not None:
                matches.append((meanings, index, end))
            index = end
        return matches

    def _given_way(
        self, words: list[str | None], index: int, end: int, node: dict[str, Any]
    ) -> tuple[int, Meanings | None]:
        """The end and meanings of the phrase at ``index``, cut where a phrase begins inside it and ends behind it."""
        for start in range(index + 1, end):
            if self._reach(words, start)[0] > end:
                cut, meanings = self._reach(words[:start], index)
                return max(cut, index + 1), meanings
        return end, node.get(_MEANINGS)

    def _reach(self, words: list[str | None], index: int) -> tuple[int, Meanings | None]:
        """Where the longest phrase that begins at ``index`` ends, and its meanings; ``index`` and None if none does."""
        node: Any = self._root
        end, meanings = index, None
        for place in range(index, len(words)):
            node = node.get(words[place])
            if node is None:
                break
            if _MEANINGS in node:
                end, meanings = place + 1, node[_MEANINGS]
        return end, meanings


class _Place:
    """A word of a phrase, where it stands: what may stand before and behind it.

    Args:
        word: the word; "" is where every phrase begins.
        before: the places before it.

    Attributes:
        words: the word, and a contraction of it with the one before.
        following: the words behind it, each with the number of its place.
        meaning: the meaning of the phrase, if one can end here.
        yielding: whether that phrase gives way.
    """

    __slots__ = ("before", "following", "meaning", "words", "yielding")

    def __init__(self, word: str, before: Sequence[_Place]) -> None:
        self.words = [word]
        self.before = before
        self.following: list[tuple[str, int]] = []
        self.meaning: tuple[Any, ...] = ()
        self.yielding = False


_CONTRACTIONS = {
    (verb, "not"): verb + "n't"
    for verb in ("is", "are", "was", "were", "has", "have", "had", "do", "does", "did", "could", "would", "should")
} | {("can", "not"): "can't", ("will", "not"): "won't"}


def _end_of(places: list[_Place], shared: dict[tuple[Any, ...], Meanings]) -> dict[str, Any]:
    """A node with the meanings of the phrases that end at its places; equal meanings are one object."""
    node: dict[str, Any] = {}
    found = tuple(dict.fromkeys(meaning for place in places for meaning in place.meaning))
    if found:
        meanings = shared.setdefault(found, Meanings())
        if not meanings:
            meanings.extend(found)
        node[_MEANINGS] = meanings
    if any(place.yielding for place in places):
        node[_YIELDS] = True
    return node


def _short_variants(word: str) -> list[str]:
    """A word of five or six letters with two neighbors swapped or a letter doubled, behind the first one."""
    if not _MIN_SHORT_LENGTH <= len(word) < _MIN_FUZZY_LENGTH:
        return []
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)]
    return swapped + [word[:i] + word[i] + word[i:] for i in range(1, len(word))]


def _deletions(word: str) -> list[str]:
    """The word without each of its letters in turn."""
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


def _within_one_edit(a: str, b: str) -> bool:
    """Whether adding, removing or changing one letter, or swapping two neighbors, turns ``a`` into ``b``."""
    if len(a) == len(b):
        different = [i for i in range(len(a)) if a[i] != b[i]]
        if len(different) == 2:
            i, j = different
            return j == i + 1 and a[i] == b[j] and a[j] == b[i]
        return len(different) == 1
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return len(longer) - len(shorter) == 1 and shorter in _deletions(longer)
