"""Splits of several sources: what two of them share is in one split."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.leaks import join_groups
from medvl.data.manifest import Manifest
from medvl.data.splits import SPLITS, split_keys
from medvl.data.study_list import has_key, text_column, with_texts

logger = logging.getLogger(__name__)


def split_sources(sources: Sequence[Manifest], seed: int = 0) -> list[Manifest]:
    """Split every source by patient, with each patient and image that several sources have in one split.

    A group of patients who share images has the split of a source that came with splits (the one evaluated last, if they
    differ), else the split that the first source gives it. Splits that a source came with are never changed.

    Args:
        sources: the manifests, with or without splits.
        seed: of the splits.

    Returns:
        The manifests, each study with a ``split``.
    """
    own = [bool(has_key(source.studies, "split").all()) for source in sources]
    split = [source.assign_splits(seed=seed) for source in sources]
    if len(sources) < 2:
        return split
    groups = np.array(join_groups(_keys_of(split)), dtype=np.int64)
    owner = np.repeat(np.arange(len(split)), [len(source) for source in split])
    codes = np.fromiter(
        (SPLITS.index(name) for source in split for name in text_column(source.studies, "split")), np.int8
    )
    chosen = np.full(len(groups), -1, dtype=np.int8)  # by the number of a group
    for number, is_own in reversed(list(enumerate(own))):  # drawn: that of the first source
        rows = np.flatnonzero(owner == number)[::-1]
        if not is_own:
            chosen[groups[rows]] = codes[rows]
    fixed = np.full(len(groups), -1, dtype=np.int8)
    rows = np.flatnonzero(np.asarray(own)[owner])
    np.maximum.at(fixed, groups[rows], codes[rows])
    chosen = np.where(fixed >= 0, fixed, chosen)
    out = []
    for number, source in enumerate(split):
        if not own[number]:
            codes[owner == number] = chosen[groups[owner == number]]
            names = (SPLITS[code] for code in codes[owner == number])
            source = replace(source, studies=with_texts(source.studies, "split", names))
        out.append(source)
    _warn_of_conflicts(codes, owner, split)
    return out


def _keys_of(sources: Sequence[Manifest]) -> Iterator[list[tuple[Hashable, Hashable]]]:
    """The keys of each study: its id says nothing beyond its source, a patient's may."""
    for number, source in enumerate(sources):
        for study in source.studies:
            yield [(number, key) if key[0] == "study" else key for key in split_keys(study)]


def _warn_of_conflicts(splits: NDArray[np.int8], owners: NDArray[np.int64], sources: Sequence[Manifest]) -> None:
    """Warn of the patients and images that two sources have in splits of their own that differ."""
    rows, hashes, images = array("q"), array("q"), bytearray()
    for row, own in enumerate(_keys_of(sources)):
        for key in own:
            rows.append(row)
            hashes.append(hash(key))
            images.append(key[0] == "image")
    place = np.asarray(rows, dtype=np.int64)
    _, first, key_of = np.unique(np.asarray(hashes, dtype=np.int64), return_index=True, return_inverse=True)
    differs = np.zeros((2, len(first)), dtype=bool)
    columns: tuple[NDArray[Any], ...] = splits, owners
    for several, values in zip(differs, columns, strict=True):
        several[key_of[values[place] != values[place[first]][key_of]]] = True
    is_image = np.frombuffer(images, dtype=np.uint8)[first].astype(bool)
    shared = differs.all(axis=0)
    numbers = {"patient": int((shared & ~is_image).sum()), "image": int((shared & is_image).sum())}
    counted = [f"{number} {what if number == 1 else what + 's'}" for what, number in numbers.items() if number]
    if counted:
        logger.warning(
            "%s in two splits, because the sources' own splits differ; medvl audit lists them.", " and ".join(counted)
        )
