"""Ids of studies as integers that tensors can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from medvl.utils.checks import error_message


def hash_id(text: str) -> int:
    """A 63-bit hash of an id, the same in every process, run and machine.

    Example:
        >>> hash_id("s1") == hash_id("s1"), hash_id("s1") == hash_id("s2")
        (True, False)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def id_strings(ids: Iterable[Any]) -> list[str]:
    """Ids as strings; an integer that a loader made a tensor of is read as the integer.

    Example:
        >>> import torch
        >>> id_strings(torch.tensor([7, 12])), id_strings(["a", 3])
        (['7', '12'], ['a', '3'])
    """
    return [str(value.item() if hasattr(value, "item") else value) for value in ids]


def batch_ids(batch: Mapping[str, Any], count: int, start: int) -> tuple[list[str], list[str]]:
    """Study and patient ids of a batch's cases; without ids a case is named by its position, and is its own patient.

    Args:
        batch: may have ``study_id`` and ``patient_id``.
        count: number of cases in it.
        start: number of cases before it.

    Raises:
        ValueError: If there are ids, but not one for each case.

    Example:
        >>> batch_ids({"patient_id": ["p", "q"]}, count=2, start=4)
        (['4', '5'], ['p', 'q'])
    """
    given = {key: id_strings(ids) for key in ("study_id", "patient_id") if (ids := batch.get(key)) is not None}
    for key, ids in given.items():
        if len(ids) != count:
            raise ValueError(error_message(key, f"have one entry for each of the {count} images", len(ids)))
    studies = given.get("study_id", id_strings(range(start, start + count)))
    return studies, given.get("patient_id", studies)
