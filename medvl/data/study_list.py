"""A datalist that holds its studies by column, so that a million of them need little more memory than their table."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from medvl.data.study_columns import (
    CodedColumn,
    Column,
    DictColumn,
    JoinedColumn,
    LabelColumn,
    NumberColumn,
    TakenColumn,
    TextColumn,
)


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

    def __init__(self, width: int = 0, prefixes: Mapping[str, str] | None = None) -> None:
        texts: dict[str, Any] = {key: TextColumn((prefixes or {}).get(key, "")) for key in self.TEXTS}
        self._set_columns(texts, NumberColumn(), LabelColumn(width) if width else None)

    def _set_columns(self, texts: Mapping[str, Any], rows: NumberColumn, labels: LabelColumn | None) -> None:
        labels_if_any = {} if labels is None else {"label": labels}
        order = ("patient_id", "split", "report")
        self._columns: dict[str, Any] = {
            "study_id": texts["study_id"],
            "row": rows,
            **{key: texts[key] for key in order},
            **labels_if_any,
            "image": texts["image"],
        }
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
        out = cls()
        out._set_columns(texts, NumberColumn(rows), LabelColumn(width, labels) if width else None)
        return out

    @classmethod
    def of(cls, studies: Sequence[Mapping[str, Any]]) -> StudyList:
        """Dictionaries as a study list, which refers to them; a study list as it is."""
        if isinstance(studies, StudyList):
            return studies
        keys = dict.fromkeys(["study_id", *(key for study in studies for key in study)])
        return cls()._copy({key: DictColumn(studies, key) for key in keys}, None)

    @classmethod
    def concatenate(cls, lists: Sequence[StudyList]) -> StudyList:
        """The studies of several lists one after the other, without a copy of them."""
        if len(lists) == 1:
            return lists[0]
        keys = dict.fromkeys(key for one in lists for key in one._columns)
        columns = {key: JoinedColumn([one.column_of(key) for one in lists]) for key in keys}
        return cls()._copy(columns, None)

    def append(self, study: Mapping[str, Any]) -> None:
        """Add a study with keys of ``TEXTS``, ``row`` and ``label``."""
        for key in self.TEXTS:
            self._columns[key].append(study.get(key, ""))
        self._columns["row"].append(study["row"])
        if "label" in self._columns:
            self._columns["label"].append(study.get("label"))

    def __len__(self) -> int:
        return len(self._columns["study_id"]) if self._index is None else len(self._index)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError("study index out of range.")
        place = int(self._index[index]) if self._index is not None else index % len(self)
        values = ((key, column[place]) for key, column in self._columns.items())
        return {key: value for key, value in values if value is not None and not (type(value) is str and not value)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Mapping[str, Any]]) -> StudyList:
        return StudyList.concatenate([self, StudyList.of(other)]) if len(other) else self

    def _places(self) -> NDArray[np.int64]:
        return np.arange(len(self)) if self._index is None else self._index

    def column_of(self, key: str) -> Column:
        """The values of a key, one a study."""
        if key not in self._columns:
            return CodedColumn([None], np.zeros(len(self), dtype=np.int8))
        column: Column = self._columns[key]
        return column if self._index is None else TakenColumn(column, self._index)

    def value(self, key: str, index: int) -> Any:
        """The value of a key of one study; None or ``""`` if it has none."""
        if key not in self._columns:
            return None
        return self._columns[key][index if self._index is None else int(self._index[index])]

    def text(self, key: str, index: int) -> str:
        """The text of a key of one study; ``""`` if it has none."""
        return self.value(key, index) or ""

    def column(self, key: str) -> Iterator[str]:
        """The texts of a key, ``""`` where a study has none."""
        return (self.text(key, index) for index in range(len(self)))

    def has(self, key: str) -> NDArray[np.bool_]:
        """Which studies have a key."""
        if key not in self._columns or not len(self):
            return np.zeros(len(self), dtype=bool)
        filled: NDArray[np.bool_] = self._columns[key].filled
        return filled if self._index is None else filled[self._index]

    @property
    def image_digests(self) -> NDArray[np.uint64] | None:
        """For packed studies a hash of each image's content, 0 where there is none; else None."""
        digests = getattr(self._columns.get("image"), "digests", None)
        return None if digests is None else digests[self._places()]

    def rows(self) -> NDArray[np.int64]:
        """The row of each study."""
        if isinstance(column := self._columns["row"], NumberColumn):
            return np.asarray(column.numbers, dtype=np.int64)[self._places()]
        return np.fromiter((self.value("row", index) for index in range(len(self))), dtype=np.int64, count=len(self))

    def select(self, kept: Sequence[bool] | NDArray[np.bool_]) -> StudyList:
        """The studies where ``kept`` is true."""
        return self._copy(self._columns, self._places()[np.asarray(kept, dtype=bool)])

    def replace(self, key: str, texts: Iterable[str]) -> StudyList:
        """The same studies with other texts of one key."""
        column = TextColumn(getattr(self._columns.get(key), "prefix", ""))
        column.extend(texts)
        return self.with_columns({key: column})

    def with_columns(self, columns: Mapping[str, Column], without: Sequence[str] = ()) -> StudyList:
        """The same studies with further columns, one value a study.

        Args:
            columns: the columns by key.
            without: keys that they lose.
        """
        own = {key: self.column_of(key) for key in self._columns if key not in (*without, *columns)}
        return self._copy({**own, **columns}, None)

    def _copy(self, columns: Mapping[str, Any], index: NDArray[np.int64] | None) -> StudyList:
        out = StudyList.__new__(StudyList)
        out._columns, out._index = dict(columns), index
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
