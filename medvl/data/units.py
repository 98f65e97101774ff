"""What is drawn at a time from a data set, held in arrays: units of alternatives, each of items that are drawn together."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias, overload

#: What is sampled at once: an index, or alternatives, of which successive draws take one after the other. Each alternative is
#: the list of indices that go into the batch together.
Unit: TypeAlias = int | Sequence[Sequence[int]]


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
