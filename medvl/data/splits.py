"""Training, validation and test parts that never cut a patient."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

SPLITS = ("train", "val", "test")


def patient_of(study: Mapping[str, Any]) -> Hashable:
    """What must stay in one split: the patient, or where none is known the study."""
    patient = study.get("patient_id")
    return ("patient", patient) if patient is not None else ("study", study["study_id"])


def split_by_patient(
    studies: Sequence[Mapping[str, Any]], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> list[dict[str, Any]]:
    """Give each study a ``split``, all studies of a patient the same one.

    Patients are put in an order that depends on their ids and the seed alone, so neither the order of the rows nor a
    patient's number of studies changes who is where. Studies without a ``patient_id`` are grouped by ``study_id``.

    Args:
        studies: dictionaries with ``study_id`` and, where known, ``patient_id``.
        fractions: shares of the patients for train, val and test; at least 0, in sum 1. A share above 0 gets a patient
            as long as there are patients enough.
        seed: another seed, another split.

    Returns:
        Copies of the studies, in the same order, each with ``split``: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: three fractions of at least 0 and in sum 1 were expected.

    Example:
        >>> studies = [{"study_id": str(i), "patient_id": str(i // 2)} for i in range(8)]
        >>> [study["split"] for study in split_by_patient(studies, fractions=(0.5, 0.25, 0.25))]
        ['train', 'train', 'test', 'test', 'val', 'val', 'train', 'train']
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected three shares of at least 0 that sum to 1, received {tuple(fractions)}")
    groups = sorted({patient_of(study) for study in studies}, key=lambda group: _draw(group, seed))
    counts = apportion(len(groups), fractions)
    names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    split_of = dict(zip(groups, names, strict=True))
    return [{**study, "split": split_of[patient_of(study)]} for study in studies]


def _draw(group: Hashable, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group!r}".encode()).digest()


def apportion(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers in sum ``total``, as near the fractions as they come (largest remainder).

    A fraction above 0 gets at least 1 as long as there is enough.

    Args:
        total: what to share out, at least 0.
        fractions: shares of at least 0 that sum to 1.

    Example:
        >>> apportion(10, [0.5, 0.26, 0.24]), apportion(3, [0.98, 0.01, 0.01])
        ([5, 3, 2], [1, 1, 1])
    """
    exact = [total * fraction for fraction in fractions]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    wanted = [i for i, fraction in enumerate(fractions) if fraction > 0]
    for i in wanted:
        if counts[i] == 0 and total >= len(wanted):
            counts[max(range(len(counts)), key=lambda j: counts[j])] -= 1
            counts[i] += 1
    return counts
