"""Results that were made again, as on another machine, beside the committed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evidence.claim import by_seed
from evidence.statistics import prediction_half_width
from evidence.store import ResultsError, Store

ROUNDING = 1e-6  # results files hold six decimals


@dataclass(frozen=True)
class Repeated:
    """A figure of an arm that was made again.

    Args:
        arm: its name.
        figure: its name, ``MEASURE/FIGURE``.
        again: mean over the seeds that were made again.
        committed: mean over the committed seeds.
        half_width: of the prediction interval around ``committed``.
        equal: whether every seed has its committed figure to the last decimal.
    """

    arm: str
    figure: str
    again: float
    committed: float
    half_width: float
    equal: bool

    @property
    def within(self) -> bool:
        """Whether the mean lies in the interval."""
        return abs(self.again - self.committed) <= self.half_width + ROUNDING

    def __str__(self) -> str:
        low, high = self.committed - self.half_width, self.committed + self.half_width
        return f"{self.arm}, {self.figure}: {self.again:.3f}, expected {self.committed:.3f} [{low:.3f}, {high:.3f}]"


def compare(again: Store, committed: Store, scale: str) -> list[Repeated]:
    """Every figure that was made again and is committed for at least two seeds.

    Raises:
        ResultsError: If an arm was made again with other settings than the committed ones.
    """
    found = []
    for result in again.results(scale):
        before = committed.read(scale, result["arm"], result["seed"])
        if before is not None and before["key"] != result["key"]:
            raise ResultsError(f"The committed results of {result['arm']} are of other settings.")
    for arm in dict.fromkeys(result["arm"] for result in again.results(scale)):
        figures = again.figures(scale, arm).values()
        for figure in sorted({name for names in figures for name in names}):
            new, old = (by_seed(store, scale, arm, figure) for store in (again, committed))
            if new and len(old) >= 2:
                equal = all(seed in old and abs(old[seed] - value) <= ROUNDING for seed, value in new.items())
                mean, expected = (float(np.mean(list(values.values()))) for values in (new, old))
                half = prediction_half_width(list(old.values()), len(new))
                found.append(Repeated(arm, figure, mean, expected, half, equal))
    return found


def left_out(again: Store, committed: Store, scale: str) -> list[str]:
    """The figures of the arms that were made again which :func:`compare` leaves out."""
    compared = {(repeated.arm, repeated.figure) for repeated in compare(again, committed, scale)}
    named = {
        (result["arm"], figure)
        for result in again.results(scale)
        for store in (again, committed)
        for figures in store.figures(scale, result["arm"]).values()
        for figure in figures
    }
    return [f"{arm}, {figure}" for arm, figure in sorted(named - compared)]


def report(found: list[Repeated], not_compared: Sequence[str] = ()) -> str:
    """How many figures are equal or within their interval, each of the others, and those that were not compared."""
    if not found and not not_compared:
        return "Nothing was made again, so that nothing is compared."
    outside = [repeated for repeated in found if not repeated.within]
    equal = sum(repeated.equal for repeated in found)
    head = (
        f"Made again: arms {len({repeated.arm for repeated in found})}, figures {len(found)}. "
        f"Equal to the last decimal: {equal}. Within the interval that the committed seeds predict (95 %): "
        f"{len(found) - len(outside)}. Outside: {len(outside)}."
    )
    lines = [head, *(f"  {repeated}" for repeated in outside)]
    if not_compared:
        lines.append("Not compared, as only one of the two has them or they are committed for fewer than two seeds:")
        lines += [f"  {name}" for name in not_compared]
    return "\n".join(lines)
