"""Splits of several sources: what two of them share is in one split."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

from medvl.data.leaks import join_groups
from medvl.data.manifest import Manifest
from medvl.data.splits import SPLITS, split_keys

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
    own = [all("split" in study for study in source.studies) for source in sources]
    split = [source.assign_splits(seed=seed) for source in sources]
    if len(sources) < 2:
        return split
    studies = [(number, study) for number, source in enumerate(split) for study in source.studies]
    # A study's id says nothing beyond its source; a patient's may.
    keys: list[list[Hashable]] = [
        [(number, key) if key[0] == "study" else key for key in split_keys(study)] for number, study in studies
    ]
    groups = join_groups(keys)
    fixed: dict[int, str] = {}
    drawn: dict[int, str] = {}
    for (number, study), group in zip(studies, groups, strict=True):
        if own[number]:
            fixed[group] = max(study["split"], fixed.get(group, SPLITS[0]), key=SPLITS.index)
        else:
            drawn.setdefault(group, study["split"])
    chosen = {**drawn, **fixed}
    out = []
    position = 0
    for number, source in enumerate(split):
        numbers = groups[position : position + len(source)]
        position += len(source)
        if not own[number]:
            moved = [{**study, "split": chosen[group]} for study, group in zip(source.studies, numbers, strict=True)]
            source = replace(source, studies=moved)
        out.append(source)
    _warn_of_conflicts([study["split"] for source in out for study in source.studies], keys, [n for n, _ in studies])
    return out


def _warn_of_conflicts(splits: Sequence[str], keys: Sequence[Sequence[Hashable]], sources: Sequence[int]) -> None:
    """Warn of the patients and images that two sources have in splits of their own that differ."""
    seen: dict[Hashable, set[tuple[str, int]]] = defaultdict(set)
    for split, own, source in zip(splits, keys, sources, strict=True):
        for key in own:
            seen[key].add((split, source))
    leaks = [
        key for key, found in seen.items() if len({split for split, _ in found}) > 1 and len({s for _, s in found}) > 1
    ]
    counted = [
        f"{number} {what if number == 1 else what + 's'}"
        for what in ("patient", "image")
        if (number := sum(key[0] == what for key in leaks))  # type: ignore[index]
    ]
    if counted:
        logger.warning(
            "%s in two splits, because the sources' own splits differ; medvl audit lists them.", " and ".join(counted)
        )
