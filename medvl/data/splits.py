"""Training, validation and test splits by patient."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import fold_characters
from medvl.data.leaks import file_identity, image_paths, join_groups
from medvl.data.study_list import hash_column, with_texts
from medvl.utils.checks import error_message
from medvl.utils.counts import count_of

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_THOUSANDS = re.compile(r"\d{1,3}([.,' \u2019]\d{3})+")


def group_key(study: Mapping[str, Any]) -> tuple[str, Hashable]:
    """What must stay in one split: the patient, or the study if no patient is known."""
    patient = study.get("patient_id")
    return ("patient", patient) if patient is not None else ("study", study["study_id"])


def patient_spelling(patient: str) -> str:
    """An id without its case, the zeros before its number, signs between its thousands and other forms of its characters: ids
    that differ in nothing else may be one patient's.

    Example:
        >>> [patient_spelling(patient) for patient in ("7", "007", "P-07", "p\u20137", "1007", "1,007")]
        ['7', '7', 'p-7', 'p-7', '1007', '1007']
    """
    text = fold_characters(unicodedata.normalize("NFKC", patient)).casefold()
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    return re.sub(r"^(\D*)0+(?=\d+$)", r"\1", text)


def split_keys(study: Mapping[str, Any]) -> list[tuple[str, Hashable]]:
    """The patient (or study) and the image files: studies that share one of these must stay in one split.

    Patients whose ids may be spellings of one id (:func:`patient_spelling`) share a key.
    """
    key = group_key(study)
    if key[0] == "patient":
        key = ("patient", patient_spelling(str(key[1])))
    return [key, *(("image", file_identity(path)) for path in image_paths(study))]


def split_by_patient(
    studies: Sequence[Mapping[str, Any]], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> Sequence[dict[str, Any]]:
    """Assign each study a ``split``, the same one to all studies of a patient.

    Patients are ordered by a hash of their ids and the seed, so neither the order of the rows nor the number of studies of
    a patient changes the result. Studies without a ``patient_id`` are grouped by ``study_id``. Patients who share an image
    file, and those whose ids differ in case, in zeros before the number or in the kind of hyphen alone (``P-7`` and ``p–007``),
    are one group.

    Args:
        studies: dictionaries with ``study_id`` and, where known, ``patient_id`` and ``image``.
        fractions: fractions of the patients for train, val and test, at least 0, with sum 1. A positive fraction gets at
            least one patient if there are enough patients.
        seed: of the split.

    Returns:
        Copies of the studies, in the same order, each with ``split``: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: If ``fractions`` is not three numbers of at least 0 with sum 1.

    Example:
        >>> studies = [{"study_id": str(i), "patient_id": str(i // 2)} for i in range(8)]
        >>> [study["split"] for study in split_by_patient(studies, fractions=(0.5, 0.25, 0.25))]
        ['train', 'train', 'test', 'test', 'val', 'val', 'train', 'train']
    """
    numbers_given = isinstance(fractions, Iterable) and all(isinstance(number, Real) for number in fractions)
    shares = tuple(fractions) if numbers_given else ()
    if len(shares) != 3 or not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):
        received = shares if numbers_given else repr(fractions)
        raise ValueError(error_message("fractions", "be three numbers of at least 0 with sum 1", received))
    numbers = np.asarray(join_groups(map(split_keys, studies)), dtype=np.int64)
    members, position = np.unique(numbers, return_inverse=True)
    digests = _group_digests(studies, members, position, seed)
    order = np.lexsort(digests.view(">u8").reshape(len(members), 4).T[::-1])
    counts = allocate_counts(len(members), fractions)
    wanted = [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    empty = [name for name in wanted if not counts[SPLITS.index(name)]]
    if empty and len(studies) >= len(wanted):
        logger.warning(
            "No study is in the split %s: there are %s of %s; a patient, or a study without one, is in one split.",
            " or ".join(empty),
            count_of(len(studies), "study", "studies"),
            count_of(len(members), "patient"),
        )
    split_of = np.empty(len(members), dtype=np.int8)
    split_of[order] = np.repeat(np.arange(len(SPLITS), dtype=np.int8), counts)
    return with_texts(studies, "split", (SPLITS[number] for number in split_of[position]))


def _group_digests(
    studies: Sequence[Mapping[str, Any]], members: NDArray[np.int64], position: NDArray[np.int64], seed: int
) -> NDArray[np.uint8]:
    """For each group, whose first studies ``members`` are, the hash (32,) of the patient (or study) that stands for it."""
    keys = hash_column(studies, group_key)
    single = keys == keys[members][position]
    several: dict[int, set[Hashable]] = {group: set() for group in np.unique(position[~single]).tolist()}
    digests = np.zeros((len(members), 32), dtype=np.uint8)
    for group, member in enumerate(members.tolist()):
        digests[group] = np.frombuffer(_hash(group_key(studies[member]), seed), dtype=np.uint8)
    if several:
        for study, group in zip(studies, position.tolist(), strict=True):
            if group in several:
                several[group].add(group_key(study))
        for group, found in several.items():
            digests[group] = np.frombuffer(_hash(min(found, key=repr), seed), dtype=np.uint8)
    return digests


def _hash(group: Hashable, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group!r}".encode()).digest()


def allocate_counts(total: int, fractions: Sequence[float]) -> list[int]:
    """Integers with sum ``total`` that are nearest to the fractions (largest remainder method).

    A positive fraction gets at least 1 if ``total`` is large enough.

    Args:
        total: number of items to allocate, at least 0.
        fractions: fractions of at least 0 with sum 1.

    Example:
        >>> allocate_counts(10, [0.5, 0.26, 0.24]), allocate_counts(3, [0.98, 0.01, 0.01])
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
