"""Zero-shot classification of findings with present and absent prompts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medvl.evaluation.bootstrap import Estimate, bootstrap, interval
from medvl.evaluation.curves import auroc_and_average_precision
from medvl.evaluation.embeddings import Embeddings, text_encoder, unit_vectors
from medvl.evaluation.tables import plain_table

DEFAULT_LOGIT_SCALE = 1 / 0.07
"""Scale of the similarities for a model that has none of its own: CLIP's initial one."""

Prompts = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class FindingResult:
    """One finding's figures: area under the ROC curve, average precision, and how many cases of each class counted."""

    auroc: Estimate
    auprc: Estimate
    positives: int
    negatives: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as ``evaluation.json`` has them."""
        return {
            "auroc": self.auroc.to_dict(),
            "auprc": self.auprc.to_dict(),
            "positives": self.positives,
            "negatives": self.negatives,
        }


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot classification of F findings on N studies.

    Args:
        macro: means of ``auroc`` and ``auprc`` over the findings that have both classes.
        findings: figures by finding.
        left_out: findings with one class only, which do not enter the means.
        probabilities: of each finding being present (N, F).
        margins: similarity to the present minus the absent prompts (N, F), what the curves are made from.
        targets: 1 present, 0 absent, NaN not counted (N, F).
        prompts: the prompts used, by finding.
        settings: ensemble, logit scale, treatment of uncertain labels, resamples, level.
    """

    macro: dict[str, Estimate]
    findings: dict[str, FindingResult]
    left_out: tuple[str, ...]
    probabilities: np.ndarray
    margins: np.ndarray
    targets: np.ndarray
    prompts: dict[str, dict[str, list[str]]]
    settings: dict[str, Any]

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
        rows = []
        for name, result in self.findings.items():
            row = [name, str(result.positives), str(result.negatives), str(result.auroc), str(result.auprc)]
            rows.append(row + ([str(untrained.findings[name].auroc)] if untrained else []))
        last = ["Macro", "", "", str(self.macro["auroc"]), str(self.macro["auprc"])]
        rows.append(last + ([str(untrained.macro["auroc"])] if untrained else []))
        head = ["Finding", "Present", "Absent", "AUROC", "AUPRC"] + (["Untrained AUROC"] if untrained else [])
        return plain_table(head, rows, rule_before_last=True)


def zero_shot(
    embeddings: Embeddings,
    prompts: Prompts,
    encode_text: Any,
    names: Sequence[str],
    *,
    ensemble: Literal["mean", "max"] = "mean",
    logit_scale: float | None = None,
    uncertain: Literal["exclude", "present", "absent"] = "exclude",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
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
        encode_text: the model, or its function from strings to (M, D). It is called once.
        names: the K findings in the order of the labels' columns.
        ensemble: how several prompts count, ``"mean"`` or ``"max"``.
        logit_scale: 1 / tau. None takes the model's own, or 1 / 0.07 where it has none.
        uncertain: what a label of -1 means: left out, present or absent.
        resamples: of the bootstrap by patient.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        Figures for the findings that have prompts, in the order of ``names``. A finding with one class only among its
        labelled cases has NaN, a warning that counts and names it, and no part in the macro means.

    Raises:
        ValueError: if labels are missing or their width is not ``len(names)``, a state is none of 1, 0, -1 and NaN, or a
            finding with prompts is not in ``names``.

    Example:
        >>> images = torch.tensor([[1.0, 0.2], [0.9, 0.4], [0.3, 1.0], [0.1, 0.9]])
        >>> embeddings = Embeddings(images, images, labels=torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
        >>> prompts = {"Edema": {"present": ["edema"], "absent": ["no edema"]}}
        >>> encode = lambda texts: torch.tensor([[0.0, 1.0] if text.startswith("no") else [1.0, 0.0] for text in texts])
        >>> result = zero_shot(embeddings, prompts, encode, ["Edema"], logit_scale=1.0, resamples=200)
        >>> result.findings["Edema"].auroc.value, result.probabilities.round(2).tolist()
        (0.75, [[0.69], [0.62], [0.34], [0.29]])
    """
    targets, used = _targets(embeddings, prompts, names, uncertain)
    if logit_scale is None:
        logit_scale = model_logit_scale(encode_text)
    if ensemble not in ("mean", "max"):
        raise ValueError(f"ensemble must be 'mean' or 'max'; received {ensemble!r}")
    margins = _margins(embeddings.image, prompts, used, encode_text, ensemble)
    # The logistic function in the form that does not overflow.
    probabilities = 0.5 * (1 + np.tanh(0.5 * logit_scale * margins))
    counted = ~np.isnan(targets)

    def figures(weights: np.ndarray) -> np.ndarray:
        values = np.empty((len(weights), len(used), 2))
        for column in range(len(used)):
            rows = np.flatnonzero(counted[:, column])
            values[:, column] = np.stack(
                auroc_and_average_precision(margins[rows, column], targets[rows, column] == 1, weights[:, rows]), axis=1
            )
        return values

    values = figures(np.ones((1, len(targets)), np.float32))[0]
    both = ~np.isnan(values[:, 0])
    _warn_left_out([name for name, given in zip(used, both, strict=True) if not given])
    samples = bootstrap(figures, embeddings.patient_ids, resamples=resamples, seed=seed)
    low, high = interval(samples, level)
    macro = {}
    for metric, key in enumerate(("auroc", "auprc")):
        if both.any():
            with warnings.catch_warnings():
                # A resample may hold no finding with both classes; its NaN is left out by the interval.
                warnings.simplefilter("ignore", RuntimeWarning)
                means = np.nanmean(samples[:, both, metric], axis=1)
            ends = interval(means, level)
            macro[key] = Estimate(float(values[both, metric].mean()), float(ends[0]), float(ends[1]))
        else:
            macro[key] = Estimate(math.nan)
    findings = {}
    for column, name in enumerate(used):
        auroc, auprc = (
            Estimate(float(values[column, m]), float(low[column, m]), float(high[column, m])) for m in (0, 1)
        )
        positives, negatives = (int((targets[:, column] == state).sum()) for state in (1, 0))
        findings[name] = FindingResult(auroc, auprc, positives, negatives)
    return ZeroShotResult(
        macro=macro,
        findings=findings,
        left_out=tuple(name for name, given in zip(used, both, strict=True) if not given),
        probabilities=probabilities,
        margins=margins,
        targets=targets,
        prompts={name: {side: list(prompts[name][side]) for side in ("present", "absent")} for name in used},
        settings={
            "ensemble": ensemble,
            "logit_scale": float(logit_scale),
            "uncertain": uncertain,
            "resamples": resamples,
            "level": level,
            "seed": seed,
        },
    )


def model_logit_scale(model: Any) -> float:
    """The scale of a model's logits (1 / tau), from its ``logit_scale``; 1 / 0.07 where it has none."""
    scale = getattr(model, "logit_scale", None)
    if isinstance(scale, torch.nn.Module):
        scale = scale()
    return DEFAULT_LOGIT_SCALE if scale is None else float(torch.as_tensor(scale).detach())


def _targets(
    embeddings: Embeddings, prompts: Prompts, names: Sequence[str], uncertain: str
) -> tuple[np.ndarray, list[str]]:
    """1, 0 or NaN for each study and finding with prompts (N, F), and the F names."""
    labels = embeddings.labels
    if labels is None:
        raise ValueError("zero-shot classification needs labels; embeddings.labels is None")
    if labels.shape[1] != len(names):
        raise ValueError(f"labels must have a column for each of the {len(names)} names; received {labels.shape[1]}")
    if len(set(names)) < len(names):
        raise ValueError(f"names must differ from each other; received {list(names)}")
    unknown = [name for name in prompts if name not in names]
    if unknown or not prompts:
        raise ValueError(f"prompts must be for findings among {list(names)}; received {unknown or 'none'}")
    for name, sides in prompts.items():
        for side in ("present", "absent"):
            if isinstance(sides.get(side), str) or not sides.get(side):
                raise ValueError(f"prompts for {name!r} need a list of at least one {side!r} prompt")
    replacement = {"exclude": math.nan, "present": 1.0, "absent": 0.0}
    if uncertain not in replacement:
        raise ValueError(f"uncertain must be one of {', '.join(replacement)}; received {uncertain!r}")
    used = [name for name in names if name in prompts]
    states = labels.numpy()[:, [list(names).index(name) for name in used]].astype(float)
    wrong = ~(np.isnan(states) | np.isin(states, (-1, 0, 1)))
    if wrong.any():
        raise ValueError(f"labels must be 1, 0, -1 or NaN; received {states[wrong][0]}")
    return np.where(states == -1, replacement[uncertain], states), used


def _margins(image: Tensor, prompts: Prompts, used: Sequence[str], encode_text: Any, ensemble: str) -> np.ndarray:
    """Similarity to the present minus the absent prompts (N, F), float64."""
    blocks = [list(prompts[name][side]) for name in used for side in ("present", "absent")]
    distinct = list(dict.fromkeys(prompt for block in blocks for prompt in block))
    with torch.inference_mode():
        embeds = unit_vectors("prompt", text_encoder(encode_text)(distinct)).double()
    if embeds.shape != (len(distinct), image.shape[1]):
        raise ValueError(
            f"encode_text must give {(len(distinct), image.shape[1])} for {len(distinct)} prompts; received "
            f"{tuple(embeds.shape)}"
        )
    place = {prompt: row for row, prompt in enumerate(distinct)}
    columns = []
    for block in blocks:
        vectors = embeds[[place[prompt] for prompt in block]]
        if ensemble == "mean":
            vectors = torch.nn.functional.normalize(vectors.mean(dim=0, keepdim=True), dim=1)
        columns.append((image.double() @ vectors.T).amax(dim=1))
    similarity = torch.stack(columns, dim=1).numpy()
    return similarity[:, 0::2] - similarity[:, 1::2]


def _warn_left_out(names: Sequence[str]) -> None:
    if names:
        warnings.warn(
            f"{len(names)} finding(s) have one class only among the labelled cases and are left out of the macro means: "
            + ", ".join(names),
            RuntimeWarning,
            stacklevel=3,
        )
