"""Agreement of predicted findings with the labels: sensitivity, specificity, predictive values and F1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvl.evaluation.context import ProtocolContext, labeled_findings
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.explanations import F1, NPV, PPV, SENSITIVITY, SPECIFICITY
from medvl.evaluation.protocols.zero_shot import prompt_similarity
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.targets import (
    Uncertain,
    check_disjoint_patients,
    f1_thresholds,
    finding_targets,
    has_both_classes,
    warn_one_class,
)
from medvl.functional import finding_margins
from medvl.utils.checks import error_message

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelAgreementResult", "label_agreement"]

METRICS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
}
CHOSEN = (
    "A finding is called present where its score reaches a threshold, the one that maximizes F1 on the validation split; the "
    "test cases had no part in choosing it."
)
UNCHOSEN = (
    "There are no validation cases to choose thresholds on. A finding is called present where the image is more similar to the "
    "prompts that state it than to those that deny it, a probability of 0.5."
)
FALLBACK_THRESHOLD = 0.0
"""Margin at which an image is as similar to the present as to the absent prompts: a probability of 0.5."""


@dataclass(frozen=True)
class LabelAgreementResult(ProtocolResult):
    """Predicted against labeled findings: F findings of N studies.

    Args:
        macro: means of ``sensitivity``, ``specificity``, ``ppv``, ``npv`` and ``f1`` over the findings with cases of both
            classes, each over those of them where it is defined.
        findings: the same by finding.
        left_out: findings with cases of one class only, left out of the means.
        without_threshold: findings without a present case in validation, predicted at a probability of 0.5.
        predictions: whether each finding is predicted present (N, F).
        targets: 1 present, 0 absent, NaN excluded (N, F).
        thresholds: margin at or above which a finding is predicted present (F,).
        study_ids: of the N studies.
        patient_ids: of the N studies.
        settings: ensemble, treatment of uncertain labels, bootstrap.
    """

    macro: dict[str, Estimate]
    findings: dict[str, dict[str, Estimate]]
    left_out: tuple[str, ...]
    without_threshold: tuple[str, ...]
    predictions: np.ndarray
    targets: np.ndarray
    thresholds: np.ndarray
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    settings: dict[str, Any]

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics (B,) by name, such as ``"f1"`` (macro) and ``"f1/Edema"``, for weights (B, N) of the studies."""
        return agreement_statistics(self.predictions, self.targets, tuple(self.findings), weights)

    def case_table(self) -> pd.DataFrame:
        """One row a study and finding with a target: ids, target and prediction."""
        import pandas as pd

        rows, columns = np.nonzero(~np.isnan(self.targets))
        return pd.DataFrame(
            {
                "study_id": [self.study_ids[row] for row in rows],
                "patient_id": [self.patient_ids[row] for row in rows],
                "finding": [list(self.findings)[column] for column in columns],
                "target": self.targets[rows, columns].astype(int),
                "prediction": self.predictions[rows, columns].astype(int),
            }
        )

    def confusion(self, name: str) -> dict[str, int]:
        """Numbers of true and false positives and negatives of a finding."""
        column = list(self.findings).index(name)
        predicted, targets = self.predictions[:, column], self.targets[:, column]
        return {
            "true_positives": int((predicted & (targets == 1)).sum()),
            "false_positives": int((predicted & (targets == 0)).sum()),
            "false_negatives": int((~predicted & (targets == 1)).sum()),
            "true_negatives": int((~predicted & (targets == 0)).sum()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {
                name: {
                    **{metric: estimate.to_dict() for metric, estimate in metrics.items()},
                    **self.confusion(name),
                    "threshold": float(threshold),
                }
                for (name, metrics), threshold in zip(self.findings.items(), self.thresholds, strict=True)
            },
            "left_out": list(self.left_out),
            "without_threshold": list(self.without_threshold),
            "cases": len(self.study_ids),
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """The metrics by finding and their macro means."""
        columns = [Column("Present"), Column("Absent")]
        columns += [Column(title, compared=name in ("sensitivity", "specificity")) for name, title in METRICS.items()]
        rows = []
        for name, metrics in self.findings.items():
            counts = self.confusion(name)
            present = counts["true_positives"] + counts["false_negatives"]
            absent = counts["true_negatives"] + counts["false_positives"]
            numbers = [Cell(present, spec="d"), Cell(absent, spec="d")]
            rows.append(Row(name, [*numbers, *(Cell.of(metrics[metric]) for metric in METRICS)]))
        rows.append(Row("Macro", [Cell(), Cell(), *(Cell.of(self.macro[metric]) for metric in METRICS)], summary=True))
        description = (
            "How often the findings that the model calls present are those of the labels. "
            f"{UNCHOSEN if self.is_unchosen else CHOSEN}"
        )
        return [Table("label-agreement", "Label agreement", "Finding", columns, rows, description)]

    @property
    def is_unchosen(self) -> bool:
        """Whether no finding has a threshold from validation."""
        return len(self.without_threshold) == len(self.findings)

    def key_figures(self) -> list[KeyFigure]:
        """The macro sensitivity and specificity."""
        note = "at a probability of 0.5" if self.is_unchosen else "at the validation threshold"
        return [
            KeyFigure(f"Macro {METRICS[name].lower()}", Cell.of(self.macro[name], note=note))
            for name in ("sensitivity", "specificity")
        ]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        lines = {"Sensitivity": SENSITIVITY, "Specificity": SPECIFICITY, "PPV": PPV, "NPV": NPV}
        return lines if self.is_unchosen else {**lines, "F1": F1}

    def notes(self) -> list[str]:
        """Which findings have no chosen threshold, and which are not in the macro means."""
        notes = []
        if self.without_threshold and not self.is_unchosen:
            names = ", ".join(self.without_threshold)
            notes.append(f"Predicted present at a probability of 0.5, without a threshold from validation: {names}.")
        if self.left_out:
            names = ", ".join(self.left_out)
            notes.append(f"Left out of label agreement's macro means, as their cases are of one class: {names}.")
        return notes


def label_agreement(
    embeddings: Embeddings,
    class_prompts: Mapping[str, Mapping[str, Sequence[str]]],
    encode_text: Any,
    names: Sequence[str],
    *,
    validation: Embeddings | None = None,
    ensemble: Literal["mean", "max"] = "mean",
    uncertain: Uncertain = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> LabelAgreementResult:
    """Sensitivity, specificity, predictive values and F1 of the findings that a model predicts, against the labels.

    A finding is predicted present where the margin s+ - s-, the similarity to its present minus that to its absent prompts
    (:func:`medvl.evaluation.zero_shot`), reaches a threshold. The threshold is the one that maximizes F1 on the validation
    studies; without them, or without a present case among them, it is 0, a probability of 0.5. With the numbers of true
    and false positives and negatives::

        sensitivity = TP / (TP + FN),   specificity = TN / (TN + FP),
        PPV = TP / (TP + FP),   NPV = TN / (TN + FN),   F1 = 2 TP / (2 TP + FP + FN).

    Args:
        embeddings: studies with ``labels`` (N, K).
        class_prompts: for each finding, ``{"present": [...], "absent": [...]}``, at least one prompt each.
        encode_text: the model, or its function from strings to (M, D).
        names: the K findings in the order of the labels' columns.
        validation: other studies with labels (V, K), on which the thresholds are chosen.
        ensemble: how several prompts are combined, ``"mean"`` or ``"max"``.
        uncertain: how a label of -1 counts: excluded, as present or as absent.
        bootstrap: of the intervals, clustered by patient.

    Returns:
        Metrics of the findings that have prompts. What is 0 / 0 is NaN, such as the PPV of a finding that is never predicted.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, a finding with prompts is not in ``names``, or
            validation and test share a patient.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.2], [0.9, 0.4], [0.3, 1.0], [0.1, 0.9]])
        >>> embeddings = Embeddings(images, images, labels=torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
        >>> class_prompts = {"Edema": {"present": ["edema"], "absent": ["no edema"]}}
        >>> encode = lambda texts: torch.tensor([[0.0, 1.0] if text.startswith("no") else [1.0, 0.0] for text in texts])
        >>> result = label_agreement(embeddings, class_prompts, encode, ["Edema"])
        >>> result.predictions[:, 0].tolist(), result.findings["Edema"]["sensitivity"].value
        ([True, True, False, False], 0.5)
    """
    if not class_prompts:
        raise ValueError(error_message("class_prompts", "be of at least one finding", "none"))
    used = [name for name in names if name in class_prompts]
    targets = finding_targets(
        embeddings, names, [*used, *(name for name in class_prompts if name not in names)], uncertain
    )
    sides = {f"{side} {name}": class_prompts[name][side] for name in used for side in ("present", "absent")}
    sets = [embeddings] if validation is None else [embeddings, validation]
    margins = [finding_margins(cosines) for cosines in prompt_similarity(sets, sides, encode_text, ensemble)]
    thresholds = np.full(len(used), np.nan)
    if validation is not None:
        check_disjoint_patients(validation=validation, test=embeddings)
        thresholds = f1_thresholds(margins[1], finding_targets(validation, names, used, uncertain))
    without = tuple(name for name, missing in zip(used, np.isnan(thresholds), strict=True) if missing)
    thresholds = np.where(np.isnan(thresholds), FALLBACK_THRESHOLD, thresholds)
    predictions = margins[0] >= thresholds
    left_out = tuple(name for name, both in zip(used, has_both_classes(targets), strict=True) if not both)
    warn_one_class(left_out)
    found = bootstrap_estimates(
        lambda weights: agreement_statistics(predictions, targets, used, weights), embeddings.patient_ids, bootstrap
    )
    return LabelAgreementResult(
        macro={metric: found[metric] for metric in METRICS},
        findings={name: {metric: found[f"{metric}/{name}"] for metric in METRICS} for name in used},
        left_out=left_out,
        without_threshold=without,
        predictions=predictions,
        targets=targets,
        thresholds=thresholds,
        study_ids=tuple(embeddings.study_ids),
        patient_ids=tuple(embeddings.patient_ids),
        settings={"ensemble": ensemble, "uncertain": uncertain, "bootstrap": bootstrap.to_dict()},
    )


def agreement_statistics(
    predictions: np.ndarray, targets: np.ndarray, names: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics (B,), macro and by finding, for weights (B, N) of the studies; NaN for what is 0 / 0.

    Args:
        predictions: whether each finding is predicted present (N, F), boolean.
        targets: 1 present, 0 absent, NaN excluded (N, F).
        names: of the F findings.
        weights: (B, N), not negative.

    Example:
        >>> statistics = agreement_statistics(np.array([[True], [True], [False]]), np.array([[1.0], [0.0], [0.0]]),
        ...     ["Edema"], np.ones((1, 3)))
        >>> statistics["specificity"], statistics["ppv/Edema"]
        (array([0.5]), array([0.5]))
    """
    weights = weights.astype(float)
    true_positive, false_positive = weights @ (predictions & (targets == 1)), weights @ (predictions & (targets == 0))
    false_negative, true_negative = weights @ (~predictions & (targets == 1)), weights @ (~predictions & (targets == 0))
    with np.errstate(invalid="ignore"):
        values = {
            "sensitivity": true_positive / (true_positive + false_negative),
            "specificity": true_negative / (true_negative + false_positive),
            "ppv": true_positive / (true_positive + false_positive),
            "npv": true_negative / (true_negative + false_negative),
            "f1": 2 * true_positive / (2 * true_positive + false_positive + false_negative),
        }
    # As elsewhere, F1 is undefined without a present case.
    values["f1"] = np.where(true_positive + false_negative > 0, values["f1"], math.nan)
    both = has_both_classes(targets)
    with warnings.catch_warnings():
        # A resample may leave a metric undefined for all findings.
        warnings.simplefilter("ignore", RuntimeWarning)
        macro = {name: np.nanmean(np.where(both, metric, math.nan), axis=1) for name, metric in values.items()}
    by_finding = {f"{name}/{label}": metric[:, f] for name, metric in values.items() for f, label in enumerate(names)}
    return {**macro, **by_finding}


def _run(context: ProtocolContext) -> LabelAgreementResult:
    embeddings = context.embeddings()
    return label_agreement(
        embeddings,
        context.class_prompts(labeled_findings(embeddings, context.findings)),
        context.model,
        context.findings,
        validation=context.validation_embeddings(),
        bootstrap=context.bootstrap,
    )


register_protocol(Protocol("label-agreement", _run, requires=["labels"], order=15))
