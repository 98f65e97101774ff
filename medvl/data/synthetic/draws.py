"""Seeded draws and identities: which patient a study is of, and which split the patient is in.

Scalars come from :class:`random.Random`, whose ``random()`` Python promises to keep, and pixel noise from the raw bits of a
PCG64 generator, which NumPy promises to keep; so one seed gives one study on every machine.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")

BLOCK = 6
"""Studies are dealt to patients in blocks of this many, so that the patient of study i needs no other block."""


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")


class Draws:
    """A stream of random choices named by its seeds.

    Args:
        *parts: what names the stream, for example ``(seed, "study", index)``.

    Example:
        >>> Draws(0, "study", 3).uniform(0, 1) == Draws(0, "study", 3).uniform(0, 1)
        True
    """

    def __init__(self, *parts: object) -> None:
        self._random = random.Random(_seed(*parts)).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """One of the options, each a pair of value and weight; weights sum to 1."""
        left = self._random()
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates on ``random()`` alone)."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = int(self._random() * (last + 1))
            out[last], out[other] = out[other], out[last]
        return out


def noise_bytes(count: int, *parts: object) -> np.ndarray:
    """``count`` random bytes as uint8, the same on machines of either byte order."""
    raw = np.random.PCG64(_seed(*parts)).random_raw((count + 7) // 8)
    return raw.astype("<u8", copy=False).view(np.uint8)[:count]


@lru_cache(maxsize=4096)
def _block_sizes(seed: int, block: int) -> tuple[int, ...]:
    """How many studies each patient of the block has: one to three, together :data:`BLOCK`."""
    draws = Draws(seed, "block", block)
    sizes: list[int] = []
    while sum(sizes) < BLOCK:
        sizes.append(min(draws.weighted([(1, 0.4), (2, 0.35), (3, 0.25)]), BLOCK - sum(sizes)))
    return tuple(sizes)


def patient_of(seed: int, index: int) -> int:
    """The number of the patient whose study ``index`` is; patients have one to three studies in a row."""
    block, place = divmod(index, BLOCK)
    number = 0
    for size in _block_sizes(seed, block):
        if place < size:
            break
        place -= size
        number += 1
    return block * BLOCK + number


def split_of(patient_id: str) -> str:
    """The split of a patient by a hash of the id: about 70 % train, 10 % val, 20 % test.

    Example:
        >>> split_of("syn0-p000000")
        'test'
    """
    share = _seed("split", patient_id) / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"
