"""A datalist that holds its studies by column, so that a million of them need little more memory than their table."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4096
NOT_MENTIONED = -2
"""NaN, among states as int8."""


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


class _LabelColumn:
    """Labels (K,) of 1, 0, -1 and NaN, as bytes; one that is all NaN is none."""

    def __init__(self, data: bytes | bytearray = b"", rows: int = 0) -> None:
        self._data = bytearray(data)
        self._rows = rows

    def append(self, label: NDArray[np.float32] | None, width: int) -> None:
        states = np.full(width, np.nan, np.float32) if label is None else label
        self._data += np.where(np.isnan(states), NOT_MENTIONED, states).astype(np.int8).tobytes()
        self._rows += 1

    @property
    def states(self) -> NDArray[np.int8]:
        return np.frombuffer(self._data, dtype=np.int8).reshape(self._rows, -1)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        states = self.states[index].astype(np.float32)
        states[states == NOT_MENTIONED] = np.nan
        return states

    @property
    def filled(self) -> NDArray[np.bool_]:
        return (self.states != NOT_MENTIONED).any(axis=1)


class StudyList(Sequence[dict[str, Any]]):
    """Studies as a sequence of dictionaries, each made when it is asked for; a change of one is not kept.

    Args:
        width: K, the number of findings in a label.
        prefixes: by key, what many of its texts begin with.

    Example:
        >>> studies = StudyList()
        >>> studies.append({"study_id": "a", "row": 1, "report": "Clear."})
        >>> studies.append({"study_id": "b", "row": 2, "patient_id": "p"})
        >>> studies[1], studies.has("report").tolist(), list(studies.select([False, True])) == [studies[1]]
        ({'study_id': 'b', 'row': 2, 'patient_id': 'p'}, [True, False], True)
    """

    TEXTS = ("study_id", "split", "report", "patient_id", "image")
    _ORDER = ("study_id", "row", "patient_id", "split", "report", "label", "image")

    def __init__(self, width: int = 0, prefixes: Mapping[str, str] | None = None) -> None:
        self._width = width
        self._texts = {key: TextColumn((prefixes or {}).get(key, "")) for key in self.TEXTS}
        self._rows: array[int] = array("q")
        self._labels = _LabelColumn()
        self._index: NDArray[np.int64] | None = None

    @classmethod
    def from_columns(
        cls, width: int, texts: Mapping[str, Any], rows: array[int], labels: bytes | bytearray
    ) -> StudyList:
        """Studies whose columns are made already.

        Args:
            width: K, the number of findings in a label.
            texts: by key of ``TEXTS``, a :class:`TextColumn` or what has its ``__getitem__``, ``filled`` and ``prefix``.
            rows: the row of each study.
            labels: N x K states as int8, those not mentioned as ``NOT_MENTIONED``.
        """
        out = cls(width)
        out._texts, out._rows = {key: texts[key] for key in cls.TEXTS}, rows
        out._labels = _LabelColumn(labels, len(rows))
        return out

    def append(self, study: Mapping[str, Any]) -> None:
        """Add a study with keys of ``TEXTS``, ``row`` and ``label``."""
        for key, column in self._texts.items():
            column.append(study.get(key, ""))
        self._rows.append(study["row"])
        if self._width:
            self._labels.append(study.get("label"), self._width)

    def __len__(self) -> int:
        return len(self._rows) if self._index is None else len(self._index)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError("study index out of range.")
        place = self._places()[index] if self._index is not None else index % len(self)
        study: dict[str, Any] = {}
        for key in self._ORDER:
            if key == "row":
                study[key] = self._rows[place]
            elif key == "label":
                if self._width and not np.isnan(label := self._labels[place]).all():
                    study[key] = label
            elif text := self._texts[key][place]:
                study[key] = text
        return study

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _places(self) -> NDArray[np.int64]:
        return np.arange(len(self._rows)) if self._index is None else self._index

    def text(self, key: str, index: int) -> str:
        """The text of a key of one study; ``""`` if it has none."""
        return self._texts[key][index if self._index is None else int(self._index[index])]

    def column(self, key: str) -> Iterator[str]:
        """The texts of a key, ``""`` where a study has none."""
        column = self._texts[key]
        return (column[place] for place in self._places())

    def has(self, key: str) -> NDArray[np.bool_]:
        """Which studies have a key."""
        if key == "row" or not len(self):
            return np.ones(len(self), dtype=bool)
        if key == "label":
            filled = self._labels.filled if self._width else np.zeros(len(self._rows), dtype=bool)
        else:
            filled = self._texts[key].filled if key in self._texts else np.zeros(len(self._rows), dtype=bool)
        return filled[self._places()]

    @property
    def image_digests(self) -> NDArray[np.uint64] | None:
        """For packed studies a hash of each image's content, 0 where there is none; else None."""
        digests = getattr(self._texts["image"], "digests", None)
        return None if digests is None else digests[self._places()]

    def rows(self) -> NDArray[np.int64]:
        """The row of each study."""
        return np.asarray(self._rows, dtype=np.int64)[self._places()]

    def select(self, kept: Sequence[bool] | NDArray[np.bool_]) -> StudyList:
        """The studies where ``kept`` is true."""
        return self._copy(self._places()[np.asarray(kept, dtype=bool)], {})

    def replace(self, key: str, texts: Iterable[str]) -> StudyList:
        """The same studies with other texts of one key."""
        column = TextColumn(self._texts[key].prefix)
        if self._index is None:
            column.extend(texts)
            return self._copy(None, {key: column})
        new = dict(zip(self._index.tolist(), texts, strict=True))
        column.extend(new.get(place, "") for place in range(len(self._rows)))
        return self._copy(self._index, {key: column})

    def _copy(self, index: NDArray[np.int64] | None, texts: Mapping[str, TextColumn]) -> StudyList:
        out = StudyList(self._width)
        out._texts = {**self._texts, **texts}
        out._rows, out._labels, out._index = self._rows, self._labels, index
        return out


def _equal(one: Mapping[str, Any], other: Any) -> bool:
    if not isinstance(other, Mapping) or one.keys() != other.keys():
        return False
    return all(
        np.array_equal(value, other[key], equal_nan=True) if isinstance(value, np.ndarray) else value == other[key]
        for key, value in one.items()
    )


def has_key(studies: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.bool_]:
    """Which studies have a key."""
    if isinstance(studies, StudyList):
        return studies.has(key)
    return np.fromiter((key in study for study in studies), dtype=bool, count=len(studies))


def select_studies(studies: Sequence[Any], kept: Sequence[bool] | NDArray[np.bool_]) -> Sequence[Any]:
    """The studies where ``kept`` is true."""
    if isinstance(studies, StudyList):
        return studies.select(kept)
    return [study for study, keep in zip(studies, kept, strict=True) if keep]


def text_column(studies: Sequence[Mapping[str, Any]], key: str) -> Iterator[str]:
    """The texts of a key, ``""`` where a study has none."""
    return studies.column(key) if isinstance(studies, StudyList) else (study.get(key, "") for study in studies)


def with_texts(studies: Sequence[Mapping[str, Any]], key: str, texts: Iterable[str]) -> Sequence[dict[str, Any]]:
    """The studies with a text each as ``key``."""
    if isinstance(studies, StudyList):
        return studies.replace(key, texts)
    return [{**study, key: text} for study, text in zip(studies, texts, strict=True)]


def hash_column(studies: Sequence[Any], value: Callable[[Any], Any]) -> NDArray[np.int64]:
    """A hash of something of each study."""
    return np.fromiter((hash(value(study)) for study in studies), dtype=np.int64, count=len(studies))
