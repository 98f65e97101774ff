"""Binary classification of several findings: cases, scores by finding, and their table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.statistics.calibration import ReliabilityCurve, reliability_curve, weighted_f1
from medvl.evaluation.statistics.curves import auroc_and_average_precision
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.targets import has_both_classes
from medvl.utils.checks import error_message

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("auroc", "auprc", "f1", "brier")
METRIC_TITLES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "brier": "Brier score", "ece": "ECE"}


@dataclass(frozen=True)
class FindingResult:
    """Metrics of one finding, and how many cases of each class entered them.

    Args:
        auroc: area under the ROC curve.
        auprc: average precision.
        positives: cases labeled present.
        negatives: cases labeled absent.
        f1: at the threshold chosen on validation cases; NaN without them.
        brier: mean squared error of the probability.
        ece: expected calibration error over ten bins, without an interval, since its resamples are biased upwards.
    """

    auroc: Estimate
    auprc: Estimate
    positives: int
    negatives: int
    f1: Estimate = field(default_factory=lambda: Estimate(math.nan))
    brier: Estimate = field(default_factory=lambda: Estimate(math.nan))
    ece: Estimate = field(default_factory=lambda: Estimate(math.nan))

    def to_dict(self) -> dict[str, Any]:
        """The metrics as ``evaluation.json`` has them."""
        metrics = {name: getattr(self, name).to_dict() for name in (*METRICS, "ece")}
        return {**metrics, "positives": self.positives, "negatives": self.negatives}


@dataclass(frozen=True)
class MultiLabelCases:
    """Scores of N cases for F findings with their targets, and the metrics computed from them.

    Args:
        names: the F findings.
        scores: what curves and thresholds apply to (S, N, F), a layer for each of S classifiers whose metrics are averaged
            (one zero-shot model, or one probe for each seed). NaN for a finding that a classifier does not know.
        probabilities: that each finding is present (S, N, F); NaN where unknown.
        targets: 1 present, 0 absent, NaN excluded (N, F).
        thresholds: score at or above which a finding is predicted present (S, F), chosen on other cases; NaN for none.
        study_ids: of the N cases.
        patient_ids: of the N cases.

    Raises:
        ValueError: If shapes are inconsistent, or the scores of a finding are NaN for some cases only.
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
                error_message(
                    "scores, targets and thresholds",
                    "have the shapes (S, N, F), (N, F) and (S, F)",
                    f"{self.scores.shape}, {self.targets.shape} and {self.thresholds.shape}",
                )
            )
        missing = np.isnan(self.scores)
        if (missing.any(axis=1) & ~missing.all(axis=1)).any():
            raise ValueError(
                error_message("scores", "be known for all cases of a finding or for none", f"{int(missing.sum())} NaN")
            )

    @property
    def two_classes(self) -> np.ndarray:
        """Which findings have present and absent cases, and a score; boolean (F,)."""
        return has_both_classes(self.targets) & ~np.isnan(self.scores).all(axis=(0, 1))

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics (B,) for weights (B, N): ``"auroc"`` (macro mean) and ``"auroc/NAME"``, likewise the others.

        Findings of one class are NaN and left out of the macro means.
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
        """Metrics (B, 4) of one finding, the mean over the classifiers that know it."""
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
        """Reliability curve of a finding's probabilities, over all classifiers together."""
        column = self.names.index(name)
        rows = ~np.isnan(self.targets[:, column])
        layers = self.probabilities[:, rows, column]
        layers = layers[~np.isnan(layers).any(axis=1)]
        return reliability_curve(layers.ravel(), np.tile(self.targets[rows, column], len(layers)), n_bins)

    def results(
        self, bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP
    ) -> tuple[dict[str, Estimate], dict[str, FindingResult]]:
        """Macro means and metrics by finding, with their intervals."""
        found = bootstrap_estimates(self.statistics, self.patient_ids, bootstrap)
        ece = {name: self.reliability(name).error for name in self.names}
        findings = {}
        for column, name in enumerate(self.names):
            positives, negatives = (int((self.targets[:, column] == state).sum()) for state in (1, 0))
            metrics = {metric: found[f"{metric}/{name}"] for metric in METRICS}
            calibration = Estimate(ece[name] if self.two_classes[column] else math.nan)
            findings[name] = FindingResult(positives=positives, negatives=negatives, ece=calibration, **metrics)
        macro = {metric: found[metric] for metric in METRICS}
        known = [ece[name] for name, given in zip(self.names, self.two_classes, strict=True) if given]
        macro["ece"] = Estimate(float(np.mean(known)) if known else math.nan)
        return macro, findings

    def case_table(self) -> pd.DataFrame:
        """One row a study and finding with a target: ids, target, and the classifiers' mean score, probability, prediction."""
        import pandas as pd

        columns = []
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            predictions = np.where(np.isnan(self.thresholds)[:, None], np.nan, self.scores >= self.thresholds[:, None])
            means = [np.nanmean(values, axis=0) for values in (self.scores, self.probabilities, predictions)]
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
                        "prediction": means[2][rows, column],
                    }
                )
            )
        return pd.concat(columns, ignore_index=True)


class FromCases:
    """What a result computed from :class:`MultiLabelCases` shares with others: its cases, and their statistics."""

    cases: MultiLabelCases

    @property
    def targets(self) -> np.ndarray:
        """1 present, 0 absent, NaN excluded (N, F)."""
        return self.cases.targets

    @property
    def study_ids(self) -> tuple[str, ...]:
        """Of the N studies."""
        return self.cases.study_ids

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Of the N studies."""
        return self.cases.patient_ids

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics (B,) by name for weights (B, N) of the studies; see :func:`medvl.evaluation.compare`."""
        return self.cases.statistics(weights)

    def case_table(self) -> pd.DataFrame:
        """One row a study and finding with a target: ids, target, score, probability and prediction."""
        return self.cases.case_table()

    def reliability(self, name: str, n_bins: int = 10) -> ReliabilityCurve:
        """Reliability curve of a finding's probabilities."""
        return self.cases.reliability(name, n_bins)


def finding_table(
    name: str,
    title: str,
    findings: Mapping[str, FindingResult],
    macro: Mapping[str, Estimate],
    metrics: Sequence[str] = ("auroc", "auprc"),
    description: str = "",
) -> Table:
    """One row a finding, and their macro mean: numbers of cases and metrics, of which AUROC is compared and drawn.

    Args:
        name: of the table.
        title: of the table.
        findings: metrics by finding.
        macro: their means.
        metrics: those to show, keys of ``macro``.
        description: of the table.
    """
    columns = [Column("Present"), Column("Absent")]
    columns += [Column(METRIC_TITLES[metric], metric == "auroc", metric == "auroc") for metric in metrics]
    rows = [
        Row(
            finding,
            [
                Cell(result.positives, spec="d"),
                Cell(result.negatives, spec="d"),
                *(Cell.of(getattr(result, metric)) for metric in metrics),
            ],
        )
        for finding, result in findings.items()
    ]
    means = [Cell(), Cell(), *(Cell.of(macro[metric]) for metric in metrics)]
    note = "n/a: the labeled cases are all present, or all absent, or there are none; left out of the macro mean."
    undefined = any(math.isnan(result.auroc.value) for result in findings.values())
    rows.append(Row("Macro", means, summary=True))
    return Table(name, title, "Finding", columns, rows, description, note if undefined else "")
