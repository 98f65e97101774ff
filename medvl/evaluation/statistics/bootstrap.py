"""Percentile confidence intervals from a bootstrap clustered by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medvl.utils.checks import check_integer, check_number, error_message

BLOCK_ELEMENTS = 2**17
"""Weights (resamples x cases) handled at one time: small enough to stay in a processor's cache."""

MAX_UNDEFINED = 0.1
"""Largest share of undefined resamples for which an interval is given; with three patients 1 resample in 20 lacks one."""


def check_confidence_level(value: float) -> None:
    """Raise where ``value`` is not a number above 0 and below 1."""
    check_number(value, "confidence_level")
    if not 0 < value < 1:
        raise ValueError(error_message("confidence_level", "be above 0 and below 1", value))


@dataclass(frozen=True)
class BootstrapConfig:
    """How bootstrap intervals are computed.

    Args:
        n_resamples: number of resamples, at least 1.
        confidence_level: nominal coverage of the intervals, above 0 and below 1.
        seed: seed of the resamples, at least 0.

    Raises:
        TypeError: If a value is not a number, or ``n_resamples`` or ``seed`` is not an integer.
        ValueError: If a value is out of range.

    Example:
        >>> BootstrapConfig(n_resamples=200)
        BootstrapConfig(n_resamples=200, confidence_level=0.95, seed=0)
    """

    n_resamples: int = 1000
    confidence_level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.n_resamples, "n_resamples", minimum=1)
        check_confidence_level(self.confidence_level)
        check_integer(self.seed, "seed", minimum=0)

    def to_dict(self) -> dict[str, Any]:
        """The three values by name."""
        return asdict(self)


DEFAULT_BOOTSTRAP = BootstrapConfig()
"""1000 resamples, 95 % intervals, seed 0."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its confidence interval; NaN where it is undefined.

    Args:
        value: the statistic of all cases.
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
        """``{"value": v, "interval": [low, high]}``, with None for what is undefined."""
        return {
            "value": None if math.isnan(self.value) else float(self.value),
            "interval": [float(self.low), float(self.high)] if self.has_interval else None,
        }

    def format(self, spec: str = ".3f") -> str:
        """The value and its interval as text, each number formatted by ``spec``; ``"n/a"`` where undefined."""
        if math.isnan(self.value):
            return "n/a"
        return f"{self.value:{spec}}" + (f" [{self.low:{spec}}, {self.high:{spec}}]" if self.has_interval else "")

    def __str__(self) -> str:
        return self.format()


def bootstrap_distribution(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[Any] | np.ndarray,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> np.ndarray:
    """Values of a statistic on resamples of the patients, drawn with replacement (the cluster bootstrap).

    Cases of one patient are not independent, so patients are drawn, each with all its cases. A resample is given as a weight
    for each case: how often its patient was drawn. The same groups and seed give the same resamples, so the values of two
    models are paired.

    Args:
        statistic: function from weights (B, N), integers as float32, to values (B, ...), for any B.
        groups: the patient of each case (N,).
        bootstrap: number of resamples and seed.

    Returns:
        Values (n_resamples, ...), float64; NaN where all cases are of one patient, whose spread is unknown.

    Raises:
        ValueError: If there is no case.

    Example:
        >>> cases = np.array([1.0, 2.0, 3.0, 4.0])
        >>> def mean(weights):
        ...     return weights @ cases / weights.sum(1)
        >>> means = bootstrap_distribution(mean, ["a", "a", "b", "b"], BootstrapConfig(n_resamples=500))
        >>> sorted(set(means.tolist()))  # patients a and a, a and b, b and b
        [1.5, 2.5, 3.5]
    """
    _, patients = np.unique(np.asarray(groups), return_inverse=True)
    if not len(patients):
        raise ValueError(error_message("groups", "name the patient of at least one case", "none"))
    blocks = _weights(patients, bootstrap.n_resamples, bootstrap.seed)
    values = np.concatenate([np.asarray(statistic(weights), float) for weights in blocks])
    return values if patients.max() > 0 else np.full_like(values, np.nan)


def bootstrap_estimates(
    statistics: Callable[[np.ndarray], dict[str, np.ndarray]],
    groups: Sequence[Any] | np.ndarray,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> dict[str, Estimate]:
    """Several statistics of the same cases with their intervals, from the same resamples of the patients.

    Args:
        statistics: function from weights (B, N), integers as float32, to values (B,) by name.
        groups: the patient of each case (N,).
        bootstrap: number of resamples, confidence level and seed.

    Returns:
        Estimates by name; the values are those for weights of one.

    Raises:
        ValueError: If there is no case.

    Example:
        >>> cases = np.array([1.0, 2.0, 3.0, 4.0])
        >>> print(bootstrap_estimates(lambda w: {"mean": w @ cases / w.sum(1)}, "aabb")["mean"])
        2.500 [1.500, 3.500]
    """
    groups = np.asarray(list(groups))
    values = statistics(np.ones((1, len(groups)), np.float32))
    names = list(values)

    def stacked(weights: np.ndarray) -> np.ndarray:
        drawn = statistics(weights)
        return np.stack([drawn[name] for name in names], axis=1)

    low, high = percentile_interval(bootstrap_distribution(stacked, groups, bootstrap), bootstrap.confidence_level)
    return {name: Estimate(float(values[name][0]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def percentile_interval(values: np.ndarray, confidence_level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of bootstrap values (B, ...), as two arrays (...).

    Resamples in which the statistic is undefined (NaN: no case of a rare finding was drawn) are ignored. Where they are more
    than a tenth of all there is no interval (NaN): with one or two patients in a class, the spread of the resamples does
    not represent the uncertainty.

    Args:
        values: (B, ...), from :func:`bootstrap_distribution`.
        confidence_level: nominal coverage, above 0 and below 1.

    Returns:
        The lower and the upper ends, each (...).

    Raises:
        ValueError: If ``confidence_level`` is out of range.

    Example:
        >>> low, high = percentile_interval(np.arange(101.0), confidence_level=0.9)
        >>> print(low.round(3), high.round(3))
        5.0 95.0
    """
    check_confidence_level(confidence_level)
    undefined = np.isnan(values).mean(axis=0) > MAX_UNDEFINED
    tail = (1 - confidence_level) / 2
    low, high = np.nanquantile(np.where(undefined, 0.0, values), [tail, (1 + confidence_level) / 2], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _weights(patients: np.ndarray, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (B, N) block by block, ``n_resamples`` rows in all, from patient numbers (N,)."""
    number = int(patients.max()) + 1
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // len(patients))
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn = generator.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        yield counts.astype(np.float32)[:, patients]
