"""What is drawn at a time from a data set, held in arrays: items, and units of alternatives, each of items drawn together."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias, overload

#: What is sampled at once: an index, or alternatives, of which successive draws take one after the other. Each alternative is
#: the list of indices that go into the batch together.
Unit: TypeAlias = int | Sequence[Sequence[int]]

#: An index into the texts, or if true into the prompts.
TextIndex: TypeAlias = tuple[int, bool]


class UnitList(Sequence[tuple[tuple[int, ...], ...]]):
    """Units, each a tuple of alternatives, in a few bytes an item.

    Example:
        >>> units = UnitList()
        >>> units.append([(0, 3), (1, 3)])
        >>> units.append([(2,)])
        >>> units
        [((0, 3), (1, 3)), ((2,),)]
    """

    def __init__(self) -> None:
        self._items, self._alternatives, self._units = array("i"), array("q"), array("q")

    def append(self, unit: Iterable[Iterable[int]]) -> None:
        """Add a unit."""
        for alternative in unit:
            self._items.extend(alternative)
            self._alternatives.append(len(self._items))
        self._units.append(len(self._alternatives))

    def extend(self, units: Iterable[Iterable[Iterable[int]]]) -> None:
        """Add several units."""
        for unit in units:
            self.append(unit)

    def __len__(self) -> int:
        return len(self._units)

    @overload
    def __getitem__(self, index: int) -> tuple[tuple[int, ...], ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[tuple[int, ...], ...]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        first = self._units[index - 1] if index else 0
        ends = [self._alternatives[first - 1] if first else 0, *self._alternatives[first : self._units[index]]]
        return tuple(tuple(self._items[start:end]) for start, end in pairwise(ends))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


class ItemList:
    """Items: for each the number of its image, if it has one, and that of its text, with whether that is a prompt."""

    def __init__(self) -> None:
        self._images, self._texts = array("i"), array("q")

    def __len__(self) -> int:
        return len(self._images)

    def append(self, image: int | None, text: TextIndex | None) -> int:
        """Add an item, and say its number."""
        self._images.append(-1 if image is None else image)
        self._texts.append(-1 if text is None else 2 * text[0] + text[1])
        return len(self._images) - 1

    def __getitem__(self, index: int) -> tuple[int | None, TextIndex | None]:
        image, text = self._images[index], self._texts[index]
        return None if image < 0 else image, None if text < 0 else (text // 2, text % 2 == 1)


def units_of(items: Sequence[int], views: str) -> list[tuple[tuple[int, ...], ...]]:
    """The items of one study as units: each of its own, one at a time, or all together."""
    if not items:
        return []
    if views == "all":
        return [((item,),) for item in items]
    return [tuple((item,) for item in items)] if views == "sample" else [(tuple(items),)]
