"""Bootstrap intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_ELEMENTS = 2**17
"""Weights (resamples x cases) handled at one time: small enough to stay in a processor's cache."""

UNDEFINED = 0.1
"""Share of undefined resamples above which there is no interval; three patients leave 1 in 20 resamples without any."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; NaN stands for what is not defined.

    Args:
        value: the estimate on all cases.
        low: lower end of the interval.
        high: upper end of the interval.

    Example:
        >>> print(Estimate(0.8125, 0.75, 0.875), Estimate(0.5), Estimate(float("nan")), sep=" | ")
        0.812 [0.750, 0.875] | 0.500 | n/a
        >>> Estimate(0.5).to_dict()
        {'value': 0.5, 'interval': None}
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether both ends are defined."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def to_dict(self) -> dict[str, Any]:
        """``{"value": v, "interval": [low, high]}``, with None for what is not defined."""
        return {
            "value": None if math.isnan(self.value) else float(self.value),
            "interval": [float(self.low), float(self.high)] if self.has_interval else None,
        }

    def format(self, spec: str = ".3f") -> str:
        """The value and its interval as text, each number formatted by ``spec``."""
        if math.isnan(self.value):
            return "n/a"
        return f"{self.value:{spec}}" + (f" [{self.low:{spec}}, {self.high:{spec}}]" if self.has_interval else "")

    def __str__(self) -> str:
        return self.format()


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[Any] | np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Values of a statistic on resamples of the patients, drawn with replacement.

    Cases of one patient are not independent, so patients are drawn and bring all their cases along (the cluster
    bootstrap). A resample is a weight for each case: how often its patient was drawn. The same groups and seed give the same
    resamples, so two models can be compared on them pair by pair.

    Args:
        statistic: from weights (B, N), whole numbers as float32, to values (B, ...), for any B.
        groups: the patient of each of the N cases.
        resamples: how many.
        seed: of the draws.

    Returns:
        Values (resamples, ...), float64; NaN where all cases are of one patient, which says nothing of the spread.

    Raises:
        ValueError: if ``resamples`` is below 1 or there is no case.

    Example:
        >>> cases = np.array([1.0, 2.0, 3.0, 4.0])
        >>> means = bootstrap(lambda w: w @ cases / w.sum(1), ["a", "a", "b", "b"], resamples=500)
        >>> sorted(set(means.tolist()))  # patients a and a, a and b, b and b
        [1.5, 2.5, 3.5]
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; received {resamples}")
    _, patient = np.unique(np.asarray(groups), return_inverse=True)
    if not len(patient):
        raise ValueError("a bootstrap needs at least one case; received none")
    values = np.concatenate([np.asarray(statistic(w), float) for w in _weights(patient, resamples, seed)])
    return values if patient.max() > 0 else np.full_like(values, np.nan)


def estimates(
    figures: Callable[[np.ndarray], dict[str, np.ndarray]],
    groups: Sequence[Any] | np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Several figures of the same cases with their intervals, from the same resamples of the patients.

    Args:
        figures: from weights (B, N), whole numbers as float32, to values (B,) by name; weights of one give the values.
        groups: the patient of each of the N cases.
        resamples: how many (see :func:`bootstrap`).
        level: of the intervals.
        seed: of the draws.

    Returns:
        Estimates by name.

    Raises:
        ValueError: as :func:`bootstrap` and :func:`interval`.

    Example:
        >>> cases = np.array([1.0, 2.0, 3.0, 4.0])
        >>> print(estimates(lambda w: {"mean": w @ cases / w.sum(1)}, "aabb")["mean"])
        2.500 [1.500, 3.500]
    """
    groups = np.asarray(list(groups))
    values = figures(np.ones((1, len(groups)), np.float32))
    names = list(values)

    def stacked(weights: np.ndarray) -> np.ndarray:
        drawn = figures(weights)
        return np.stack([drawn[name] for name in names], axis=1)

    low, high = interval(bootstrap(stacked, groups, resamples=resamples, seed=seed), level)
    return {name: Estimate(float(values[name][0]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of bootstrap values (B, ...), as two arrays (...).

    Resamples where the statistic is not defined (NaN: a finding whose few cases were not drawn) are left out. Where that
    is more than a tenth of them there is no interval (NaN): with one or two patients behind a class, what resamples vary
    is not what is uncertain.

    Args:
        values: from :func:`bootstrap`.
        level: share of the values inside, between 0 and 1.

    Returns:
        The lower and the upper ends.

    Raises:
        ValueError: if ``level`` is not between 0 and 1.

    Example:
        >>> low, high = interval(np.arange(101.0), level=0.9)
        >>> print(low.round(3), high.round(3))
        5.0 95.0
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; received {level}")
    values = np.asarray(values, float)
    undefined = np.isnan(values).mean(axis=0) > UNDEFINED
    low, high = np.nanquantile(np.where(undefined, 0.0, values), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _weights(patient: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (B, N) block by block, ``resamples`` rows in all, from patient numbers (N,)."""
    number = int(patient.max()) + 1
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // len(patient))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, number, size=(rows, number)) + number * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        yield counts.astype(np.float32)[:, patient]
