"""Studies as a MONAI datalist, together with an account of every row they came from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np

from medvl.data.fingerprint import studies_fingerprint
from medvl.data.splits import SPLITS, split_by_patient
from medvl.data.study_list import StudyList, has_key, hash_column, select_studies, text_column
from medvl.utils.checks import check_option
from medvl.utils.counts import count_of
from medvl.utils.errors import StudyError

logger = logging.getLogger(__name__)

CONTENT_KEYS = ("image", "report", "label")


@dataclass(frozen=True)
class Manifest:
    """The studies of a table, and an account of every row.

    Args:
        name: the table's file name.
        studies: the datalist. Each dictionary holds ``study_id``, ``row`` (1 is the first below the header) and, where
            the table has them, ``image`` (absolute path), ``report`` (text), ``label`` (float32 (K,): 1 present,
            0 absent, -1 uncertain, NaN not mentioned), ``patient_id`` and ``split`` (``train``, ``val``, ``test``).
        names: the K finding names; empty if there are no labels or if they are unnamed.
        counts: number of ``rows``, of rows ``skipped``, and of rows with an ``image``, a ``report`` and a ``label``.
        skipped: the error of every row that was skipped (``on_error="skip"``).
        dropped: number of studies that :meth:`drop_missing` dropped, by the missing key.
        encoding: the file's encoding.
        unmatched: by the name of each joined table, the number of rows that have no row in it.
        columns: the name of the column that each of ``image``, ``report``, ``label``, ``patient``, ``study`` and ``split`` is
            read from, ``""`` for none; of several findings their number, as "14 columns", and with "file names" for patients
            that they hold. Empty for studies whose columns cannot be named.
    """

    name: str
    studies: Sequence[dict[str, Any]] = field(repr=False)
    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[StudyError] = field(default_factory=list, repr=False)
    dropped: dict[str, int] = field(default_factory=dict)
    encoding: str = "utf-8"
    unmatched: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_studies(
        cls,
        name: str,
        studies: Sequence[dict[str, Any]],
        rows: int,
        names: Sequence[str] = (),
        skipped: Sequence[StudyError] = (),
        encoding: str = "utf-8",
    ) -> Manifest:
        """A manifest whose ``counts`` are those of the studies.

        Args:
            name: see :class:`Manifest`.
            studies: see :class:`Manifest`; views of one study share their ``row``.
            rows: number of rows read, including those skipped.
            names: the K finding names.
            skipped: the errors of the rows that were skipped.
            encoding: the file's encoding.
        """
        counts = {"rows": rows, "skipped": len(skipped)}
        row = studies.rows() if isinstance(studies, StudyList) else np.array([study["row"] for study in studies])
        counts |= {key: len(np.unique(row[has_key(studies, key)])) for key in CONTENT_KEYS}
        return cls(name, studies, tuple(names), counts, list(skipped), encoding=encoding)

    def __len__(self) -> int:
        return len(self.studies)

    def summary(self) -> str:
        """How many rows were read, skipped and dropped, in plain sentences."""
        read = self.counts["rows"] - self.counts["skipped"]
        skipped = f" ({self.counts['skipped']} skipped for an error)" if self.counts["skipped"] else ""
        parts = [f"{self.counts[key]} with {_article(key)}, {read - self.counts[key]} without" for key in CONTENT_KEYS]
        text = f"{self.name}: {count_of(self.counts['rows'], 'row')}{skipped}: {'; '.join(parts)}."
        for key, count in self.dropped.items():
            text += f" {count_of(count, 'study', 'studies')} without {_article(key)} dropped."
        for table, count in self.unmatched.items():
            text += f" {count_of(count, 'row has', 'rows have')} no row in {table}."
        if self.encoding != "utf-8":
            text += f" The file is not UTF-8 and was read as {self.encoding}."
        return text

    def drop_missing(self, *keys: str) -> Manifest:
        """Drop the studies that lack any of these keys, and count them in ``dropped``.

        Args:
            keys: ``image``, ``report``, ``label`` or any other key of a study.

        Raises:
            ValueError: If no study is left.
        """
        left = np.ones(len(self.studies), dtype=bool)
        dropped = Counter(self.dropped)
        for key in keys:
            missing = left & ~has_key(self.studies, key)
            dropped.update({key: int(missing.sum())} if missing.any() else {})
            left &= ~missing
        kept = select_studies(self.studies, left)
        if not kept and not self.studies and self.skipped:
            raise ValueError(f"Every row of {self.name} was skipped for an error, the first: {self.skipped[0]}.")
        if not kept:
            wanted = " and ".join(_article(key) for key in keys)
            absent = [_article(key) for key in keys if not self.counts.get(key, 1)]
            hint = f"; no row has {' or '.join(absent)}, so check which column is read for it" if absent else ""
            raise ValueError(f"None of the {len(self.studies)} studies of {self.name} has {wanted}{hint}.")
        return replace(self, studies=kept, dropped=dict(dropped))

    def assign_splits(self, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Manifest:
        """Split the studies by patient (:func:`split_by_patient`); if all of them have a split already, keep it.

        Studies without a patient are split by study, with a warning that counts them.
        """
        if has_key(self.studies, "split").all():
            return self
        nobodys = select_studies(self.studies, ~has_key(self.studies, "patient_id"))
        unknown = len(np.unique(hash_column(nobodys, itemgetter("study_id"))))
        if unknown:
            logger.warning(
                "%s: %s split by study, so that a patient may be in two splits; if it has patients, name their column.",
                self.name,
                "1 study without a patient is" if unknown == 1 else f"{unknown} studies without a patient are",
            )
        return replace(self, studies=split_by_patient(self.studies, fractions, seed))

    def subset(self, split: str, allow_empty: bool = False) -> Manifest:
        """The manifest with the studies of one split.

        Args:
            split: ``train``, ``val`` or ``test``, or ``all`` for every study.
            allow_empty: whether the split may have no study.

        Raises:
            ValueError: If ``split`` is unknown or has no study, or if the studies have no splits yet.
        """
        check_option(split, "split", (*SPLITS, "all"))
        if split == "all":
            return self
        if not has_key(self.studies, "split").all():
            raise ValueError(f"{self.name} has no split column; call assign_splits() to split it by patient.")
        studies = select_studies(self.studies, [one == split for one in text_column(self.studies, "split")])
        if not studies and not allow_empty:
            total = count_of(len(self.studies), "study", "studies")
            raise ValueError(f"{self.name} has {total} and none in the split {split}.")
        return replace(self, studies=studies)

    def fingerprint(self) -> str:
        """A SHA-256 of the studies' content, that of their image files included (``medvl.data.fingerprint``).

        It does not change if the table and its images are moved, and changes with anything that training sees.
        """
        return studies_fingerprint(self.names, self.studies)


def _article(key: str) -> str:
    return f"an {key}" if key[0] in "aeiou" else f"a {key}"
