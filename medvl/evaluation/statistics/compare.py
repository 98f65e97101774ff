"""Are two models different? A paired comparison on the same cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medvl.evaluation.statistics.bootstrap import Estimate, bootstrap, interval
from medvl.evaluation.tables import plain_table

SAME = ("study_ids", "patient_ids", "classes", "targets", "candidate_ids", "candidate_groups")
"""What two results must share, where they have it, to be of the same cases."""


class Comparable(Protocol):
    """What :func:`compare` asks of a result; yours may have it, or be wrapped in :class:`CaseMeans`."""

    @property
    def study_ids(self) -> Sequence[str]:
        """Of the N cases."""
        ...

    @property
    def patient_ids(self) -> Sequence[str]:
        """Of the N cases."""
        ...

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Figures (B,) by name for weights (B, N) of the cases."""
        ...


@dataclass(frozen=True)
class CaseMeans:
    """Figures that are means of one value a case, such as Dice or a hit, in the form that :func:`compare` takes.

    Args:
        values: by figure, one number a case (N,); NaN does not count.
        study_ids: of the N cases.
        patient_ids: of the N cases.

    Raises:
        ValueError: if a length differs.

    Example:
        >>> means = CaseMeans({"dice": np.array([0.5, 1.0, math.nan])}, ["a", "b", "c"], ["p", "p", "q"])
        >>> means.figures(np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]))["dice"].tolist()
        [0.75, 0.5]
    """

    values: Mapping[str, np.ndarray]
    study_ids: Sequence[str]
    patient_ids: Sequence[str]

    def __post_init__(self) -> None:
        for name, given in {**self.values, "patient_ids": self.patient_ids}.items():
            if len(given) != len(self.study_ids):
                raise ValueError(
                    f"{name} must have one entry for each of the {len(self.study_ids)} cases; received {len(given)}"
                )

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weighted means (B,) for weights (B, N) of the cases; NaN where no case with a value has weight."""
        named = {}
        for name, given in self.values.items():
            known = ~np.isnan(given)
            total = weights @ known.astype(float)
            with np.errstate(invalid="ignore"):
                named[name] = weights @ np.where(known, given, 0.0) / total
        return named


@dataclass(frozen=True)
class Difference:
    """One figure of two models.

    Args:
        first: of the first model.
        second: of the second model.
        difference: first minus second, with its interval.
        p_value: two-sided, of no difference; NaN where there is no interval.
    """

    first: float
    second: float
    difference: Estimate
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, NaN as None."""
        numbers = {"first": self.first, "second": self.second, "p_value": self.p_value}
        plain = {name: None if math.isnan(value) else value for name, value in numbers.items()}
        return {**plain, "difference": self.difference.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """Differences of two models by figure.

    Args:
        differences: by the figure's name.
        settings: cases, patients, resamples, level, seed.
    """

    differences: dict[str, Difference]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Differences and settings as plain dictionaries."""
        return {**{name: part.to_dict() for name, part in self.differences.items()}, "settings": self.settings}

    def table(self, names: tuple[str, str] = ("First", "Second")) -> str:
        """The differences as a plain-text table."""
        rows = [
            [name, f"{part.first:.3f}", f"{part.second:.3f}", str(part.difference), _p_text(part.p_value)]
            for name, part in self.differences.items()
        ]
        return plain_table(["Figure", *names, "Difference", "p"], rows)


def compare(
    first: Comparable,
    second: Comparable,
    *,
    names: Sequence[str] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two models by the results of one protocol on the same cases.

    Patients are drawn with replacement, the same ones for both models, so that what makes a case hard for both does not
    blur the difference. With d the difference and d_1 ... d_B those of the resamples, the interval holds the middle of the
    d_b, and

        p = min(1, 2 min(1 + #{d_b <= 0}, 1 + #{d_b >= 0}) / (B + 1)),

    but not below 2^(1 - P) for P patients, the least that a sign test could give: four cases prove nothing, however they
    come out. Several figures are several tests; nothing is corrected for their number.

    Args:
        first: result of one model, such as of :func:`medvl.evaluation.zero_shot`.
        second: result of the other model on the same cases in the same order.
        names: figures to compare; None for all that both have.
        resamples: of the bootstrap by patient.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        The differences, first minus second.

    Raises:
        ValueError: if the results are not of the same cases, or lack a figure.

    Example:
        >>> import torch
        >>> from medvl.evaluation.embeddings import Embeddings
        >>> from medvl.evaluation.protocols.retrieval import retrieval
        >>> texts = torch.eye(4)
        >>> good = retrieval(Embeddings(texts, texts), ks=[1], shuffles=0)
        >>> poor = retrieval(Embeddings(texts.flip(0), texts), ks=[1], shuffles=0)
        >>> print(compare(good, poor, names=["image_to_text/recall_at_1"]).table())
        Figure                     First  Second            Difference      p
        -------------------------  -----  ------  --------------------  -----
        image_to_text/recall_at_1  1.000   0.000  1.000 [1.000, 1.000]  0.125
    """
    for attribute in SAME:
        one, other = getattr(first, attribute, None), getattr(second, attribute, None)
        if not _equal(one, other):
            raise ValueError(
                f"two models are compared on the same cases in the same order; their {attribute} differ"
                + ("" if one is None or other is None or len(one) == len(other) else f": {len(one)} and {len(other)}")
            )
    ones = np.ones((1, len(first.study_ids)), np.float32)
    values = [result.figures(ones) for result in (first, second)]
    if names is None:
        names = [name for name in values[0] if name in values[1]]
    missing = [name for name in names if name not in values[0] or name not in values[1]]
    if missing or not names:
        raise ValueError(f"both results must have the figures {missing or 'to compare'}; they share {_shared(*values)}")

    def differences(weights: np.ndarray) -> np.ndarray:
        one, other = first.figures(weights), second.figures(weights)
        return np.stack([one[name] - other[name] for name in names], axis=1)

    patients = np.asarray(list(first.patient_ids))
    drawn = bootstrap(differences, patients, resamples=resamples, seed=seed)
    low, high = interval(drawn, level)
    number = len(np.unique(patients))
    found = {}
    for column, name in enumerate(names):
        one, other = (float(value[name][0]) for value in values)
        estimate = Estimate(one - other, float(low[column]), float(high[column]))
        p_value = max(_p_value(drawn[:, column]), 2.0 ** (1 - number)) if estimate.has_interval else math.nan
        found[name] = Difference(one, other, estimate, p_value)
    settings = {
        "cases": len(patients),
        "patients": number,
        "resamples": resamples,
        "level": level,
        "seed": seed,
    }
    return Comparison(found, settings)


def _p_value(drawn: np.ndarray) -> float:
    """Two-sided p-value of the resampled differences (B,), those that are defined."""
    drawn = drawn[~np.isnan(drawn)]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (1 + tail) / (len(drawn) + 1))


def _equal(one: Any, other: Any) -> bool:
    """Whether two lists or arrays are the same, NaN where NaN."""
    if one is None or other is None:
        return one is other
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


def _p_text(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _shared(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one if name in other]
