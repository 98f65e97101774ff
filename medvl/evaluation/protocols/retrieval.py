"""Retrieval of reports by images and of images by reports, of pairs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Estimate,
    bootstrap_estimates,
    percentile_interval,
)
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.functional import chance_recall_at_k, retrieval_ranks
from medvl.utils.checks import error_message

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DirectionResult", "RetrievalResult", "retrieval"]

SHUFFLED_QUERIES = 2000
"""Largest number of queries of one shuffle of the control."""


@dataclass(frozen=True)
class DirectionResult:
    """Retrieval in one direction.

    Args:
        values: ``recall_at_K``, ``median_rank`` and ``mean_rank``.
        chance: expected values of a random order of the candidates, by the same names.
        shuffled: values of the model with shuffled pairs, by the same names; the interval is over the shuffles.
        ranks: rank of the best relevant candidate of each query (Q,).
        query_rows: the row of the embeddings that each query is (Q,).
        candidate_rows: the row of the embeddings that each candidate is (M,).
        query_groups: group of each query (Q,); candidates of the same group are relevant.
        candidate_groups: group of each candidate (M,).
    """

    values: dict[str, Estimate]
    chance: dict[str, float]
    shuffled: dict[str, Estimate]
    ranks: np.ndarray
    query_rows: np.ndarray
    candidate_rows: np.ndarray
    query_groups: np.ndarray
    candidate_groups: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The metrics as ``evaluation.json`` has them."""
        return {
            **{name: estimate.to_dict() for name, estimate in self.values.items()},
            "chance": dict(self.chance),
            "shuffled": {name: estimate.to_dict() for name, estimate in self.shuffled.items()},
            "queries": len(self.query_rows),
            "candidates": len(self.candidate_rows),
        }


@dataclass(frozen=True)
class RetrievalResult(ProtocolResult):
    """Retrieval in both directions.

    Args:
        image_to_text: with images as queries.
        text_to_image: with reports as queries.
        without_text: number of studies without a report, which are left out.
        study_ids: of the queries, the same in both directions (Q,).
        patient_ids: of these studies.
        settings: depths, whether equal reports are one candidate, shuffles, bootstrap, seed.
    """

    image_to_text: DirectionResult
    text_to_image: DirectionResult
    without_text: int
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def directions(self) -> dict[str, DirectionResult]:
        """Both directions under their names."""
        return {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}

    @property
    def candidate_groups(self) -> np.ndarray:
        """Groups of all candidates (M + N,), reports first."""
        return np.concatenate([direction.candidate_groups for direction in self.directions.values()])

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) such as ``image_to_text/recall_at_5`` for weights (B, Q) of the queries."""
        return {
            f"{key}/{name}": values
            for key, direction in self.directions.items()
            for name, values in _rank_statistics(direction.ranks, self.settings["ks"])(weights).items()
        }

    def case_table(self) -> pd.DataFrame:
        """One row for each query: ids, and the rank of the best relevant candidate in each direction."""
        import pandas as pd

        ranks = {f"{key}_rank": direction.ranks for key, direction in self.directions.items()}
        return pd.DataFrame({"study_id": self.study_ids, "patient_id": self.patient_ids, **ranks})

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        directions = {name: direction.to_dict() for name, direction in self.directions.items()}
        return {**directions, "without_text": self.without_text, "settings": self.settings}

    def tables(self) -> list[Table]:
        """One table for each direction."""
        tables = []
        for key, direction in self.directions.items():
            rows = []
            for name, estimate in direction.values.items():
                spec = ".3f" if name.startswith("recall") else ".1f"
                cells = [
                    Cell.of(estimate, spec, chance=direction.chance[name]),
                    Cell.of(direction.shuffled[name], spec),
                ]
                rows.append(Row(metric_title(name), cells))
            caption = f"{TITLES[key]}: {len(direction.query_rows)} queries, {len(direction.candidate_rows)} candidates"
            name = f"retrieval-{key.replace('_', '-')}"
            columns = [Column("Value", compared=True), Column("Shuffled")]
            tables.append(Table(name, "Retrieval", TITLES[key], columns, rows, DESCRIPTION, caption=caption))
        return tables

    def key_figures(self) -> list[KeyFigure]:
        """Recall at the largest depth in both directions, and the median rank of the right report."""
        recall = f"recall_at_{max(self.settings['ks'])}"
        figures = [
            KeyFigure(
                f"{TITLES[key]} {metric_title(recall)}",
                Cell.of(direction.values[recall], chance=direction.chance[recall]),
            )
            for key, direction in self.directions.items()
        ]
        direction = self.image_to_text
        note = f"of {len(direction.candidate_rows)} reports"
        rank = Cell.of(direction.values["median_rank"], ".1f", direction.chance["median_rank"], note)
        return [*figures, KeyFigure("Median rank of the right report", rank)]

    def explanations(self) -> dict[str, str]:
        """What recall and ranks mean."""
        return EXPLANATIONS

    def notes(self) -> list[str]:
        """How many studies have no report."""
        return (
            [f"{self.without_text} studies without a report were left out of retrieval."] if self.without_text else []
        )


TITLES = {"image_to_text": "Image to report", "text_to_image": "Report to image"}
DESCRIPTION = (
    "Does the model find the report of an image among all distinct reports, and the image of a report among all images? "
    "Reports of the same study, or of the same wording, count as right; a tie counts as the worst of its ranks. “Shuffled” is "
    "this model with the pairs mixed at random: it must come out at chance."
)
EXPLANATIONS = {
    "R@k": "How often a right one is among the k most similar ones: 1 is best, and hard to reach where many reports say nearly "
    "the same; guessing reaches about k divided by the number of candidates.",
    "Median rank": "Half of the searches have a right one on this rank or a better one: 1 is best.",
    "Mean rank": "The average of these ranks, which a few bad ones raise.",
}


def metric_title(name: str) -> str:
    """A metric's title: ``recall_at_5`` is ``R@5``, ``median_rank`` is ``Median rank``."""
    return name.replace("recall_at_", "R@") if name.startswith("recall") else name.replace("_", " ").capitalize()


def retrieval(
    embeddings: Embeddings,
    *,
    ks: Sequence[int] = (1, 5, 10),
    distinct_texts: bool = True,
    shuffles: int = 20,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> RetrievalResult:
    """Retrieval of pairs in both directions: recall at k, median and mean rank, against chance and shuffled pairs.

    Relevant to a query are the reports (images) of the same study and of every study with an equal report, equal up to case
    and white space. The rank is that of the best relevant candidate, ties are ranked pessimistically
    (:func:`medvl.functional.retrieval_ranks`). Every study with a report is a query once in each direction.

    Equal reports are one candidate: copies have equal scores, and with pessimistic ties a random model would score below the
    chance level of independent candidates.

    The control permutes which query belongs to which candidate (uniformly, so that a pair may stay together; a derangement
    would put a good model below chance). It must score at chance, unless some reports are relevant to many studies.

    Args:
        embeddings: images and reports; studies without a report are left out and counted.
        ks: depths of recall.
        distinct_texts: whether equal reports are one candidate; False makes every study's report one, as many papers do.
        shuffles: repetitions of the control; 0 for none, with values of NaN.
        bootstrap: of the intervals, over the queries clustered by patient; the candidates stay.
        seed: of the shuffles.

    Returns:
        The metrics of both directions.

    Raises:
        ValueError: If no study has a report, or a depth is below 1.

    Example:
        >>> image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> text = torch.tensor([[0.9, 0.1], [0.6, 0.8], [0.9, 0.1]])
        >>> result = retrieval(Embeddings(image, text, texts=["Clear.", "Effusion.", " clear. "]), ks=[1])
        >>> result.image_to_text.ranks.tolist(), result.text_to_image.ranks.tolist()
        ([1, 1, 2], [1, 2, 1])
        >>> result.image_to_text.chance["recall_at_1"]
        0.5
    """
    if any(k < 1 for k in ks) or not ks:
        raise ValueError(error_message("ks", "be depths of at least 1", list(ks)))
    rows = np.flatnonzero(embeddings.has_text.numpy())
    if not len(rows):
        raise ValueError(error_message("embeddings", "hold at least one study with a report", "none"))
    texts = None
    if embeddings.texts is not None:
        texts = [" ".join(embeddings.texts[row].lower().split()) for row in rows]
    groups = match_groups([embeddings.study_ids[row] for row in rows], texts)
    first = np.arange(len(rows))
    if distinct_texts and texts is not None:
        first = np.sort(np.unique(texts, return_index=True)[1])
    image, text = embeddings.image[rows], embeddings.text[rows]
    patients = np.array(embeddings.patient_ids)[rows]
    options: dict[str, Any] = {
        "ks": tuple(ks),
        "shuffles": shuffles,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    return RetrievalResult(
        image_to_text=_direction(image, text[first], groups, first, rows, patients, **options),
        text_to_image=_direction(text, image, groups, np.arange(len(rows)), rows, patients, **options),
        without_text=len(embeddings) - len(rows),
        study_ids=tuple(embeddings.study_ids[row] for row in rows),
        patient_ids=tuple(patients.tolist()),
        settings={"distinct_texts": distinct_texts, **options, "ks": list(ks), "bootstrap": bootstrap.to_dict()},
    )


def match_groups(study_ids: Sequence[str], texts: Sequence[str] | None = None) -> np.ndarray:
    """Group number of each row, equal for rows that share a study or a text, directly or through other rows.

    Args:
        study_ids: N ids.
        texts: N texts; None to group by study alone.

    Returns:
        Group numbers (N,), from 0 in the order of first appearance.

    Example:
        >>> match_groups(["a", "b", "b", "c"], ["x", "x", "y", "z"])
        array([0, 0, 0, 1])
    """
    parent = list(range(len(study_ids)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in (study_ids, texts or []):
        first: dict[str, int] = {}
        for row, key in enumerate(column):
            low, high = sorted((root(first.setdefault(key, row)), root(row)))
            parent[high] = low
    return np.unique([root(row) for row in range(len(parent))], return_inverse=True)[1]


def _direction(
    queries: Tensor,
    candidates: Tensor,
    groups: np.ndarray,
    kept: np.ndarray,
    rows: np.ndarray,
    patients: np.ndarray,
    *,
    ks: tuple[int, ...],
    shuffles: int,
    bootstrap: BootstrapConfig,
    seed: int,
) -> DirectionResult:
    """Retrieval of candidates (M, D), whose groups are ``groups[kept]``, by queries (Q, D)."""
    deep = [k for k in ks if k > len(candidates)]
    if deep:
        warnings.warn(
            f"Recall at {', '.join(map(str, deep))} is 1 by definition among {len(candidates)} candidates.",
            RuntimeWarning,
            stacklevel=3,
        )
    query_groups, candidate_groups = torch.as_tensor(groups), torch.as_tensor(groups[kept])
    ranks = retrieval_ranks(queries, candidates, query_groups, candidate_groups).numpy()
    values = bootstrap_estimates(_rank_statistics(ranks, ks), patients, bootstrap)
    generator = torch.Generator().manual_seed(seed)
    controls = np.full((max(shuffles, 1), len(values)), np.nan)
    for row in range(shuffles):
        order = torch.randperm(len(queries), generator=generator)[:SHUFFLED_QUERIES]
        drawn = torch.randperm(len(queries), generator=generator)[:SHUFFLED_QUERIES]
        shuffled = retrieval_ranks(queries[drawn], candidates, query_groups[order], candidate_groups).numpy()
        controls[row] = [value[0] for value in _rank_statistics(shuffled, ks)(np.ones((1, len(shuffled)))).values()]
    low, high = percentile_interval(controls, bootstrap.confidence_level)
    return DirectionResult(
        values=values,
        chance=_chance(groups, groups[kept], ks),
        shuffled={
            name: Estimate(float(controls[:, i].mean()), float(low[i]), float(high[i])) for i, name in enumerate(values)
        },
        ranks=ranks,
        query_rows=rows,
        candidate_rows=rows[kept],
        query_groups=groups,
        candidate_groups=groups[kept],
    )


def _rank_statistics(ranks: np.ndarray, ks: Sequence[int]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function from weights (B, Q) of the queries to recall at each depth, median and mean rank (B,)."""
    order = np.argsort(ranks, kind="stable")
    ordered = ranks[order].astype(float)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        weights = weights[:, order].astype(np.float64)
        total = weights.sum(axis=1)
        reached = np.cumsum(weights, axis=1)
        middle = [ordered[(reached > place[:, None]).argmax(axis=1)] for place in ((total - 1) // 2, total // 2)]
        recalls = {f"recall_at_{k}": weights @ (ordered <= k) / total for k in ks}
        return {**recalls, "median_rank": (middle[0] + middle[1]) / 2, "mean_rank": weights @ ordered / total}

    return statistics


def _chance(query_groups: np.ndarray, candidate_groups: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Expected values of a random order of the candidates."""
    number = len(candidate_groups)
    sizes = np.bincount(candidate_groups, minlength=int(query_groups.max()) + 1)[query_groups]
    distinct, counts = np.unique(sizes, return_counts=True)
    right, share = torch.as_tensor(distinct), counts / counts.sum()

    def recall(k: int) -> float:
        return float((chance_recall_at_k(number, right, k).numpy() * share).sum())

    def first_rank_above(probability: float) -> int:
        low, high = 1, number
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if recall(middle) > probability else (middle + 1, high)
        return low

    return {
        **{f"recall_at_{k}": recall(k) for k in ks},
        # The two middle ranks, which differ where the probability of a lower rank is exactly one half.
        "median_rank": (first_rank_above(0.5 - 1e-9) + first_rank_above(0.5 + 1e-9)) / 2,
        "mean_rank": float(((number + 1) / (distinct + 1) * share).sum()),
    }


def _run(context: ProtocolContext) -> RetrievalResult:
    return retrieval(context.embeddings(), bootstrap=context.bootstrap, seed=context.seed)


register_protocol(Protocol("retrieval", _run, requires=["reports"], order=30))
