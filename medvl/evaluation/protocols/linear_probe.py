"""Linear probe: what a linear classifier on frozen embeddings learns from 1, 10 and 100 % of the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.multi_label import (
    FindingResult,
    MultiLabelCases,
    check_patients_apart,
    f1_thresholds,
    finding_targets,
    warn_left_out,
)
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.curves import auroc_and_average_precision
from medvl.evaluation.tables import text_table

if TYPE_CHECKING:
    import pandas as pd

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Values of C, the inverse strength of the penalty, that validation chooses from."""


@dataclass(frozen=True)
class ProbeResult:
    """Classifiers of F findings, trained on one share of the labels, on N test studies.

    Args:
        macro: means of ``auroc``, ``auprc``, ``f1``, ``brier`` and ``ece`` over the findings with both classes, averaged
            over seeds. The interval is that of the test patients.
        findings: figures by finding, likewise.
        seed_auroc: macro AUROC of each seed, which shows how much the drawn training patients matter.
        train_studies: mean number of training studies over seeds.
        strengths: C chosen for each seed and finding (S, F); NaN where a subset knows one class only. Empty for models
            without one.
        cases: scores of each seed (S, N, F) and the truth.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    seed_auroc: tuple[float, ...]
    train_studies: float
    strengths: np.ndarray
    cases: MultiLabelCases

    @property
    def study_ids(self) -> tuple[str, ...]:
        """Of the N test studies."""
        return self.cases.study_ids

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Of the N test studies."""
        return self.cases.patient_ids

    @property
    def targets(self) -> np.ndarray:
        """1 present, 0 absent, NaN not counted (N, F)."""
        return self.cases.targets

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) by name for weights (B, N) of the studies; see :func:`medvl.evaluation.compare`."""
        return self.cases.statistics(weights)

    def case_table(self) -> pd.DataFrame:
        """One row for each test study and finding that counts, means over seeds."""
        return self.cases.table()

    def to_dict(self) -> dict[str, Any]:
        """Figures as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "seed_auroc": [None if np.isnan(value) else value for value in self.seed_auroc],
            "train_studies": self.train_studies,
            "cases": len(self.study_ids),
        }


@dataclass(frozen=True)
class LinearProbeResult:
    """A linear probe at several shares of the labels.

    Args:
        fractions: the result of each share.
        settings: seeds, strengths, treatment of uncertain labels, bootstrap.
    """

    fractions: dict[float, ProbeResult]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Figures and settings as ``evaluation.json`` has them; shares are the keys, as text."""
        return {
            **{f"{fraction:g}": part.to_dict() for fraction, part in self.fractions.items()},
            "settings": self.settings,
        }

    def table(self, untrained: LinearProbeResult | None = None) -> str:
        """The figures as a plain-text table, with an untrained encoder's AUROC beside them."""
        head = ["Linear probe", "Studies", "AUROC", "AUPRC", "F1", "Range over seeds"]
        rows = []
        for fraction, part in self.fractions.items():
            ends = f"{min(part.seed_auroc):.3f} to {max(part.seed_auroc):.3f}"
            row = [f"{100 * fraction:g} % of labels", f"{part.train_studies:.0f}"]
            row += [*(str(part.macro[name]) for name in ("auroc", "auprc", "f1")), ends]
            rows.append(row + ([str(untrained.fractions[fraction].macro["auroc"])] if untrained else []))
        return text_table(head + (["Untrained AUROC"] if untrained else []), rows)


def linear_probe(
    train: Embeddings,
    validation: Embeddings,
    test: Embeddings,
    names: Sequence[str],
    *,
    findings: Sequence[str] | None = None,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2),
    strengths: Sequence[float] = STRENGTHS,
    uncertain: Literal["exclude", "present", "absent"] = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> LinearProbeResult:
    """Logistic regression of each finding on image embeddings, trained on shares of the training patients.

    For each seed a share of the training *patients* is drawn with all their studies; the subset of a smaller share lies
    within that of a larger one. Each finding has a classifier of its own (scikit-learn, L2 penalty, features standardised
    by the subset); the strength of the penalty is the one with the best AUROC on validation, and so is the threshold of F1
    the best one there. The test studies are looked at once. With all labels there is nothing to draw: one seed.

    Args:
        train: embeddings with ``labels`` (N, K).
        validation: the same of other patients.
        test: the same of other patients again.
        names: the K findings in the order of the labels' columns.
        findings: those to classify; None for all that some training study has a state of.
        fractions: shares of the training patients, above 0 and at most 1.
        seeds: of the draws.
        strengths: values of C to choose from.
        uncertain: what a label of -1 means: left out, present or absent.
        bootstrap: of the intervals, clustered by patient.

    Returns:
        Figures by share, averaged over seeds. A finding of which a subset knows one class only has no classifier for that
        seed, with a warning; a finding with one class only in the test set has no part in the macro means.

    Raises:
        ValueError: if labels are missing or too wide, the sets share a patient, a share is not above 0 and at most 1, or no
            finding is left.

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
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong or not fractions or not seeds or not strengths:
        raise ValueError(
            f"fractions must be above 0 and at most 1, with seeds and strengths; received {list(fractions)}"
        )
    check_patients_apart(train=train, validation=validation, test=test)
    known = finding_targets(train, names, list(names), uncertain)
    if findings is None:
        findings = [name for name, any_state in zip(names, (~np.isnan(known)).any(axis=0), strict=True) if any_state]
    targets = [finding_targets(part, names, findings, uncertain) for part in (train, validation, test)]
    features = [part.image.numpy() for part in (train, validation, test)]  # float32 halves the time
    _warn_one_class(targets[2], findings)
    parts = {}
    for fraction in fractions:
        drawn = list(seeds) if fraction < 1 else [seeds[0]]
        subsets = [patient_subset(train.patient_ids, fraction, number) for number in drawn]
        fits = [
            _probe(
                [f[rows] if i == 0 else f for i, f in enumerate(features)],
                [t[rows] if i == 0 else t for i, t in enumerate(targets)],
                strengths,
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
            strengths=np.array([fit[3] for fit in fits]),
            bootstrap=bootstrap,
        )
    settings = {
        "seeds": list(seeds),
        "strengths": list(strengths),
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
    strengths: np.ndarray | None = None,
) -> ProbeResult:
    """Figures of the scores (S, N, F) of S classifiers on the test studies."""
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
    chosen = np.empty((len(scores), 0)) if strengths is None else strengths
    return ProbeResult(macro, results, tuple(seed_auroc), train_studies, chosen, cases)


def patient_subset(patient_ids: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Rows of a share of the patients, at least one; with the same seed a smaller share lies within a larger one.

    Example:
        >>> patient_subset(["a", "a", "b", "c", "d"], 1.0, seed=0)
        array([0, 1, 2, 3, 4])
    """
    patients = sorted(set(patient_ids))
    order = np.random.default_rng(seed).permutation(len(patients))
    number = max(1, round(fraction * len(patients)))
    kept = {patients[i] for i in order[:number]}
    return np.array([row for row, patient in enumerate(patient_ids) if patient in kept])


def _probe(
    features: Sequence[np.ndarray], targets: Sequence[np.ndarray], strengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Test scores (N, F), probabilities (N, F), thresholds (F,) and C (F,) of classifiers trained on one subset."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features[0])
    train, validation, test = (scaler.transform(part) for part in features)
    number = targets[2].shape[1]
    scores, thresholds, chosen = np.full((len(test), number), np.nan), np.full(number, np.nan), np.full(number, np.nan)
    for column in range(number):
        rows = ~np.isnan(targets[0][:, column])
        labels = targets[0][rows, column]
        if len(np.unique(labels)) < 2:
            continue
        checked = ~np.isnan(targets[1][:, column])
        best = -np.inf
        # From the strongest penalty up, each start where the last ended; of equals the strongest stays.
        model = LogisticRegression(max_iter=2000, warm_start=True)
        for strength in sorted(strengths):
            model.set_params(C=strength).fit(train[rows], labels)
            given = model.decision_function(validation)
            auroc = auroc_and_average_precision(given[checked], targets[1][checked, column] == 1)[0][0]
            # Validation of one class cannot choose: the first, strongest penalty is taken.
            auroc = 0.0 if np.isnan(auroc) else float(auroc)
            if auroc > best:
                best = auroc
                chosen[column], scores[:, column] = strength, model.decision_function(test)
                thresholds[column] = f1_thresholds(given[checked][:, None], targets[1][checked][:, [column]])[0]
    return scores, 0.5 * (1 + np.tanh(scores / 2)), thresholds, chosen


def _warn_one_class(targets: np.ndarray, findings: Sequence[str]) -> None:
    both = (targets == 1).any(axis=0) & (targets == 0).any(axis=0)
    warn_left_out([name for name, given in zip(findings, both, strict=True) if not given], stacklevel=4)


def _warn_unfitted(strengths: np.ndarray, findings: Sequence[str], fraction: float) -> None:
    missing = np.isnan(strengths)
    if missing.any():
        names = [name for name, without in zip(findings, missing.any(axis=0), strict=True) if without]
        warnings.warn(
            f"{int(missing.sum())} of {missing.size} classifiers at {100 * fraction:g} % of the labels were not trained, for "
            f"want of both classes: {', '.join(names)}",
            RuntimeWarning,
            stacklevel=3,
        )
