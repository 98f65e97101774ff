"""Figures of findings that are each present or absent, for whatever model scored them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.statistics.calibration import ReliabilityCurve, best_f1_threshold, reliability_curve, weighted_f1
from medvl.evaluation.statistics.curves import auroc_and_average_precision

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("auroc", "auprc", "f1", "brier")
UNCERTAIN = {"exclude": math.nan, "present": 1.0, "absent": 0.0}


@dataclass(frozen=True)
class FindingResult:
    """One finding's figures, and how many cases of each class counted.

    Args:
        auroc: area under the ROC curve.
        auprc: average precision.
        positives: cases labelled present.
        negatives: cases labelled absent.
        f1: at the threshold chosen on validation cases; NaN without them.
        brier: mean squared error of the probability.
        ece: expected calibration error over ten bins, without an interval: resamples of it are biased upwards.
    """

    auroc: Estimate
    auprc: Estimate
    positives: int
    negatives: int
    f1: Estimate = field(default_factory=lambda: Estimate(math.nan))
    brier: Estimate = field(default_factory=lambda: Estimate(math.nan))
    ece: Estimate = field(default_factory=lambda: Estimate(math.nan))

    def to_dict(self) -> dict[str, Any]:
        """The figures as ``evaluation.json`` has them."""
        figures = {name: getattr(self, name).to_dict() for name in (*METRICS, "ece")}
        return {**figures, "positives": self.positives, "negatives": self.negatives}


@dataclass(frozen=True)
class MultiLabelCases:
    """Scores of N cases for F findings with the truth, and the figures that follow from them.

    Args:
        names: the F findings.
        scores: what the curves are made from (S, N, F), one layer for each model whose figures are averaged (one zero-shot
            model, or one probe for each seed). A layer that knows nothing of a finding has NaN there and does not count.
        probabilities: of each finding being present (S, N, F).
        targets: 1 present, 0 absent, NaN not counted (N, F).
        thresholds: score from which a finding is called present (S, F), chosen on other cases; NaN for none.
        study_ids: of the N cases.
        patient_ids: of the N cases.

    Raises:
        ValueError: if shapes disagree or a score is NaN for some cases only.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray
    thresholds: np.ndarray
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        layers, number, findings = self.scores.shape
        if self.targets.shape != (number, findings) or self.thresholds.shape != (layers, findings):
            raise ValueError(
                "scores (S, N, F), targets (N, F) and thresholds (S, F) must agree; received "
                f"{self.scores.shape}, {self.targets.shape} and {self.thresholds.shape}"
            )
        missing = np.isnan(self.scores)
        if (missing.any(axis=1) & ~missing.all(axis=1)).any():
            raise ValueError(f"scores holds {int(missing.sum())} NaN among {number} cases")

    @property
    def two_classes(self) -> np.ndarray:
        """Which findings have present and absent cases, and a score; boolean (F,)."""
        both = ((self.targets == 1).any(axis=0)) & ((self.targets == 0).any(axis=0))
        return both & ~np.isnan(self.scores).all(axis=(0, 1))

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) for weights (B, N): ``"auroc"`` (macro mean) and ``"auroc/NAME"``, likewise the others.

        Findings of one class are NaN and have no part in the macro means.
        """
        values = np.full((len(weights), len(self.names), len(METRICS)), np.nan)
        for column in np.flatnonzero(self.two_classes).tolist():
            values[:, column] = self._finding(column, weights)
        with warnings.catch_warnings():
            # A resample may hold no finding with both classes; its NaN is left out by the interval.
            warnings.simplefilter("ignore", RuntimeWarning)
            macro = np.nanmean(values, axis=1) if len(self.names) else values.sum(axis=1)
        named = {metric: macro[:, m] for m, metric in enumerate(METRICS)}
        for column, name in enumerate(self.names):
            named.update({f"{metric}/{name}": values[:, column, m] for m, metric in enumerate(METRICS)})
        return named

    def _finding(self, column: int, weights: np.ndarray) -> np.ndarray:
        """Figures (B, 4) of one finding, the mean over the layers that know it."""
        rows = np.flatnonzero(~np.isnan(self.targets[:, column]))
        targets, weights = self.targets[rows, column] == 1, weights[:, rows]
        layers = []
        for layer in np.flatnonzero(~np.isnan(self.scores[:, 0, column])).tolist():
            scores, threshold = self.scores[layer, rows, column], self.thresholds[layer, column]
            auroc, auprc = auroc_and_average_precision(scores, targets, weights)
            f1 = weighted_f1(scores >= threshold, targets, weights)
            with np.errstate(invalid="ignore"):
                error = np.square(self.probabilities[layer, rows, column] - targets)
                brier = weights @ error / weights.sum(axis=1)
            layers.append(
                np.stack([auroc, auprc, np.full_like(f1, np.nan) if np.isnan(threshold) else f1, brier], axis=1)
            )
        return np.mean(layers, axis=0)

    def reliability(self, name: str, n_bins: int = 10) -> ReliabilityCurve:
        """Reliability curve of a finding's probabilities, over all layers together."""
        column = self.names.index(name)
        rows = ~np.isnan(self.targets[:, column])
        layers = self.probabilities[:, rows, column]
        layers = layers[~np.isnan(layers).any(axis=1)]
        return reliability_curve(layers.ravel(), np.tile(self.targets[rows, column], len(layers)), n_bins)

    def results(
        self, bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
    ) -> tuple[dict[str, Estimate], dict[str, FindingResult]]:
        """Macro means and figures by finding, with intervals by patient."""
        found = bootstrap_estimates(self.statistics, self.patient_ids, bootstrap)
        ece = {name: self.reliability(name).error for name in self.names}
        findings = {}
        for column, name in enumerate(self.names):
            positives, negatives = (int((self.targets[:, column] == state).sum()) for state in (1, 0))
            figures = {metric: found[f"{metric}/{name}"] for metric in METRICS}
            calibration = Estimate(ece[name] if self.two_classes[column] else math.nan)
            findings[name] = FindingResult(positives=positives, negatives=negatives, ece=calibration, **figures)
        macro = {metric: found[metric] for metric in METRICS}
        known = [ece[name] for name, given in zip(self.names, self.two_classes, strict=True) if given]
        macro["ece"] = Estimate(float(np.mean(known)) if known else math.nan)
        return macro, findings

    def table(self) -> pd.DataFrame:
        """One row for each study and finding that counts: ids, target, score, probability and call, means over layers."""
        import pandas as pd

        columns = []
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            calls = np.where(np.isnan(self.thresholds)[:, None], np.nan, self.scores >= self.thresholds[:, None])
            means = [np.nanmean(values, axis=0) for values in (self.scores, self.probabilities, calls)]
        for column, name in enumerate(self.names):
            rows = np.flatnonzero(~np.isnan(self.targets[:, column]))
            columns.append(
                pd.DataFrame(
                    {
                        "study_id": [self.study_ids[row] for row in rows],
                        "patient_id": [self.patient_ids[row] for row in rows],
                        "finding": name,
                        "target": self.targets[rows, column].astype(int),
                        "score": means[0][rows, column],
                        "probability": means[1][rows, column],
                        "called": means[2][rows, column],
                    }
                )
            )
        return pd.concat(columns, ignore_index=True)


def finding_targets(embeddings: Embeddings, names: Sequence[str], used: Sequence[str], uncertain: str) -> np.ndarray:
    """1 present, 0 absent or NaN not counted, for each study and each finding used (N, F).

    Raises:
        ValueError: if labels are missing or their width is not ``len(names)``, names repeat, a finding is not among them, a
            state is none of 1, 0, -1 and NaN, or ``uncertain`` is unknown.
    """
    labels = checked_labels(embeddings, names)
    unknown = [name for name in used if name not in names]
    if unknown or not used:
        raise ValueError(f"findings must be among {list(names)}; received {unknown or 'none'}")
    if uncertain not in UNCERTAIN:
        raise ValueError(f"uncertain must be one of {', '.join(UNCERTAIN)}; received {uncertain!r}")
    states = labels.numpy()[:, [list(names).index(name) for name in used]].astype(float)
    check_states(states)
    return np.where(states == -1, UNCERTAIN[uncertain], states)


def check_states(states: np.ndarray) -> None:
    """Raise where a state is none of 1, 0, -1 and NaN."""
    wrong = ~(np.isnan(states) | np.isin(states, (-1, 0, 1)))
    if wrong.any():
        raise ValueError(f"labels must be 1, 0, -1 or NaN; received {states[wrong][0]}")


def checked_labels(embeddings: Embeddings, names: Sequence[str]) -> Tensor:
    """The labels (N, K).

    Raises:
        ValueError: if there are none, their width is not ``len(names)``, or names repeat.
    """
    if embeddings.labels is None:
        raise ValueError("classification needs labels; embeddings.labels is None")
    if embeddings.labels.shape[1] != len(names):
        raise ValueError(
            f"labels must have a column for each of the {len(names)} names; received {embeddings.labels.shape[1]}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"names must differ from each other; received {list(names)}")
    return embeddings.labels


def check_patients_apart(**sets: Embeddings) -> None:
    """Raise where two sets share a patient; sets that know no ids pass.

    Raises:
        ValueError: naming the sets and one patient.
    """
    named = [(name, given) for name, given in sets.items() if given.patient_ids != list(map(str, range(len(given))))]
    for place, (first, one) in enumerate(named):
        for second, other in named[place + 1 :]:
            shared = sorted(set(one.patient_ids) & set(other.patient_ids))
            if shared:
                raise ValueError(
                    f"{first} and {second} must be of different patients; {len(shared)} are in both, such as {shared[0]!r}"
                )


def f1_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Threshold of the largest F1 of each finding (F,) from scores and targets (N, F); NaN where no case is present."""
    known = ~np.isnan(targets) & ~np.isnan(scores)
    return np.array(
        [
            best_f1_threshold(scores[known[:, column], column], targets[known[:, column], column] == 1)
            for column in range(scores.shape[1])
        ]
    )


def warn_left_out(names: Sequence[str], stacklevel: int = 3) -> None:
    """Say which findings have one class only."""
    if names:
        warnings.warn(
            f"{len(names)} finding(s) have one class only among the labelled cases and are left out of the macro means: "
            + ", ".join(names),
            RuntimeWarning,
            stacklevel=stacklevel,
        )
