"""The test cases of phrase grounding that the report shows: the worst, the median and the best of each finding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroundingExample:
    """One test case to show.

    Args:
        picture: the image (H, W), uint8.
        heat: cosines on the model's grid (h, w).
        truth: the region, boolean, at the mask's size.
        name: of the region.
        study_id: of the case.
        values: its ``cnr``, ``miou`` and ``pointing``.
        place: "worst", "median" or "best" of the finding's cases by CNR; "only" where there is one.
    """

    picture: np.ndarray
    heat: np.ndarray
    truth: np.ndarray
    name: str
    study_id: str
    values: dict[str, float]
    place: str = "median"


def choose_examples(
    values: np.ndarray,
    kept: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    names: Sequence[str],
    study_ids: Sequence[str],
    metrics: Sequence[str],
    number: int,
) -> list[GroundingExample]:
    """The worst, the median and the best case by CNR of ``number`` findings, evenly spaced among those that have cases.

    Args:
        values: metrics of each case and finding (M, N, F), CNR first; NaN where there is no region.
        kept: picture (H, W), heat maps (F, h, w) and masks (F, H, W) of each case.
        names: of the F findings.
        study_ids: of the N cases.
        metrics: names of the M metrics.
        number: largest number of findings.
    """
    cnr = np.where(np.isfinite(values[0]), values[0], np.nan)
    columns = [column for column in range(cnr.shape[1]) if not np.isnan(cnr[:, column]).all()]
    if number < 1 or not columns:
        return []
    columns = [columns[round(place)] for place in np.linspace(0, len(columns) - 1, min(number, len(columns)))]
    examples = []
    for column in columns:
        rows = np.flatnonzero(~np.isnan(cnr[:, column]))
        ordered = rows[np.argsort(cnr[rows, column], kind="stable")]
        for name, place in worst_median_best(len(ordered)).items():
            row = int(ordered[place])
            examples.append(
                GroundingExample(
                    picture=kept[row][0],
                    heat=kept[row][1][column],
                    truth=kept[row][2][column],
                    name=names[column],
                    study_id=study_ids[row],
                    values={metric: float(values[m, row, column]) for m, metric in enumerate(metrics)},
                    place=name,
                )
            )
    return examples


def worst_median_best(number: int) -> dict[str, int]:
    """Places of the worst, the median and the best of ``number`` cases in ascending order, each case once.

    Example:
        >>> worst_median_best(5), worst_median_best(2), worst_median_best(1)
        ({'worst': 0, 'median': 2, 'best': 4}, {'worst': 0, 'best': 1}, {'only': 0})
    """
    if number < 2:
        return {"only": 0} if number else {}
    return {"worst": 0, **({"median": number // 2} if number > 2 else {}), "best": number - 1}


def side_text(sides: Iterable[int]) -> str:
    """Sides of a grid or an image, as they are read.

    Example:
        >>> side_text((8, 10))
        '8 × 10'
    """
    return " × ".join(map(str, sides))
