"""Figures of the report: heat maps, outlines, ROC and calibration curves, and the similarity matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.grounding_examples import side_text
from medvl.evaluation.protocols.grounding import TITLES
from medvl.evaluation.protocols.label_agreement import agreement_statistics
from medvl.evaluation.report.overlays import overlay
from medvl.evaluation.report.plots import calibration_plot, roc_plot, similarity_matrix
from medvl.evaluation.report.sentence_maps import SentenceMaps

MATRIX_STUDIES = 60
"""Number of studies in the similarity matrix, at most."""


@dataclass(frozen=True)
class RocPlot:
    """A finding's ROC curve as SVG, its area, and sensitivity and specificity at the validation threshold, if any."""

    name: str
    area: str
    rates: list[str]
    svg: str


def grounding_cases(result: Any) -> list[dict[str, Any]]:
    """The findings with the heat maps of their worst, median and best case, the true region outlined."""
    findings: dict[str, list[dict[str, Any]]] = {}
    for example in result.examples if result is not None else ():
        values = [f"{TITLES[name]} {value:.2f}" for name, value in example.values.items() if name != "pointing"]
        hit = example.values["pointing"] == 1
        findings.setdefault(example.name, []).append(
            {
                "place": example.place,
                "study": example.study_id,
                "picture": overlay(example.picture, example.heat, truth=example.truth),
                "about": values,
                "hit": hit,
                "peak": f"highest patch {'inside' if hit else 'outside'}",
                "range": f"{example.heat.min():.2f} to {example.heat.max():.2f}",
            }
        )
    return [{"name": name, "cases": cases} for name, cases in findings.items()]


def grids(maps: Iterable[np.ndarray]) -> str:
    """The sizes of heat maps: "8 × 8", or several of them."""
    return " or ".join(side_text(shape) for shape in sorted({heat.shape for heat in maps}))


def sentence_cases(shown: Sequence[SentenceMaps], show_text: bool) -> list[dict[str, Any]]:
    """Images, each bare and with the heat map of every sentence shown."""
    return [
        {
            "study": case.study_id,
            "picture": overlay(case.picture),
            "sentences": [
                {
                    "text": sentence if show_text else f"sentence {place}",
                    "picture": overlay(case.picture, heat),
                    "range": _range(heat),
                    "grid": side_text(heat.shape),
                }
                for place, (sentence, heat) in enumerate(zip(case.sentences, case.maps, strict=True), start=1)
            ],
        }
        for case in shown
    ]


def segmentation_cases(result: Any) -> list[dict[str, Any]]:
    """Test cases from the worst to the best with the true and the predicted region outlined."""
    return [
        {
            "name": example.name,
            "study": example.study_id,
            "picture": overlay(example.picture, truth=example.truth, predicted=example.predicted),
            "dice": f"{example.dice:.2f}",
        }
        for example in (result.examples if result is not None else ())
    ]


def calibration_plots(result: Any) -> list[tuple[str, str, str]]:
    """Name, expected calibration error and plot of every finding that has cases of both classes."""
    if result is None:
        return []
    return [
        (name, f"{finding.ece.value:.3f}", calibration_plot(name, result.reliability(name)))
        for name, finding in result.findings.items()
        if not math.isnan(finding.auroc.value)
    ]


def roc_plots(result: Any, untrained: Any) -> list[RocPlot]:
    """The ROC curve of every finding with cases of both classes, with the threshold chosen on validation where there is one."""
    if result is None:
        return []
    plots = []
    points = operating_points(result)
    for column, (name, finding) in enumerate(result.findings.items()):
        if math.isnan(finding.auroc.value):
            continue
        other = None
        if untrained is not None and list(untrained.findings) == list(result.findings):
            other = untrained.margins[:, column], untrained.targets[:, column]
        point = points.get(name)
        svg = roc_plot(name, result.margins[:, column], result.targets[:, column], finding.auroc.value, other, point)
        rates = [] if point is None else [f"sensitivity {point[0]:.2f}", f"specificity {point[1]:.2f}"]
        plots.append(RocPlot(name, f"AUROC {finding.auroc.value:.3f}", rates, svg))
    return plots


def operating_points(result: Any) -> dict[str, tuple[float, float]]:
    """Sensitivity and specificity of each finding at the threshold that was chosen on the validation split, if there is one."""
    thresholds = result.cases.thresholds[0]
    rates = agreement_statistics(
        result.margins >= thresholds, result.targets, list(result.findings), np.ones((1, len(result.targets)))
    )
    return {
        name: (float(rates[f"sensitivity/{name}"][0]), float(rates[f"specificity/{name}"][0]))
        for name, threshold in zip(result.findings, thresholds, strict=True)
        if not math.isnan(threshold)
    }


def matrix_order(embeddings: Embeddings, names: Sequence[str], number: int) -> tuple[list[int], list[str]]:
    """Rows for the similarity matrix, at most ``number``, ordered by group, and the group of each.

    A study's group is the rarest finding present in it, since frequent findings would absorb the others.
    """
    rows = np.flatnonzero(embeddings.has_text.numpy())
    rows = (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int))]
        if len(rows)
        else rows
    )
    labels = embeddings.labels
    if labels is None or len(names) != labels.shape[1]:
        return rows.tolist(), ["studies"] * len(rows)
    present = labels[rows].numpy() == 1
    present[:, [name == "No Finding" for name in names]] = False
    frequency = present.sum(axis=0)
    rarest = np.where(present, frequency, len(rows) + 1).argmin(axis=1) if len(rows) else np.zeros(0, int)
    group = np.where(present.any(axis=1), rarest, len(names))
    order = np.argsort(group, kind="stable")
    return rows[order].tolist(), [[*names, "none of these"][place] for place in group[order]]


def similarity_figure(embeddings: Embeddings | None, names: Sequence[str]) -> dict[str, Any] | None:
    """The similarity matrix of some studies, with their number and whether they are grouped; None without a report."""
    if embeddings is None:
        return None
    rows, groups = matrix_order(embeddings, names, MATRIX_STUDIES)
    if not rows:
        return None
    similarity = (embeddings.image[rows] @ embeddings.text[rows].T).numpy()
    return {"svg": similarity_matrix(similarity, groups), "studies": len(rows), "grouped": len(set(groups)) > 1}


def _range(heat: np.ndarray) -> str:
    return f"cosine {heat.min():.2f} to {heat.max():.2f}"
