"""The columns of a :class:`~medvl.data.study_list.StudyList`. What a study does not have is None, or a blank text."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4096
NOT_MENTIONED = -2
"""NaN, among states as int8."""


class Column(Protocol):
    """What a study list needs of a column."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which studies have a value."""


class TextColumn:
    """Texts in blocks of bytes; a blank text is none.

    Args:
        prefix: what many of the texts begin with, which is stored once.

    Example:
        >>> column = TextColumn("/data/")
        >>> column.extend(["/data/a.png", "", "b.png"])
        >>> [column[i] for i in range(3)], column.filled.tolist()
        (['/data/a.png', '', 'b.png'], [True, False, True])
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._blocks: list[tuple[bytes, array[int]]] = []
        self._open: list[bytes] = []

    def __len__(self) -> int:
        return len(self._blocks) * _CHUNK + len(self._open)

    def append(self, text: str) -> None:
        """Add a text."""
        if self.prefix and text.startswith(self.prefix):
            text = "\0" + text[len(self.prefix) :]
        self._open.append(text.encode("utf-8", "surrogatepass"))
        if len(self._open) == _CHUNK:
            ends = np.cumsum([len(text) for text in self._open], dtype=np.uint64)
            kind = "I" if not len(ends) or ends[-1] < 2**32 else "Q"
            self._blocks.append((b"".join(self._open), array(kind, ends.tolist())))
            self._open = []

    def extend(self, texts: Iterable[str]) -> None:
        """Add several texts."""
        for text in texts:
            self.append(text)

    def __getitem__(self, index: int) -> str:
        block, place = divmod(index, _CHUNK)
        if block == len(self._blocks):
            data = self._open[place]
        else:
            content, ends = self._blocks[block]
            data = content[ends[place - 1] if place else 0 : ends[place]]
        text = data.decode("utf-8", "surrogatepass")
        return self.prefix + text[1:] if text.startswith("\0") and self.prefix else text

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which texts are not blank."""
        lengths = [np.diff(np.asarray(ends, dtype=np.int64), prepend=0) for _, ends in self._blocks]
        return np.concatenate([*lengths, np.array([len(text) for text in self._open], dtype=np.int64)]) > 0


class NumberColumn:
    """Integers.

    Args:
        numbers: the numbers.
    """

    def __init__(self, numbers: array[int] | None = None) -> None:
        self.numbers = array("q") if numbers is None else numbers

    def append(self, number: int) -> None:
        """Add a number."""
        self.numbers.append(number)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> int:
        return self.numbers[index]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Every study has a number."""
        return np.ones(len(self), dtype=bool)


class LabelColumn:
    """Labels (K,) of 1, 0, -1 and NaN, as bytes; one that is all NaN is none.

    Args:
        width: K.
        data: N x K states as int8, those not mentioned as ``NOT_MENTIONED``.
    """

    def __init__(self, width: int, data: bytes | bytearray = b"") -> None:
        self._width, self._data = width, bytearray(data)

    def __len__(self) -> int:
        return len(self._data) // self._width

    def append(self, label: NDArray[np.float32] | None) -> None:
        """Add a label."""
        self._data += bytes([256 + NOT_MENTIONED]) * self._width if label is None else states_as_int8(label).tobytes()

    @property
    def states(self) -> NDArray[np.int8]:
        """The states, (N, K) int8."""
        return np.frombuffer(self._data, dtype=np.int8).reshape(-1, self._width)

    def __getitem__(self, index: int) -> NDArray[np.float32] | None:
        states = states_as_float(self.states[index])
        return None if np.isnan(states).all() else states

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which labels have a state."""
        return (self.states != NOT_MENTIONED).any(axis=1)


class StatesColumn:
    """Labels (K,) of studies, which may be all NaN.

    Args:
        states: (N, K) int8.
        filled: (N,), which studies have a label.
    """

    def __init__(self, states: NDArray[np.int8], filled: NDArray[np.bool_]) -> None:
        self.states, self.filled = states, filled

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: int) -> NDArray[np.float32] | None:
        return states_as_float(self.states[index]) if self.filled[index] else None


class CodedColumn:
    """Values of which there are few, each study's by its number.

    Args:
        values: the values.
        codes: the number of each study's value.

    Example:
        >>> CodedColumn(["image-text", "text-label"], np.array([1, 0]))[0]
        'text-label'
    """

    def __init__(self, values: Sequence[Any], codes: NDArray[Any]) -> None:
        self.values, self.codes = list(values), codes.astype(np.min_scalar_type(len(values)))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> Any:
        return self.values[self.codes[index]]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which studies have a value that is not None."""
        return np.array([value is not None for value in self.values], dtype=bool)[self.codes]


class DictColumn:
    """The values of one key of dictionaries."""

    def __init__(self, studies: Sequence[Mapping[str, Any]], key: str) -> None:
        self._studies, self._key = studies, key

    def __len__(self) -> int:
        return len(self._studies)

    def __getitem__(self, index: int) -> Any:
        return self._studies[index].get(self._key)

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which dictionaries have the key."""
        return np.fromiter((self._key in study for study in self._studies), dtype=bool, count=len(self))


class PrefixedColumn:
    """Another column of texts, each behind a prefix."""

    def __init__(self, column: Column, prefix: str) -> None:
        self._column, self._prefix = column, prefix

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> str:
        text = self._column[index]
        return f"{self._prefix}{text}" if text else ""

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which texts are not blank."""
        return self._column.filled


class TakenColumn:
    """Some values of another column, in another order."""

    def __init__(self, column: Column, places: NDArray[np.int64]) -> None:
        self._column, self._places = column, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        return self._column[int(self._places[index])]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which studies have a value."""
        return self._column.filled[self._places]

    @property
    def digests(self) -> NDArray[np.uint64]:
        """A hash of each image's content; ``AttributeError`` if the column does not have them."""
        column: Any = self._column
        digests: NDArray[np.uint64] = column.digests[self._places]
        return digests


class JoinedColumn:
    """Columns one after the other."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = list(columns)
        self._ends = list(accumulate(map(len, columns)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        number = bisect_right(self._ends, index)
        return self._columns[number][index - (self._ends[number - 1] if number else 0)]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which studies have a value."""
        return np.concatenate([column.filled for column in self._columns])

    @property
    def digests(self) -> NDArray[np.uint64]:
        """A hash of each image's content; ``AttributeError`` if a column does not have them."""
        columns: list[Any] = self._columns
        return np.concatenate([column.digests for column in columns])


def states_as_int8(label: Any) -> NDArray[np.int8]:
    """States of 1, 0, -1 and NaN as int8."""
    states = np.asarray(label, dtype=np.float32)
    return np.where(np.isnan(states), NOT_MENTIONED, states).astype(np.int8)


def states_as_float(states: NDArray[np.int8]) -> NDArray[np.float32]:
    """States as int8 as 1, 0, -1 and NaN."""
    label = states.astype(np.float32)
    label[label == NOT_MENTIONED] = np.nan
    return label
