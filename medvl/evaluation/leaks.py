"""Leaks between splits: patients, studies and images that are in two of them, and duplicates within one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.data import SharedItem, find_shared_items
from medvl.evaluation.tables import text_table
from medvl.utils.csv_files import CsvWriter
from medvl.utils.io import atomic_write

KINDS = {
    "patient": "patients",
    "study": "studies without a patient",
    "image": "image files in several rows",
    "content": "image files with copies",
}
COLUMNS = ("number", "kind", "leak", "source", "row", "study_id", "patient_id", "split", "image")


@dataclass(frozen=True)
class LeakAudit:
    """What is in two splits of a data set, or in several rows of one.

    Args:
        studies: the studies.
        items: what several of them have in common, leaks first.
    """

    studies: Sequence[Mapping[str, Any]]
    items: list[SharedItem]

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """By kind, the number of items in two splits and the number of those within one."""
        leaks = {kind: sum(item.kind == kind and item.is_leak for item in self.items) for kind in KINDS}
        return {kind: (leaks[kind], sum(item.kind == kind for item in self.items) - leaks[kind]) for kind in KINDS}

    def table(self) -> str:
        """The counts as a plain-text table."""
        rows = [
            # Several studies of a patient are no duplicates.
            [title, str(leaks), "" if kind in ("patient", "study") else str(duplicates)]
            for (kind, title), (leaks, duplicates) in zip(KINDS.items(), self.counts.values(), strict=True)
        ]
        return text_table([f"Leaks and duplicates of {len(self.studies)} rows", "in two splits", "in one split"], rows)

    def save(self, path: str | Path) -> Path:
        """Write a CSV with one row for each study of each item, and return the path."""
        with atomic_write(path, newline="") as file:
            writer = CsvWriter(file)
            writer.write_row(COLUMNS)
            for number, item in enumerate(self.items, start=1):
                for row in item.rows:
                    study = self.studies[row]
                    found = [study.get(key, "") for key in COLUMNS[3:]]
                    writer.write_row([number, item.kind, "yes" if item.is_leak else "no", *found])
        return Path(path)


def audit_leaks(studies: Sequence[Mapping[str, Any]]) -> LeakAudit:
    """Find what is in two splits, and images that are in several rows, see :func:`medvl.data.find_shared_items`.

    Args:
        studies: with ``study_id`` and, where known, ``source``, ``row``, ``patient_id``, ``image`` and ``split``.

    Example:
        >>> studies = [{"study_id": str(i), "patient_id": "p", "split": split} for i, split in enumerate(["train", "test"])]
        >>> audit_leaks(studies).counts["patient"]
        (1, 0)
    """
    return LeakAudit(studies, find_shared_items(studies))
