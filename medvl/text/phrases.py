"""Matching of a vocabulary's phrases: compiled to one trie over words, which reads a text once.

1. :func:`expand_phrase` writes a phrase of a vocabulary file, with alternatives and optional parts, as word sequences.
2. :class:`PhraseMatcher` collects the sequences with what each means, and compiles them to a trie.
3. :meth:`PhraseMatcher.normalize_words` maps the words of a text, plural or misspelled, to words of the phrases.
4. :meth:`PhraseMatcher.match` finds the longest phrase at each place. A phrase that was added as *yielding* gives way to one
   that begins inside it and ends behind it: "is negative" to "negative for".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from medvl.utils.checks import error_message
from medvl.utils.limits import ALTERNATIVES, limit


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
_LETTER = r"[^\W\d_]"
_TOKEN = r"non[- ]LETTER+|LETTER+(?:'LETTER+)?|[,;:?/&|]|(?<=\s)-{1,3}(?=\s)|[\u2013\u2014]"
_ASCII_TOKEN_PATTERN = re.compile(_TOKEN.replace("LETTER", "[a-z]"))
_TOKEN_PATTERN = re.compile(_TOKEN.replace("LETTER", _LETTER))
_PHRASE_TOKEN_PATTERN = re.compile(rf"{_LETTER}+(?:'{_LETTER}+)?|[()|?/&,:]")
# Characters of a sentence whose words are its letters between others, and whose punctuation is its commas.
_PLAIN = bytes(byte for byte in range(128) if chr(byte) not in "';:?/&|-")
_LETTERS_AND_COMMAS = bytes(byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz," else ord(" ") for byte in range(256))
# Shorter words are too close to other words of the language for a misspelling to be certain.
_MIN_SHORT_LENGTH = 5
_MIN_FUZZY_LENGTH, _MAX_FUZZY_LENGTH = 7, 30
_MAX_KNOWN_WORDS = 1 << 16
_MAX_DEPTH = 20
# Keys of a node of the trie that are no words: the meanings of the phrase that ends there, and where it may give way.
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
    text = str(phrase).lower()
    tokens = _PHRASE_TOKEN_PATTERN.findall(text)
    if re.search(rf"(?!{_LETTER})[^'()|?/&,:\s-]", text) or not tokens:
        raise ValueError(f"the phrase {phrase!r} must consist of words, (a|b) and (...)?.")
    options, rest = _alternatives(tokens, limit(ALTERNATIVES))
    if rest:
        raise ValueError(f"the phrase {phrase!r} must have balanced parentheses.")
    if () in options:
        raise ValueError(f"the phrase {phrase!r} must have a word that is not optional.")
    return list(dict.fromkeys(options))


def _alternatives(tokens: list[str], most: int, depth: int = 0) -> tuple[list[tuple[str, ...]], list[str]]:
    """Word sequences of ``a|b c`` up to the parenthesis that closes it, and the tokens from there."""
    options: list[tuple[str, ...]] = []
    sequence: list[tuple[str, ...]] = [()]
    while tokens and tokens[0] != ")":
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            options += sequence
            sequence = [()]
            continue
        if token == "(":
            if depth == _MAX_DEPTH:
                raise ValueError(
                    error_message("a phrase", f"have at most {_MAX_DEPTH} parentheses in one another", "more")
                )
            part, tokens = _alternatives(tokens, most, depth + 1)
            if not tokens:
                return [], ["("]
            tokens = tokens[1:]
        else:
            part = [(token,)]
        if tokens and tokens[0] == "?":
            part, tokens = [*part, ()], tokens[1:]
        if len(options) + len(sequence) * len(part) > most:
            raise ValueError(error_message("a phrase", f"have at most {most} alternatives ({ALTERNATIVES})", "more"))
        sequence = [head + tail for head in sequence for tail in part]
    return options + sequence, tokens


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
        self._entries: list[tuple[list[tuple[str, ...]], Any]] = []
        self._words: dict[str, str | None] = {}
        self._inflected: set[str] = set()
        self._deletions: dict[str, set[str]] = {}
        self._yielding: set[tuple[str, ...]] = set()
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
            phrase: in the notation of :func:`expand_phrase`.
            meaning: any hashable value.
            inflect: also match plurals and misspellings of its words.
            yielding: give way to a phrase that begins inside this one and ends behind it.
        """
        sequences = expand_phrase(phrase)
        sequences += [short for words in sequences if (short := _contracted(words)) != words]
        self._entries.append((sequences, meaning))
        words = dict.fromkeys(itertools.chain.from_iterable(sequences))
        self._words.update(zip(words, words, strict=True))
        if inflect:
            self._inflected.update(words)
        if yielding:
            self._yielding.update(words for words in sequences if len(words) > 1)

    def add_punctuation(self, mark: str, meaning: Any) -> None:
        """Add a punctuation mark."""
        self._words[mark] = mark
        self._root.setdefault(mark, {}).setdefault(_MEANINGS, Meanings()).append(meaning)

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
        """Build the trie, the plurals and the table of misspellings, after all phrases were added."""
        plurals = self._add_plurals()
        for word in [word for word in self._words if "'" in word]:
            self._words.setdefault(word.replace("'", ""), word)
        if self._letters:
            for word, known in list(self._words.items()):
                self._words.setdefault(word.translate(self._letters), known)
        for word in sorted(self._inflected):
            for variant in _short_variants(word):
                self._words.setdefault(variant, word)
        self._build_trie()
        self._find_yielding()
        self._share_nodes()
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

    def _build_trie(self) -> None:
        for sequences, meaning in self._entries:
            for words in sequences:
                node = self._root
                for word in words:
                    known = self._words[word] or word
                    child = node.get(known)
                    if child is None:
                        child = node[known] = {}
                    node = child
                meanings = node.get(_MEANINGS)
                if meanings is None:
                    meanings = node[_MEANINGS] = Meanings()
                if meaning not in meanings:
                    meanings.append(meaning)
        self._entries = []

    def _find_yielding(self) -> None:
        """Note at the end of each yielding phrase after how many of its words a longer-reaching phrase may begin."""
        for words in self._yielding:
            path = [self._root]
            for word in words:
                path.append(path[-1][self._words[word] or word])
            starts = []
            for start in range(1, len(words)):
                node: dict[str, Any] | None = self._root
                for word in words[start:]:
                    node = node.get(self._words[word] or word) if node is not None else None
                if node is not None and node.keys() - {_MEANINGS, _YIELDS}:
                    cut = next((end for end in range(start, 0, -1) if _MEANINGS in path[end]), 0)
                    starts.append((start, cut, path[cut].get(_MEANINGS)))
            if starts:
                path[-1][_YIELDS] = starts
        self._yielding = set()

    def _share_nodes(self) -> None:
        """Keep one copy of equal meanings, and of equal nodes that are nothing but the end of a phrase."""
        shared: dict[tuple[Any, ...], dict[str, Any]] = {}
        stack = [self._root]
        while stack:
            node = stack.pop()
            for word, child in node.items():
                if word == _MEANINGS:
                    node[word] = shared.setdefault(tuple(child), {_MEANINGS: child})[_MEANINGS]
                elif word == _YIELDS:
                    continue
                elif len(child) == 1 and _MEANINGS in child:
                    node[word] = shared.setdefault(tuple(child[_MEANINGS]), child)
                else:
                    stack.append(child)

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
        for start, cut, meanings in node[_YIELDS]:
            if self._reach(words, index + start) > end:
                return index + max(cut, 1), meanings
        return end, node.get(_MEANINGS)

    def _reach(self, words: list[str | None], index: int) -> int:
        """Where the longest phrase that begins at ``index`` ends; ``index`` if none does."""
        node: Any = self._root
        end = index
        for place in range(index, len(words)):
            node = node.get(words[place])
            if node is None:
                break
            if _MEANINGS in node:
                end = place + 1
        return end


_CONTRACTIONS = {
    (verb, "not"): verb + "n't"
    for verb in ("is", "are", "was", "were", "has", "have", "had", "do", "does", "did", "could", "would", "should")
} | {("can", "not"): "can't", ("will", "not"): "won't"}


def _contracted(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words with the first "is not" as "isn't"."""
    for index, pair in enumerate(itertools.pairwise(words)):
        if pair in _CONTRACTIONS:
            return (*words[:index], _CONTRACTIONS[pair], *words[index + 2 :])
    return words


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
