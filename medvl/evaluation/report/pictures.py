"""Figures of the report: heat maps, outlines, ROC and calibration curves, and the similarity matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.grounding import TITLES
from medvl.evaluation.report.overlays import overlay
from medvl.evaluation.report.plots import calibration_plot, roc_plot, similarity_matrix
from medvl.evaluation.report.sentence_maps import SentenceMaps
from medvl.evaluation.statistics.bootstrap import Estimate

MATRIX_STUDIES = 60
"""Number of studies in the similarity matrix, at most."""


def grounding_cases(result: Any) -> list[dict[str, Any]]:
    """Heat maps of the examples with the true region outlined."""
    cases = []
    for example in result.examples if result is not None else ():
        values = [f"{TITLES[name]} {value:.2f}" for name, value in example.values.items() if name != "pointing"]
        values.append("points inside" if example.values["pointing"] == 1 else "points outside")
        cases.append(
            {
                "name": example.name,
                "study": example.study_id,
                "picture": overlay(example.picture, example.heat, truth=example.truth),
                "about": ", ".join(values),
                "hit": example.values["pointing"] == 1,
                "range": _range(example.heat),
            }
        )
    return cases


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


def roc_plots(result: Any, untrained: Any) -> list[tuple[str, Estimate, str]]:
    """Name, AUROC and plot of every finding with cases of both classes."""
    if result is None:
        return []
    plots = []
    for column, (name, finding) in enumerate(result.findings.items()):
        if math.isnan(finding.auroc.value):
            continue
        other = None
        if untrained is not None and list(untrained.findings) == list(result.findings):
            other = untrained.margins[:, column], untrained.targets[:, column]
        svg = roc_plot(name, result.margins[:, column], result.targets[:, column], finding.auroc.value, other)
        plots.append((name, finding.auroc, svg))
    return plots


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
