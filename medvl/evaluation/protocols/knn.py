"""Weighted k-nearest-neighbors classification of findings on frozen image embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.explanations import BY_FINDING
from medvl.evaluation.multi_label import FindingResult, FromCases, MultiLabelCases, finding_table
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.curves import auroc_and_average_precision
from medvl.evaluation.tables import Cell, Table
from medvl.evaluation.targets import (
    Uncertain,
    check_disjoint_patients,
    f1_thresholds,
    finding_targets,
    has_both_classes,
    warn_one_class,
)
from medvl.utils.checks import check_integer, check_positive, error_message
from medvl.utils.counts import count_of

__all__ = ["KNNResult", "knn"]

KS = (5, 10, 20, 50, 100, 200)
"""Numbers of neighbors to choose from on validation."""

TEMPERATURE = 0.07
"""Of the votes, as in Wu et al. (2018) and DINO."""

BLOCK = 512
"""Images whose similarities to all training images are held at one time."""


@dataclass(frozen=True)
class KNNResult(FromCases, ProtocolResult):
    """k-nearest-neighbors classification of F findings on N test studies.

    Args:
        macro: means of ``auroc``, ``auprc``, ``f1``, ``brier`` and ``ece`` over the findings with cases of both classes.
        findings: metrics by finding.
        k: the number of neighbors, chosen on validation.
        validation_auroc: macro AUROC on validation by number of neighbors; NaN without a finding with cases of both classes.
        cases: votes and targets of every test study.
        settings: numbers of neighbors, temperature, treatment of uncertain labels, bootstrap.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    k: int
    validation_auroc: dict[int, float]
    cases: MultiLabelCases
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "k": self.k,
            "validation_auroc": {
                str(k): None if np.isnan(auroc) else auroc for k, auroc in self.validation_auroc.items()
            },
            "cases": len(self.study_ids),
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Metrics by finding and their macro mean."""
        description = (
            f"Votes of the {self.k} training images with the most similar embeddings, weighted by their similarity; the number "
            "is chosen on the validation split. Nothing is trained."
        )
        metrics = ("auroc", "auprc", "f1")
        return [finding_table("knn", "k nearest neighbors", self.findings, self.macro, metrics, description)]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        return BY_FINDING

    def key_figures(self) -> list[KeyFigure]:
        """The macro AUROC."""
        return [
            KeyFigure("k-NN macro AUROC", Cell.of(self.macro["auroc"], chance=0.5, note=f"with {self.k} neighbors"))
        ]


def knn(
    train: Embeddings,
    validation: Embeddings,
    test: Embeddings,
    names: Sequence[str],
    *,
    findings: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    uncertain: Uncertain = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> KNNResult:
    """Classify test images by the labels of the training images with the most similar embeddings.

    With N_k(v) the k training images of largest cosine with the image v among those whose label of a finding is known, and
    y_j their labels, the probability of the finding is the vote::

        p(v) = sum_{j in N_k(v)} exp(<v, v_j> / tau) y_j / sum_{j in N_k(v)} exp(<v, v_j> / tau)

    (Wu et al., 2018, https://arxiv.org/abs/1805.01978; Caron et al., 2021, https://arxiv.org/abs/2104.14294). One k for all
    findings is chosen by the macro AUROC on validation, the smallest of equals; a k beyond the number of training images
    takes all. The threshold of F1 of each finding is chosen on validation too.

    Args:
        train: embeddings with ``labels`` (N, K).
        validation: the same of other patients.
        test: the same of other patients again.
        names: the K findings in the order of the labels' columns.
        findings: those to classify; None for all that are known of some training study.
        ks: numbers of neighbors to choose from.
        temperature: tau.
        uncertain: how a label of -1 counts: excluded, as present or as absent.
        bootstrap: of the intervals, clustered by test patient.

    Returns:
        Metrics by finding. A finding whose training labels are of one class is not classified, with a warning; one whose test
        labels are of one class is left out of the macro means.

    Raises:
        TypeError: If a k is not an integer.
        ValueError: If labels are missing or have another width than ``names``, the sets share a patient, ``ks`` is empty or a
            k below 1, or ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> def studies(first):
        ...     image = torch.tensor([[1.0, 0.1], [0.9, 0.2], [0.1, 1.0], [0.2, 0.9]])
        ...     ids = [f"p{first + row}" for row in range(4)]
        ...     return Embeddings(image, image, labels=torch.tensor([[1.0], [1.0], [0.0], [0.0]]), patient_ids=ids)
        >>> result = knn(studies(0), studies(4), studies(8), ["Edema"], ks=[1, 3])
        >>> result.k, result.macro["auroc"].value, result.cases.probabilities[0, :, 0].tolist()
        (1, 1.0, [1.0, 1.0, 0.0, 0.0])
    """
    if not ks:
        raise ValueError(error_message("ks", "hold at least one number of neighbors", "none"))
    for k in ks:
        check_integer(k, "ks", minimum=1)
    check_positive(temperature, "temperature")
    check_disjoint_patients(train=train, validation=validation, test=test)
    if findings is None:
        known = ~np.isnan(finding_targets(train, names, names, uncertain))
        findings = [name for name, given in zip(names, known.any(axis=0), strict=True) if given]
    targets = [finding_targets(part, names, findings, uncertain) for part in (train, validation, test)]
    _warn(targets[0], targets[2], findings)
    features = [part.image.numpy().astype(float) for part in (train, validation, test)]
    ks = sorted(set(ks))
    votes = neighbor_votes(features[0], targets[0], features[1], ks, temperature)
    aurocs = [_macro_auroc(vote, targets[1]) for vote in votes]
    chosen = int(np.nanargmax(aurocs)) if not np.isnan(aurocs).all() else 0
    probabilities = neighbor_votes(features[0], targets[0], features[2], [ks[chosen]], temperature)
    cases = MultiLabelCases(
        names=tuple(findings),
        scores=probabilities,
        probabilities=probabilities,
        targets=targets[2],
        thresholds=f1_thresholds(votes[chosen], targets[1])[None],
        study_ids=tuple(test.study_ids),
        patient_ids=tuple(test.patient_ids),
    )
    macro, results = cases.results(bootstrap)
    settings = {"ks": ks, "temperature": temperature, "uncertain": uncertain, "bootstrap": bootstrap.to_dict()}
    return KNNResult(macro, results, ks[chosen], dict(zip(ks, aurocs, strict=True)), cases, settings)


def neighbor_votes(
    train: np.ndarray, targets: np.ndarray, images: np.ndarray, ks: Sequence[int], temperature: float
) -> np.ndarray:
    """Votes of the nearest training images for each finding.

    Args:
        train: unit vectors (M, D).
        targets: their labels, 1, 0 or NaN unknown (M, F).
        images: unit vectors (N, D).
        ks: S numbers of neighbors, in ascending order.
        temperature: of the weights.

    Returns:
        (S, N, F), from 0 to 1; NaN for a finding whose known labels are of one class.

    Example:
        >>> train, targets = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), np.array([[1.0], [0.0], [1.0]])
        >>> neighbor_votes(train, targets, np.array([[0.8, 0.6]]), [1, 3], 1.0).round(4)[:, 0, 0].tolist()
        [1.0, 0.7264]
    """
    votes = np.full((len(ks), len(images), targets.shape[1]), np.nan)
    for finding in np.flatnonzero(has_both_classes(targets)).tolist():
        rows = np.flatnonzero(~np.isnan(targets[:, finding]))
        labels = targets[rows, finding]
        largest = min(ks[-1], len(rows))
        for start in range(0, len(images), BLOCK):
            block = slice(start, start + BLOCK)
            cosines = images[block] @ train[rows].T
            nearest = np.argpartition(-cosines, largest - 1, axis=1)[:, :largest]
            nearest = np.take_along_axis(
                nearest, np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable"), axis=1
            )
            similarity = np.take_along_axis(cosines, nearest, axis=1)
            # Relative to the nearest image, so that no exponential overflows.
            weights = np.exp((similarity - similarity[:, :1]) / temperature)
            total, positive = np.cumsum(weights, axis=1), np.cumsum(weights * labels[nearest], axis=1)
            places = [min(k, largest) - 1 for k in ks]
            votes[:, block, finding] = np.clip(positive[:, places] / total[:, places], 0, 1).T
    return votes


def _macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean AUROC of the findings that are classified and have cases of both classes; NaN for none."""
    known = ~np.isnan(targets) & ~np.isnan(scores)
    aurocs = [
        auroc_and_average_precision(scores[rows, f], targets[rows, f] == 1)[0][0] for f, rows in enumerate(known.T)
    ]
    return float(np.nanmean(aurocs)) if not np.isnan(aurocs).all() else float("nan")


def _warn(train: np.ndarray, test: np.ndarray, findings: Sequence[str]) -> None:
    """Warn of findings that cannot be classified, or not be evaluated."""
    missing = [name for name, both in zip(findings, has_both_classes(train), strict=True) if not both]
    if missing:
        warnings.warn(
            f"{count_of(len(missing), 'finding is', 'findings are')} not classified, as the training labels are of one "
            f"class: {', '.join(missing)}.",
            RuntimeWarning,
            stacklevel=3,
        )
    warn_one_class(
        [name for name, both in zip(findings, has_both_classes(test), strict=True) if not both], stacklevel=4
    )


def _run(context: ProtocolContext) -> KNNResult:
    return knn(**context.probe_arguments())


register_protocol(Protocol("knn", _run, requires=["labels", "training", "validation"], order=55))
