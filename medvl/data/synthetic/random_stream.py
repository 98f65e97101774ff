"""Seeded random numbers that are the same on every machine.

Scalars come from :class:`random.Random`, whose ``random()`` Python guarantees to keep, and pixel noise from the raw bits of a
PCG64 generator, which NumPy guarantees to keep.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def hash_key(*key: object) -> int:
    """A 64-bit integer from the parts of a key."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8], "big")


class RandomStream:
    """A stream of random numbers that is determined by its key.

    Args:
        *key: the parts of the key, for example ``(seed, "findings", index)``.

    Example:
        >>> RandomStream(0, "findings", 3).uniform(0, 1) == RandomStream(0, "findings", 3).uniform(0, 1)
        True
    """

    def __init__(self, *key: object) -> None:
        self._random = random.Random(hash_key(*key)).random

    def uniform(self, low: float, high: float) -> float:
        """A number from [low, high)."""
        return low + (high - low) * self._random()

    def bernoulli(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each with the same probability."""
        return options[int(self._random() * len(options))]

    def weighted_choice(self, options: Sequence[tuple[T, float]]) -> T:
        """One of the options, each a pair of value and probability; probabilities sum to 1."""
        left = self._random()
        for option, probability in options:
            left -= probability
            if left < 0:
                return option
        return options[-1][0]

    def permutation(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher-Yates shuffle on ``random()`` alone)."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = int(self._random() * (last + 1))
            out[last], out[other] = out[other], out[last]
        return out


def random_bytes(count: int, *key: object) -> NDArray[np.uint8]:
    """``count`` random bytes that are determined by the key, whatever the machine's byte order."""
    raw = np.random.PCG64(hash_key(*key)).random_raw((count + 7) // 8)
    return raw.astype("<u8", copy=False).view(np.uint8)[:count]
