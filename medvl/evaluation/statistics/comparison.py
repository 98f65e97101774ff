"""Paired comparison of two models on the same cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medvl.evaluation.statistics.bootstrap import (
    BLOCK_ELEMENTS,
    BootstrapConfig,
    Estimate,
    bootstrap_distribution,
    percentile_interval,
)
from medvl.evaluation.statistics.means import weighted_means
from medvl.evaluation.tables import text_table
from medvl.utils.checks import error_message

PAIRED_ATTRIBUTES = ("study_ids", "patient_ids", "classes", "targets", "candidate_ids", "candidate_groups")
"""What two results must share, where they have it, to be of the same cases."""

COMPARISON_BOOTSTRAP = BootstrapConfig(n_resamples=2000)
"""2000 resamples: a p-value needs more of them than an interval."""


class Comparable(Protocol):
    """What :func:`compare` asks of a result; implement it, or wrap your values in :class:`CaseMeans`."""

    @property
    def study_ids(self) -> Sequence[str]:
        """Of the N cases."""
        ...

    @property
    def patient_ids(self) -> Sequence[str]:
        """Of the N cases."""
        ...

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) by name for weights (B, N) of the cases."""
        ...


@dataclass(frozen=True)
class CaseMeans:
    """Statistics that are means of one value a case, such as Dice or a hit, in the form that :func:`compare` takes.

    Args:
        values: by statistic, one number a case (N,); NaN is ignored.
        study_ids: of the N cases.
        patient_ids: of the N cases.

    Raises:
        ValueError: If a length is not N.

    Example:
        >>> means = CaseMeans({"dice": np.array([0.5, 1.0, math.nan])}, ["a", "b", "c"], ["p", "p", "q"])
        >>> means.statistics(np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]))["dice"].tolist()
        [0.75, 0.5]
    """

    values: Mapping[str, np.ndarray]
    study_ids: Sequence[str]
    patient_ids: Sequence[str]

    def __post_init__(self) -> None:
        cases = len(self.study_ids)
        for name, given in {**self.values, "patient_ids": self.patient_ids}.items():
            if len(given) != cases:
                raise ValueError(error_message(name, f"have one entry for each of the {cases} cases", len(given)))

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weighted means (B,) for weights (B, N) of the cases; NaN where no case with a value has weight."""
        return {name: weighted_means(np.asarray(given)[:, None])(weights)[:, 0] for name, given in self.values.items()}


@dataclass(frozen=True)
class PairedDifference:
    """One statistic of two models.

    Args:
        first: of the first model.
        second: of the second model.
        difference: first minus second, with its interval.
        p_value: two-sided, for the null hypothesis of no difference; NaN where there is no interval.
    """

    first: float
    second: float
    difference: Estimate
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, with None for NaN."""
        numbers = {"first": self.first, "second": self.second, "p_value": self.p_value}
        plain = {name: None if math.isnan(value) else value for name, value in numbers.items()}
        return {**plain, "difference": self.difference.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """Paired differences of two models by statistic.

    Args:
        differences: by the statistic's name.
        settings: number of cases and patients, bootstrap.
    """

    differences: dict[str, PairedDifference]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Differences and settings as dictionaries of numbers, with None for NaN."""
        return {**{name: part.to_dict() for name, part in self.differences.items()}, "settings": self.settings}

    def table(self, names: tuple[str, str] = ("First", "Second")) -> str:
        """The differences as a plain-text table; ``names`` of the two models head their columns."""
        rows = [
            [name, f"{part.first:.3f}", f"{part.second:.3f}", str(part.difference), p_value_text(part.p_value)]
            for name, part in self.differences.items()
        ]
        return text_table(["Statistic", *names, "Difference", "p"], rows)


def compare(
    first: Comparable,
    second: Comparable,
    *,
    names: Sequence[str] | None = None,
    bootstrap: BootstrapConfig = COMPARISON_BOOTSTRAP,
) -> Comparison:
    """Compare two models by the results of one protocol on the same cases.

    Patients are drawn with replacement, the same ones for both models: what makes a case hard for both cancels in the
    difference. With d the difference and d_1 ... d_B those of the resamples, the interval holds the middle of the d_b, and::

        p = min(1, 2 min(1 + #{d_b <= 0}, 1 + #{d_b >= 0}) / (B + 1)),

    but not below 2^(1 - P) for the P patients on whom the statistic depends, the smallest p-value of a two-sided sign test.
    Nothing is corrected for the number of statistics compared. With a few tens of patients, percentiles of a bootstrap make
    intervals too narrow and p-values too small.

    Args:
        first: result of one model, such as of :func:`medvl.evaluation.zero_shot`.
        second: result of the other model on the same cases in the same order.
        names: statistics to compare; None for all that both have.
        bootstrap: of the intervals and p-values.

    Returns:
        The differences, first minus second.

    Raises:
        ValueError: If the results are not of the same cases, a mean is over cases of which the other result has no value, or
            they lack a statistic.

    Example:
        >>> ids = ["a", "b", "c", "d"]
        >>> good, poor = (CaseMeans({"accuracy": np.full(4, value)}, ids, ids) for value in (1.0, 0.0))
        >>> print(compare(good, poor).table())
        Statistic  First  Second            Difference      p
        ---------  -----  ------  --------------------  -----
        accuracy   1.000   0.000  1.000 [1.000, 1.000]  0.125
    """
    _check_same_cases(first, second)
    ones = np.ones((1, len(first.study_ids)), np.float32)
    values = [result.statistics(ones) for result in (first, second)]
    shared = [name for name in values[0] if name in values[1]]
    if names is None:
        names = shared
    missing = [name for name in names if name not in shared]
    if missing or not names:
        wanted = ", ".join(missing) or "at least one statistic in common"
        raise ValueError(error_message("Both results", f"have {wanted}", f"{', '.join(shared) or 'nothing'} in common"))

    _check_same_values(first, second, names)

    def both(weights: np.ndarray) -> np.ndarray:
        found = [result.statistics(weights) for result in (first, second)]
        return np.stack([[one[name] for name in names] for one in found]).transpose(2, 0, 1)

    def differences(weights: np.ndarray) -> np.ndarray:
        found = both(weights)
        return found[:, 0] - found[:, 1]

    patients = np.asarray(list(first.patient_ids))
    drawn = bootstrap_distribution(differences, patients, bootstrap)
    low, high = percentile_interval(drawn, bootstrap.confidence_level)
    number = len(np.unique(patients))
    counts = _patients_with_values(both, patients, enough=math.ceil(math.log2(bootstrap.n_resamples + 1)) + 1)
    found = {}
    for column, name in enumerate(names):
        one, other = (float(value[name][0]) for value in values)
        estimate = Estimate(one - other, float(low[column]), float(high[column]))
        p_value = (
            max(_p_value(drawn[:, column]), 2.0 ** (1 - float(counts[column]))) if estimate.has_interval else math.nan
        )
        found[name] = PairedDifference(one, other, estimate, p_value)
    return Comparison(found, {"cases": len(patients), "patients": number, "bootstrap": bootstrap.to_dict()})


def _check_same_cases(first: Comparable, second: Comparable) -> None:
    for attribute in PAIRED_ATTRIBUTES:
        one, other = getattr(first, attribute, None), getattr(second, attribute, None)
        if not _equal(one, other):
            lengths = "" if one is None or other is None or len(one) == len(other) else f": {len(one)} and {len(other)}"
            raise ValueError(
                f"Two models are compared on the same cases in the same order, but their {attribute} differ{lengths}."
            )


def _check_same_values(first: Comparable, second: Comparable, names: Sequence[str]) -> None:
    """Raise where a mean of one value a case is over other cases in one result than in the other."""
    if not (isinstance(first, CaseMeans) and isinstance(second, CaseMeans)):
        return
    for name in names:
        differs = np.isnan(np.asarray(first.values[name], float)) != np.isnan(np.asarray(second.values[name], float))
        if differs.any():
            raise ValueError(
                f"Two models are compared on the same cases, but {int(differs.sum())} of {len(differs)} have a value of {name} "
                "in one result alone; give NaN in both, or a value in both."
            )


def _patients_with_values(
    statistics: Callable[[np.ndarray], np.ndarray], patients: np.ndarray, enough: int
) -> np.ndarray:
    """The number of patients on whom each statistic depends: who alone give it a value, or without whom it changes.

    Args:
        statistics: function from weights (B, N) to the values of both models (B, 2, S).
        patients: of the N cases.
        enough: number that need not be exceeded.
    """
    of_all = statistics(np.ones((1, len(patients)), np.float32))
    distinct = np.unique(patients)
    block = max(1, BLOCK_ELEMENTS // len(patients))
    counts = np.zeros(of_all.shape[2], dtype=int)
    for start in range(0, len(distinct), block):
        alone = (patients == distinct[start : start + block, None]).astype(np.float32)
        has_value = np.isfinite(statistics(alone)).all(axis=1)
        changes = (statistics(1 - alone) != of_all).any(axis=1)
        counts += (has_value | changes).sum(axis=0)
        if (counts >= enough).all():
            break
    return np.where(counts > 0, counts, len(distinct))


def _p_value(drawn: np.ndarray) -> float:
    """Two-sided p-value of the resampled differences (B,), those that are defined."""
    drawn = drawn[~np.isnan(drawn)]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (1 + tail) / (len(drawn) + 1))


def _equal(one: Any, other: Any) -> bool:
    """Whether two lists or arrays, or None and None, are equal, NaN equal to NaN."""
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


def p_value_text(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
