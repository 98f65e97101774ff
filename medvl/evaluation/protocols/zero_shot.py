"""Zero-shot classification of findings with present and absent prompts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from medvl.evaluation.embeddings import Embeddings, text_encoder, unit_vectors
from medvl.evaluation.multi_label import (
    FindingResult,
    MultiLabelCases,
    check_patients_apart,
    checked_labels,
    f1_thresholds,
    finding_targets,
    warn_left_out,
)
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.calibration import ReliabilityCurve
from medvl.evaluation.tables import text_table
from medvl.functional import class_similarity
from medvl.functional.zero_shot import get_logit_scale

if TYPE_CHECKING:
    import pandas as pd

Prompts = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot classification of F findings on N studies.

    Args:
        macro: means of ``auroc``, ``auprc``, ``f1``, ``brier`` and ``ece`` over the findings that have both classes.
        findings: figures by finding.
        left_out: findings with one class only, which do not enter the means.
        cases: scores and truth of every study.
        prompts: the prompts used, by finding.
        settings: ensemble, logit scale, treatment of uncertain labels, thresholds, bootstrap.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    left_out: tuple[str, ...]
    cases: MultiLabelCases
    prompts: dict[str, dict[str, list[str]]]
    settings: dict[str, Any]

    @property
    def probabilities(self) -> np.ndarray:
        """Of each finding being present (N, F)."""
        return self.cases.probabilities[0]

    @property
    def margins(self) -> np.ndarray:
        """Similarity to the present minus the absent prompts (N, F), what the curves are made from."""
        return self.cases.scores[0]

    @property
    def targets(self) -> np.ndarray:
        """1 present, 0 absent, NaN not counted (N, F)."""
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
        """Statistics (B,) by name for weights (B, N) of the studies; see :func:`medvl.evaluation.compare`."""
        return self.cases.statistics(weights)

    def case_table(self) -> pd.DataFrame:
        """One row for each study and finding that counts: ids, target, score, probability and call."""
        return self.cases.table()

    def reliability(self, name: str, n_bins: int = 10) -> ReliabilityCurve:
        """Reliability curve of a finding's probabilities."""
        return self.cases.reliability(name, n_bins)

    def to_dict(self) -> dict[str, Any]:
        """Figures and settings as ``evaluation.json`` has them."""
        return {
            "macro": {name: estimate.to_dict() for name, estimate in self.macro.items()},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "left_out": list(self.left_out),
            "cases": len(self.targets),
            "settings": self.settings,
        }

    def table(self, untrained: ZeroShotResult | None = None) -> str:
        """The figures as a plain-text table, with an untrained model's AUROC beside them."""
        with_f1 = not math.isnan(self.macro["f1"].value)
        head = ["Finding", "Present", "Absent", "AUROC", "AUPRC"] + (["F1"] if with_f1 else [])
        rows = []
        for name, result in [*self.findings.items(), ("Macro", None)]:
            figures = self.macro if result is None else {key: getattr(result, key) for key in ("auroc", "auprc", "f1")}
            row = [name, *(["", ""] if result is None else [str(result.positives), str(result.negatives)])]
            row += [str(figures["auroc"]), str(figures["auprc"])] + ([str(figures["f1"])] if with_f1 else [])
            if untrained is not None:
                row.append(str(untrained.macro["auroc"] if result is None else untrained.findings[name].auroc))
            rows.append(row)
        return text_table(head + (["Untrained AUROC"] if untrained else []), rows, rule_before_last=True)


def zero_shot(
    embeddings: Embeddings,
    prompts: Prompts,
    encode_text: Any,
    names: Sequence[str],
    *,
    validation: Embeddings | None = None,
    ensemble: Literal["mean", "max"] = "mean",
    logit_scale: float | None = None,
    uncertain: Literal["exclude", "present", "absent"] = "exclude",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> ZeroShotResult:
    """Multi-label zero-shot classification: is an image nearer to a finding's present or to its absent prompts?

    With v the image, s+ and s- its cosines with the present and the absent prompts of finding k and tau the temperature,

        p_k = exp(s+ / tau) / (exp(s+ / tau) + exp(s- / tau)).

    ``ensemble="mean"`` takes the cosine with the mean of the prompts' unit vectors, itself normalised (Radford et al.,
    2021); ``"max"`` takes the largest cosine over the prompts. An image's score depends on that image alone: nothing is
    normalised over the test images. The curves use s+ - s-, which orders cases as p does without rounding near 0 and 1.

    Args:
        embeddings: images with ``labels`` (N, K).
        prompts: for each finding, ``{"present": [...], "absent": [...]}``, at least one prompt each.
        encode_text: the model, or its function from strings to (M, D).
        names: the K findings in the order of the labels' columns.
        validation: other studies with labels (V, K), on which each finding's threshold of F1 is chosen. None gives no F1: a
            threshold chosen on the test studies would flatter.
        ensemble: how several prompts count, ``"mean"`` or ``"max"``.
        logit_scale: 1 / tau. None takes the model's own, or 1 / 0.07 where it has none.
        uncertain: what a label of -1 means: left out, present or absent.
        bootstrap: of the intervals, clustered by patient.

    Returns:
        Figures for the findings that have prompts, in the order of ``names``. A finding with one class only among its
        labelled cases has NaN, a warning that counts and names it, and no part in the macro means.

    Raises:
        ValueError: if labels are missing or their width is not ``len(names)``, a state is none of 1, 0, -1 and NaN, a
            finding with prompts is not in ``names``, or validation and test share a patient.

    Example:
        >>> images = torch.tensor([[1.0, 0.2], [0.9, 0.4], [0.3, 1.0], [0.1, 0.9]])
        >>> embeddings = Embeddings(images, images, labels=torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
        >>> prompts = {"Edema": {"present": ["edema"], "absent": ["no edema"]}}
        >>> encode = lambda texts: torch.tensor([[0.0, 1.0] if text.startswith("no") else [1.0, 0.0] for text in texts])
        >>> result = zero_shot(embeddings, prompts, encode, ["Edema"], logit_scale=1.0)
        >>> result.findings["Edema"].auroc.value, result.probabilities.round(2).tolist()
        (0.75, [[0.69], [0.62], [0.34], [0.29]])
    """
    checked_labels(embeddings, names)
    _check_prompts(prompts, names)
    used = [name for name in names if name in prompts]
    targets = finding_targets(embeddings, names, used, uncertain)
    if logit_scale is None:
        logit_scale = get_logit_scale(encode_text)
    sides = {f"{side} {name}": prompts[name][side] for name in used for side in ("present", "absent")}
    similarity = prompt_similarity(
        embeddings if validation is None else [embeddings, validation], sides, encode_text, ensemble
    )
    margins = [values[:, 0::2] - values[:, 1::2] for values in similarity]
    thresholds = np.full(len(used), np.nan)
    if validation is not None:
        check_patients_apart(validation=validation, test=embeddings)
        thresholds = f1_thresholds(margins[1], finding_targets(validation, names, used, uncertain))
        without = [name for name, threshold in zip(used, thresholds, strict=True) if math.isnan(threshold)]
        if without:
            warnings.warn(
                f"{len(without)} finding(s) have no present case in validation and so no F1: {', '.join(without)}",
                RuntimeWarning,
                stacklevel=2,
            )
    cases = MultiLabelCases(
        names=tuple(used),
        scores=margins[0][None],
        # The logistic function in the form that does not overflow.
        probabilities=0.5 * (1 + np.tanh(0.5 * logit_scale * margins[0]))[None],
        targets=targets,
        thresholds=thresholds[None],
        study_ids=tuple(embeddings.study_ids),
        patient_ids=tuple(embeddings.patient_ids),
    )
    left_out = tuple(name for name, both in zip(used, cases.two_classes, strict=True) if not both)
    warn_left_out(left_out)
    macro, findings = cases.results(bootstrap)
    return ZeroShotResult(
        macro=macro,
        findings=findings,
        left_out=left_out,
        cases=cases,
        prompts={name: {side: list(prompts[name][side]) for side in ("present", "absent")} for name in used},
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
    prompts: Mapping[str, Sequence[str]],
    encode_text: Any,
    ensemble: Literal["mean", "max"],
) -> list[np.ndarray]:
    """Cosines (N, C) of one or several sets of images with C classes of prompts; the text encoder is called once.

    Raises:
        ValueError: if ``ensemble`` is unknown or the encoder's output is no finite matrix of the images' width.
    """
    sets = [images] if isinstance(images, Embeddings) else list(images)
    distinct = list(dict.fromkeys(prompt for texts in prompts.values() for prompt in texts))
    with torch.inference_mode():
        embeds = unit_vectors("prompt", text_encoder(encode_text, prompts=True)(distinct)).double()
    width = sets[0].image.shape[1]
    if embeds.shape != (len(distinct), width):
        raise ValueError(
            f"encode_text must give {(len(distinct), width)} for {len(distinct)} prompts; received {tuple(embeds.shape)}"
        )
    place = {prompt: row for row, prompt in enumerate(distinct)}
    rows = [place[prompt] for texts in prompts.values() for prompt in texts]
    classes = torch.tensor([number for number, texts in enumerate(prompts.values()) for _ in texts])
    return [
        class_similarity(given.image.double(), embeds[rows], classes, ensemble, num_classes=len(prompts)).numpy()
        for given in sets
    ]


def _check_prompts(prompts: Prompts, names: Sequence[str]) -> None:
    unknown = [name for name in prompts if name not in names]
    if unknown or not prompts:
        raise ValueError(f"prompts must be for findings among {list(names)}; received {unknown or 'none'}")
    for name, sides in prompts.items():
        for side in ("present", "absent"):
            if isinstance(sides.get(side), str) or not sides.get(side):
                raise ValueError(f"prompts for {name!r} need a list of at least one {side!r} prompt")
