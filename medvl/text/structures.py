"""Statements about body parts, such as "heart size is normal" and "enlarged heart": which predicate belongs to which part."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

WordSpan: TypeAlias = tuple[int, int]
"""Half-open range of word indices in a sentence."""

# More words than this between two body parts, and they are not one list.
_MAX_GAP = 2


class StructureStatement(NamedTuple):
    """A predicate and the body part that it describes.

    Attributes:
        structure: index into ``Vocabulary.structures``.
        structure_words: words of the body part.
        predicate: name of the predicate.
        predicate_words: words of the predicate.
    """

    structure: int
    structure_words: WordSpan
    predicate: str
    predicate_words: WordSpan


class StructureTracker:
    """Pairs body parts with predicates, in the order in which a sentence is read.

    A predicate in front ("enlarged heart and aorta") describes each body part until something ends it. One behind ("heart
    and aorta are normal") describes the list of body parts before it, if a verb or no comma stands between them.

    Attributes:
        predicate: the predicate in front that describes the next body part, with its words; None ends its reach.
        verb_seen: whether a verb followed the last body part; to be set by the reader of the sentence.
        comma_seen: whether a comma or the end of a clause followed it; to be set by the reader.
    """

    __slots__ = ("_structures", "comma_seen", "predicate", "verb_seen")

    def __init__(self) -> None:
        self.predicate: tuple[str, WordSpan] | None = None
        self.verb_seen = self.comma_seen = False
        self._structures: list[tuple[int, WordSpan]] = []

    def add_structure(self, structure: int, words: WordSpan, after_conjunction: bool) -> list[StructureStatement]:
        """Read a body part, and return the statement of a predicate in front of it, if there is one."""
        if self.predicate is not None:
            return [StructureStatement(structure, words, *self.predicate)]
        if self._structures:
            distant = words[0] - self._structures[-1][1][1] > _MAX_GAP
            if self.verb_seen or (self.comma_seen and distant and not after_conjunction):
                self._structures = []
        self._structures.append((structure, words))
        self.verb_seen = self.comma_seen = False
        return []

    def add_predicate(self, predicate: str, words: WordSpan) -> list[StructureStatement]:
        """Read a predicate, and return its statements about the body parts before it, if it describes those."""
        connected = self._structures and (self.verb_seen or not self.comma_seen)
        if not connected or self._structures[-1][1][1] > words[0]:
            self.predicate = (predicate, words)
            return []
        statements = [StructureStatement(structure, span, predicate, words) for structure, span in self._structures]
        self._structures = []
        self.predicate = None
        return statements
