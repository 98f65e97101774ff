"""Linear probe: logistic regression on frozen embeddings with 1, 10 and 100 % of the training patients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.explanations import BY_FINDING
from medvl.evaluation.multi_label import FindingResult, FromCases, MultiLabelCases
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.curves import auroc_and_average_precision
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.targets import (
    Uncertain,
    check_disjoint_patients,
    f1_thresholds,
    finding_targets,
    has_both_classes,
    warn_one_class,
)
from medvl.utils.checks import check_fraction, error_message

__all__ = ["LinearProbeResult", "ProbeResult", "linear_probe"]

C_VALUES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Values of C, the inverse of regularization strength, to choose from on validation."""


@dataclass(frozen=True)
class ProbeResult(FromCases):
    """Classifiers of F findings, trained on one fraction of the training patients, on N test studies.

    Args:
        macro: means of ``auroc``, ``auprc``, ``f1``, ``brier`` and ``ece`` over the findings with cases of both classes,
            averaged over seeds; the intervals are over the test patients.
        findings: metrics by finding, likewise.
        seed_auroc: macro AUROC of each seed, whose spread is due to the drawn training patients.
        train_studies: mean number of training studies over seeds.
        c_values: C chosen for each seed and finding (S, F); NaN where a subset has cases of one class only. Empty for
            classifiers without it.
        cases: scores of each seed (S, N, F) and targets.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    seed_auroc: tuple[float, ...]
    train_studies: float
    c_values: np.ndarray
    cases: MultiLabelCases

    def to_dict(self) -> dict[str, Any]:
        """Metrics as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "seed_auroc": [None if np.isnan(value) else value for value in self.seed_auroc],
            "train_studies": self.train_studies,
            "cases": len(self.study_ids),
        }


@dataclass(frozen=True)
class LinearProbeResult(ProtocolResult):
    """A linear probe at several fractions of the training patients.

    Args:
        fractions: the result of each fraction.
        settings: seeds, values of C, treatment of uncertain labels, bootstrap.
    """

    fractions: dict[float, ProbeResult]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them; fractions are the keys, as text."""
        return {
            **{f"{fraction:g}": part.to_dict() for fraction, part in self.fractions.items()},
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Macro means by fraction of the labels."""
        columns = [Column("Studies"), Column("AUROC", compared=True, chart=True), Column("AUPRC"), Column("F1")]
        columns.append(Column("Range over seeds"))
        rows = []
        for fraction, part in self.fractions.items():
            cells = [Cell(part.train_studies, spec=".0f")]
            cells += [Cell.of(part.macro[name]) for name in ("auroc", "auprc", "f1")]
            known = [value for value in part.seed_auroc if not np.isnan(value)]
            cells.append(Cell(text=f"{min(known):.3f} to {max(known):.3f}") if known else Cell(np.nan))
            rows.append(Row(f"{100 * fraction:g} % of labels", cells))
        return [Table("linear-probe", "Linear probe", "Training data", columns, rows, DESCRIPTION)]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        return BY_FINDING

    def key_figures(self) -> list[KeyFigure]:
        """The macro AUROC with most labels."""
        fraction = max(self.fractions)
        auroc = self.fractions[fraction].macro["auroc"]
        return [KeyFigure("Linear probe AUROC", Cell.of(auroc, note=f"with {100 * fraction:g} % of the labels"))]


DESCRIPTION = (
    "A linear classifier of each finding on the frozen image embeddings, trained on fractions of the training patients; "
    "means over findings and seeds."
)


def linear_probe(
    train: Embeddings,
    validation: Embeddings,
    test: Embeddings,
    names: Sequence[str],
    *,
    findings: Sequence[str] | None = None,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2),
    c_values: Sequence[float] = C_VALUES,
    uncertain: Uncertain = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> LinearProbeResult:
    """Logistic regression of each finding on image embeddings, trained on fractions of the training patients.

    For each seed a fraction of the training *patients* is drawn with all their studies; the subset of a smaller fraction is
    part of that of a larger one. Each finding has a classifier of its own (scikit-learn, L2 penalty, features standardized
    by the subset). C is chosen by AUROC on validation, and the threshold by F1. With all patients only the first seed is
    used, as there is nothing to draw.

    Args:
        train: embeddings with ``labels`` (N, K).
        validation: the same of other patients.
        test: the same of other patients again.
        names: the K findings in the order of the labels' columns.
        findings: those to classify; None for all that are known of some training study.
        fractions: of the training patients, above 0 and at most 1.
        seeds: of the draws.
        c_values: values of C to choose from.
        uncertain: how a label of -1 counts: excluded, as present or as absent.
        bootstrap: of the intervals, clustered by patient.

    Returns:
        Metrics by fraction, averaged over seeds. A finding of which a subset has cases of one class only has no classifier
        for that seed, with a warning; a finding with test cases of one class only is left out of the macro means.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, the sets share a patient, a fraction is out
            of range, or no finding is left.

    Example:
        >>> import torch
        >>> def studies(first):
        ...     image = torch.tensor([[1.0, 0.1], [0.9, 0.2], [0.1, 1.0], [0.2, 0.9]])
        ...     ids = [f"p{first + row}" for row in range(4)]
        ...     return Embeddings(image, image, labels=torch.tensor([[1.0], [1.0], [0.0], [0.0]]), patient_ids=ids)
        >>> result = linear_probe(studies(0), studies(4), studies(8), ["Edema"], fractions=[1.0])
        >>> result.fractions[1.0].macro["auroc"].value
        1.0
    """
    for name, given in (("fractions", fractions), ("seeds", seeds), ("c_values", c_values)):
        if not given:
            raise ValueError(error_message(name, "hold at least one value", "none"))
    for fraction in fractions:
        check_fraction(fraction, "fractions")
        if not fraction:
            raise ValueError(error_message("fractions", "be above 0", fraction))
    check_disjoint_patients(train=train, validation=validation, test=test)
    known = finding_targets(train, names, list(names), uncertain)
    if findings is None:
        findings = [name for name, any_state in zip(names, (~np.isnan(known)).any(axis=0), strict=True) if any_state]
    targets = [finding_targets(part, names, findings, uncertain) for part in (train, validation, test)]
    features = [part.image.numpy() for part in (train, validation, test)]  # float32 halves the time
    both = has_both_classes(targets[2])
    warn_one_class([name for name, given in zip(findings, both, strict=True) if not given])
    parts = {}
    for fraction in fractions:
        drawn = list(seeds) if fraction < 1 else [seeds[0]]
        subsets = [patient_subset(train.patient_ids, fraction, number) for number in drawn]
        fits = [
            _probe(
                [f[rows] if i == 0 else f for i, f in enumerate(features)],
                [t[rows] if i == 0 else t for i, t in enumerate(targets)],
                c_values,
            )
            for rows in subsets
        ]
        _warn_unfitted(np.array([fit[3] for fit in fits]), findings, fraction)
        parts[float(fraction)] = probe_result(
            test,
            findings,
            scores=np.array([fit[0] for fit in fits]),
            probabilities=np.array([fit[1] for fit in fits]),
            thresholds=np.array([fit[2] for fit in fits]),
            targets=targets[2],
            train_studies=float(np.mean([len(rows) for rows in subsets])),
            c_values=np.array([fit[3] for fit in fits]),
            bootstrap=bootstrap,
        )
    settings = {
        "seeds": list(seeds),
        "c_values": list(c_values),
        "uncertain": uncertain,
        "bootstrap": bootstrap.to_dict(),
    }
    return LinearProbeResult(parts, settings)


def probe_result(
    test: Embeddings,
    findings: Sequence[str],
    *,
    scores: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    targets: np.ndarray,
    train_studies: float,
    bootstrap: BootstrapConfig,
    c_values: np.ndarray | None = None,
) -> ProbeResult:
    """Metrics of the scores (S, N, F) of S classifiers on the test studies."""
    cases = MultiLabelCases(
        tuple(findings), scores, probabilities, targets, thresholds, tuple(test.study_ids), tuple(test.patient_ids)
    )
    macro, results = cases.results(bootstrap)
    seed_auroc = []
    for layer in range(len(scores)):
        rows = slice(layer, layer + 1)
        alone = MultiLabelCases(
            cases.names,
            scores[rows],
            probabilities[rows],
            targets,
            thresholds[rows],
            cases.study_ids,
            cases.patient_ids,
        )
        seed_auroc.append(float(alone.statistics(np.ones((1, len(targets)), np.float32))["auroc"][0]))
    chosen = np.empty((len(scores), 0)) if c_values is None else c_values
    return ProbeResult(macro, results, tuple(seed_auroc), train_studies, chosen, cases)


def patient_subset(patient_ids: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Rows of a fraction of the patients, at least one; with the same seed a smaller subset is part of a larger one.

    Example:
        >>> patient_subset(["a", "a", "b", "c", "d"], 1.0, seed=0)
        array([0, 1, 2, 3, 4])
    """
    patients = sorted(set(patient_ids))
    order = np.random.default_rng(seed).permutation(len(patients))
    number = max(1, round(fraction * len(patients)))
    kept = {patients[i] for i in order[:number]}
    return np.array([row for row, patient in enumerate(patient_ids) if patient in kept])


@dataclass(frozen=True)
class Probes:
    """A logistic regression of each of F findings on standardized features.

    Args:
        scaler: scikit-learn's ``StandardScaler`` of the training features (N, D).
        models: F fitted ``LogisticRegression``; None for a finding whose training cases are of one class.
        c_values: (F,), the C chosen on validation; NaN without a model.
        thresholds: (F,), the scores with the best F1 on validation; NaN without a model.
    """

    scaler: Any
    models: tuple[Any, ...]
    c_values: np.ndarray
    thresholds: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits (N, F) of features (N, D), NaN without a model."""
        scaled = self.scaler.transform(features)
        scores = np.full((len(scaled), len(self.models)), np.nan)
        for column, model in enumerate(self.models):
            if model is not None:
                scores[:, column] = model.decision_function(scaled)
        return scores

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (F, D) and biases (F,) that give the same logits from features as they are; 0 without a model."""
        weights, biases = np.zeros((len(self.models), len(self.scaler.scale_))), np.zeros(len(self.models))
        for column, model in enumerate(self.models):
            if model is not None:
                weights[column] = model.coef_[0] / self.scaler.scale_
                biases[column] = model.intercept_[0] - weights[column] @ self.scaler.mean_
        return weights, biases


def fit_probes(
    features: Sequence[np.ndarray], targets: Sequence[np.ndarray], c_values: Sequence[float] = C_VALUES
) -> Probes:
    """Fit a classifier of each finding.

    Args:
        features: of training and validation, (N, D) each.
        targets: of both, (N, F): 1, 0 or NaN.
        c_values: inverse strengths of the L2 penalty, of which the one with the best AUROC on validation is chosen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features[0])
    train, validation = (scaler.transform(part) for part in features)
    number = targets[0].shape[1]
    models: list[Any] = [None] * number
    thresholds, chosen = np.full(number, np.nan), np.full(number, np.nan)
    for column in range(number):
        rows = ~np.isnan(targets[0][:, column])
        labels = targets[0][rows, column]
        if len(np.unique(labels)) < 2:
            continue
        checked = ~np.isnan(targets[1][:, column])
        best = -np.inf
        # From the strongest penalty to the weakest, each started at the last solution; of equals the strongest is kept.
        model = LogisticRegression(max_iter=2000, warm_start=True)
        for c_value in sorted(c_values):
            model.set_params(C=c_value).fit(train[rows], labels)
            given = model.decision_function(validation)
            auroc = auroc_and_average_precision(given[checked], targets[1][checked, column] == 1)[0][0]
            # With validation cases of one class the strongest penalty is taken.
            auroc = 0.0 if np.isnan(auroc) else float(auroc)
            if auroc > best:
                best = auroc
                chosen[column], models[column] = c_value, copy.deepcopy(model)
                thresholds[column] = f1_thresholds(given[checked][:, None], targets[1][checked][:, [column]])[0]
    return Probes(scaler, tuple(models), chosen, thresholds)


def _probe(
    features: Sequence[np.ndarray], targets: Sequence[np.ndarray], c_values: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Test scores (N, F), probabilities (N, F), thresholds (F,) and C (F,) of classifiers trained on one subset."""
    probes = fit_probes(features[:2], targets[:2], c_values)
    scores = probes.scores(features[2])
    return scores, 0.5 * (1 + np.tanh(scores / 2)), probes.thresholds, probes.c_values


def _warn_unfitted(c_values: np.ndarray, findings: Sequence[str], fraction: float) -> None:
    missing = np.isnan(c_values)
    if missing.any():
        names = [name for name, without in zip(findings, missing.any(axis=0), strict=True) if without]
        warnings.warn(
            f"{int(missing.sum())} of {missing.size} classifiers at {100 * fraction:g} % of the labels were not trained, as "
            f"their cases are of one class: {', '.join(names)}.",
            RuntimeWarning,
            stacklevel=3,
        )


def _run(context: ProtocolContext) -> LinearProbeResult:
    return linear_probe(**context.probe_arguments())


register_protocol(Protocol("linear-probe", _run, requires=["labels", "training", "validation"], order=50))
