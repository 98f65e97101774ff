"""Zero-shot classification of findings by present and absent prompts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from medvl.evaluation.context import ProtocolContext, labeled_findings
from medvl.evaluation.embeddings import Embeddings, normalized_embeddings, text_encoder
from medvl.evaluation.explanations import BY_FINDING
from medvl.evaluation.multi_label import FindingResult, FromCases, MultiLabelCases, finding_table
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.tables import Cell, Table
from medvl.evaluation.targets import (
    check_disjoint_patients,
    f1_thresholds,
    finding_targets,
    require_labels,
    warn_one_class,
)
from medvl.functional import class_similarity, finding_margins
from medvl.functional.zero_shot import get_logit_scale
from medvl.text.prompts import check_class_prompts
from medvl.utils.checks import error_message
from medvl.utils.counts import count_of

__all__ = ["ZeroShotResult", "zero_shot"]

ClassPrompts = Mapping[str, Mapping[str, Sequence[str]]]
DESCRIPTION = (
    "Does the model tell images with a finding from those without it, by sentences alone? An image's score is its similarity "
    "to the prompts that state the finding minus that to the prompts that deny it."
)


@dataclass(frozen=True)
class ZeroShotResult(FromCases, ProtocolResult):
    """Zero-shot classification of F findings on N studies.

    Args:
        macro: means of ``auroc``, ``auprc``, ``f1``, ``brier`` and ``ece`` over the findings with cases of both classes.
        findings: metrics by finding.
        left_out: findings with cases of one class only, left out of the means.
        cases: scores and targets of every study.
        class_prompts: the prompts used, by finding.
        settings: ensemble, logit scale, treatment of uncertain labels, thresholds, bootstrap.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    left_out: tuple[str, ...]
    cases: MultiLabelCases
    class_prompts: dict[str, dict[str, list[str]]]
    settings: dict[str, Any]

    @property
    def probabilities(self) -> np.ndarray:
        """That each finding is present (N, F)."""
        return self.cases.probabilities[0]

    @property
    def margins(self) -> np.ndarray:
        """Similarity to the present minus that to the absent prompts (N, F), the scores of the curves."""
        return self.cases.scores[0]

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "left_out": list(self.left_out),
            "cases": len(self.targets),
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Metrics by finding and their macro mean."""
        metrics = ["auroc", "auprc", *([] if math.isnan(self.macro["f1"].value) else ["f1"])]
        return [finding_table("zero-shot", "Zero-shot classification", self.findings, self.macro, metrics, DESCRIPTION)]

    def key_figures(self) -> list[KeyFigure]:
        """The macro AUROC."""
        return [KeyFigure("Zero-shot macro AUROC", Cell.of(self.macro["auroc"], chance=0.5))]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        return {
            name: line for name, line in BY_FINDING.items() if name != "F1" or not math.isnan(self.macro["f1"].value)
        }

    def notes(self) -> list[str]:
        """Which findings are not in the macro mean."""
        if not self.left_out:
            return []
        return [f"Left out of zero-shot's macro means, as their cases are of one class: {', '.join(self.left_out)}."]


def zero_shot(
    embeddings: Embeddings,
    class_prompts: ClassPrompts,
    encode_text: Any,
    names: Sequence[str],
    *,
    validation: Embeddings | None = None,
    ensemble: Literal["mean", "max"] = "mean",
    logit_scale: float | None = None,
    uncertain: Literal["exclude", "present", "absent"] = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> ZeroShotResult:
    """Multi-label zero-shot classification: is an image more similar to a finding's present or to its absent prompts?

    With v the image, s+ and s- its cosines with the present and the absent prompts of finding k and tau the temperature::

        p_k = exp(s+ / tau) / (exp(s+ / tau) + exp(s- / tau)).

    ``ensemble="mean"`` takes the cosine with the normalized mean of the prompts' unit vectors (Radford et al., 2021);
    ``"max"`` takes the largest cosine over the prompts. An image's score depends on that image alone: nothing is normalized
    over the test images. The curves use s+ - s-, which orders cases as p does without rounding near 0 and 1.

    Args:
        embeddings: images with ``labels`` (N, K).
        class_prompts: for each finding, ``{"present": [...], "absent": [...]}``, at least one prompt each.
        encode_text: the model, or its function from strings to (M, D).
        names: the K findings in the order of the labels' columns.
        validation: other studies with labels (V, K), on which each finding's threshold of F1 is chosen. None gives no F1,
            since a threshold chosen on the test studies would be optimistic.
        ensemble: how several prompts are combined, ``"mean"`` or ``"max"``.
        logit_scale: 1 / tau. None takes the model's own, or 1 / 0.07 where it has none.
        uncertain: how a label of -1 counts: excluded, as present or as absent.
        bootstrap: of the intervals, clustered by patient.

    Returns:
        Metrics of the findings that have prompts, in the order of ``names``. A finding whose labeled cases are of one class
        has NaN, is named in a warning, and is left out of the macro means.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, a state is none of 1, 0, -1 and NaN, a finding
            with prompts is not in ``names``, or validation and test share a patient.

    Example:
        >>> images = torch.tensor([[1.0, 0.2], [0.9, 0.4], [0.3, 1.0], [0.1, 0.9]])
        >>> embeddings = Embeddings(images, images, labels=torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
        >>> class_prompts = {"Edema": {"present": ["edema"], "absent": ["no edema"]}}
        >>> encode = lambda texts: torch.tensor([[0.0, 1.0] if text.startswith("no") else [1.0, 0.0] for text in texts])
        >>> result = zero_shot(embeddings, class_prompts, encode, ["Edema"], logit_scale=1.0)
        >>> result.findings["Edema"].auroc.value, result.probabilities.round(2).tolist()
        (0.75, [[0.69], [0.62], [0.34], [0.29]])
    """
    require_labels(embeddings, names)
    check_class_prompts(class_prompts, names)
    used = [name for name in names if name in class_prompts]
    targets = finding_targets(embeddings, names, used, uncertain)
    if logit_scale is None:
        logit_scale = get_logit_scale(encode_text)
    sides = {f"{side} {name}": class_prompts[name][side] for name in used for side in ("present", "absent")}
    similarity = prompt_similarity(
        embeddings if validation is None else [embeddings, validation], sides, encode_text, ensemble
    )
    margins = [finding_margins(values) for values in similarity]
    thresholds = np.full(len(used), np.nan)
    if validation is not None:
        check_disjoint_patients(validation=validation, test=embeddings)
        thresholds = f1_thresholds(margins[1], finding_targets(validation, names, used, uncertain))
        without = [name for name, threshold in zip(used, thresholds, strict=True) if math.isnan(threshold)]
        if without:
            warnings.warn(
                f"{count_of(len(without), 'finding has', 'findings have')} no present case in validation and therefore no "
                f"F1: {', '.join(without)}.",
                RuntimeWarning,
                stacklevel=2,
            )
    cases = MultiLabelCases(
        names=tuple(used),
        scores=margins[0][None],
        # The logistic function, without overflow.
        probabilities=0.5 * (1 + np.tanh(0.5 * logit_scale * margins[0]))[None],
        targets=targets,
        thresholds=thresholds[None],
        study_ids=tuple(embeddings.study_ids),
        patient_ids=tuple(embeddings.patient_ids),
    )
    left_out = tuple(name for name, both in zip(used, cases.two_classes, strict=True) if not both)
    warn_one_class(left_out)
    macro, findings = cases.results(bootstrap)
    return ZeroShotResult(
        macro=macro,
        findings=findings,
        left_out=left_out,
        cases=cases,
        class_prompts={
            name: {side: list(class_prompts[name][side]) for side in ("present", "absent")} for name in used
        },
        settings={
            "ensemble": ensemble,
            "logit_scale": float(logit_scale),
            "uncertain": uncertain,
            "thresholds": {
                name: None if math.isnan(threshold) else float(threshold)
                for name, threshold in zip(used, thresholds, strict=True)
            },
            "bootstrap": bootstrap.to_dict(),
        },
    )


def prompt_similarity(
    images: Embeddings | Sequence[Embeddings],
    class_prompts: Mapping[str, Sequence[str]],
    encode_text: Any,
    ensemble: Literal["mean", "max"],
) -> list[np.ndarray]:
    """Cosines (N, C) of one or several sets of images with the prompts of C classes, from one call of the text encoder.

    Raises:
        ValueError: If ``ensemble`` is unknown, or the encoder's output is not finite or not of the images' width.
    """
    sets = [images] if isinstance(images, Embeddings) else list(images)
    distinct = list(dict.fromkeys(prompt for texts in class_prompts.values() for prompt in texts))
    with torch.inference_mode():
        embeds = normalized_embeddings("prompt", text_encoder(encode_text, as_class_prompts=True)(distinct)).double()
    width = sets[0].image.shape[1]
    if embeds.shape != (len(distinct), width):
        raise ValueError(
            error_message(
                "encode_text", f"give shape {(len(distinct), width)} for {len(distinct)} prompts", tuple(embeds.shape)
            )
        )
    place = {prompt: row for row, prompt in enumerate(distinct)}
    rows = [place[prompt] for texts in class_prompts.values() for prompt in texts]
    classes = torch.tensor([number for number, texts in enumerate(class_prompts.values()) for _ in texts])
    return [
        class_similarity(given.image.double(), embeds[rows], classes, ensemble, num_classes=len(class_prompts)).numpy()
        for given in sets
    ]


def _run(context: ProtocolContext) -> ZeroShotResult:
    embeddings = context.embeddings()
    class_prompts = context.class_prompts(labeled_findings(embeddings, context.findings))
    return zero_shot(
        embeddings,
        class_prompts,
        context.model,
        context.findings,
        validation=context.validation_embeddings(),
        bootstrap=context.bootstrap,
    )


register_protocol(Protocol("zero-shot", _run, requires=["labels"], order=10))
