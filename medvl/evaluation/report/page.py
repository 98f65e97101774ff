"""The report of a run: one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvl import __version__
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.retrieval import TITLES, RetrievalResult, metric_title, number_format
from medvl.evaluation.protocols.zero_shot import ZeroShotResult
from medvl.evaluation.report.pictures import (
    calibration_plots,
    failure_cases,
    grounding_cases,
    report_queries,
    segmentation_cases,
    sentence_cases,
    word_end,
)
from medvl.evaluation.report.plots import loss_curve, picture, roc_plot, similarity_matrix
from medvl.evaluation.report.sentence_maps import SentenceMaps
from medvl.evaluation.report.tables import report_tables, split_estimate
from medvl.evaluation.results import Evaluation
from medvl.evaluation.statistics.bootstrap import Estimate

MATRIX_STUDIES = 60
GALLERY_REPORTS = 3
EXCERPT = 260


@dataclass(frozen=True)
class Headline:
    """One figure at the top of the report."""

    name: str
    value: str
    interval: str
    remark: str


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation,
    embeddings: Embeddings | None = None,
    images: Mapping[int, np.ndarray] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    notes: Mapping[str, Any] | None = None,
    configuration: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    show_text: bool = True,
    gallery: int = 6,
    sentences: Sequence[SentenceMaps] = (),
) -> Path:
    """Write the report of an evaluation as one self-contained HTML file.

    First come the headline figures, the run and the tables of every protocol, with intervals, chance, controls and the
    untrained model; then the pictures: heat maps of findings and of reports' sentences over images, segmented cases, ROC and
    calibration curves, the image-text similarity matrix, nearest reports and images with right and wrong marked, and
    failures; last the prompts and the configuration. What is not given is left out. All text is escaped; nothing is loaded
    from elsewhere.

    Args:
        path: the file; its folder is made. The file is written whole or not at all.
        title: heading of the report.
        evaluation: the results, with those of an untrained model where known.
        embeddings: of the test studies, for the similarity matrix and the gallery.
        images: pictures (H, W), uint8, by row of ``embeddings``; None takes ``embeddings.thumbnails``.
        history: lines of ``metrics.jsonl``.
        notes: what to say of the run in short: data, rows used and left out, seed, time.
        configuration: the resolved configuration.
        environment: versions and machine.
        names: the K findings of the labels' columns, to group the similarity matrix.
        show_text: False keeps every report's text out of the file; the gallery then names the studies.
        gallery: how many test images to show.
        sentences: heat maps of reports' sentences (:func:`medvl.evaluation.sentence_maps`).

    Returns:
        The path.

    Raises:
        ValueError: if a picture is not a matrix of uint8.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    other = evaluation.untrained or Evaluation()
    pages = Environment(
        loader=PackageLoader("medvl.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {
        "title": title,
        "version": __version__,
        "headlines": headlines(evaluation),
        "notes": _words(notes),
        "remarks": remarks(evaluation),
        "loss": loss_curve(history),
        "zero_shot": evaluation.zero_shot,
        "untrained_zero_shot": other.zero_shot,
        "rocs": roc_plots(evaluation.zero_shot, other.zero_shot),
        "calibration": calibration_plots(evaluation.zero_shot),
        "retrieval": retrieval_tables(evaluation.retrieval, other.retrieval),
        "has_untrained_retrieval": other.retrieval is not None,
        "tables": report_tables(evaluation),
        "grounded": grounding_cases(evaluation.grounding),
        "sentences": sentence_cases(sentences, show_text),
        "segmented": segmentation_cases(evaluation.segmentation),
        "matrix": _matrix(embeddings, names),
        "gallery": gallery_cases(evaluation.retrieval, embeddings, images, names, show_text, gallery),
        "queries": report_queries(evaluation.retrieval, embeddings, images, show_text) if gallery else [],
        "failures": failure_cases(evaluation.zero_shot, embeddings, images) if gallery else [],
        "configuration": _yaml(configuration),
        "environment": _yaml(environment),
    }
    text = pages.get_template("report.html.j2").render(**parts, contents=_contents(parts))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    return path


CONTENTS = {
    "run": ("Run", ("notes", "loss")),
    "zero-shot": ("Zero-shot", ("zero_shot",)),
    "retrieval": ("Retrieval", ("retrieval",)),
    "tables": ("", ()),
    "heat-maps": ("Heat maps", ("grounded",)),
    "sentences": ("Sentences", ("sentences",)),
    "segmented": ("Segmented cases", ("segmented",)),
    "roc": ("ROC curves", ("rocs",)),
    "calibration": ("Calibration", ("calibration",)),
    "similarity": ("Similarity", ("matrix",)),
    "gallery": ("Nearest reports", ("gallery",)),
    "images": ("Nearest images", ("queries",)),
    "failures": ("Failures", ("failures",)),
    "prompts": ("Prompts", ("zero_shot",)),
    "configuration": ("Configuration", ("configuration", "environment")),
}
"""Anchor of every section, its name in the list of contents, and the parts of which one must be given."""


def _contents(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed: list[tuple[str, str]] = []
    for anchor, (name, needs) in CONTENTS.items():
        if anchor == "tables":
            listed += [(table.anchor, table.title) for table in parts["tables"]]
        elif any(parts[need] for need in needs):
            listed.append((anchor, name))
    return listed


def headlines(evaluation: Evaluation) -> list[Headline]:
    """The few figures that one looks for first."""
    cards: list[Headline] = []
    other = evaluation.untrained or Evaluation()

    def card(name: str, estimate: Estimate, remark: str, level: float, spec: str = ".3f") -> None:
        value, ends = split_estimate(estimate, spec)
        cards.append(Headline(name, value, f"{100 * level:g} % interval {ends}" if ends else "", remark))

    def add(name: str, result: Any, untrained: Any, figure: Callable[[Any], Estimate], remark: str) -> None:
        if untrained is not None:
            remark += f", untrained {figure(untrained).value:.3f}"
        card(name, figure(result), remark, result.settings["bootstrap"]["confidence_level"])

    if (zero := evaluation.zero_shot) is not None:
        add("Zero-shot macro AUROC", zero, other.zero_shot, lambda part: part.macro["auroc"], "chance 0.500")
    if (single := evaluation.single_label) is not None:
        remark = f"of {len(single.classes)} classes, chance {single.chance:.3f}"
        add("Single-label accuracy", single, other.single_label, lambda part: part.values["accuracy"], remark)
    if evaluation.retrieval is not None:
        level, deepest = (
            evaluation.retrieval.settings["bootstrap"]["confidence_level"],
            max(evaluation.retrieval.settings["ks"]),
        )
        for key, direction in evaluation.retrieval.directions.items():
            recall = f"recall_at_{deepest}"
            value, chance = direction.values[recall], direction.chance[recall]
            remark = f"{value.value / chance:.1f} times the chance of {chance:.3f}"
            card(f"{TITLES[key]} {metric_title(recall)}", value, remark, level)
        direction = evaluation.retrieval.image_to_text
        remark = f"of {len(direction.candidate_rows)} reports, chance {direction.chance['median_rank']:.1f}"
        card("Median rank of the right report", direction.values["median_rank"], remark, level, ".1f")
    if (probe := evaluation.linear_probe) is not None:
        fraction = max(probe.fractions)
        remark = f"with {100 * fraction:g} % of the labels"
        add(
            "Linear probe AUROC",
            probe,
            other.linear_probe,
            lambda part: part.fractions[fraction].macro["auroc"],
            remark,
        )
    if (segmented := evaluation.segmentation) is not None:
        shots = max(segmented.macro)
        remark = f"with {shots} labelled cases"
        add("Segmentation Dice", segmented, other.segmentation, lambda part: part.macro[shots], remark)
    if (grounded := evaluation.grounding) is not None:
        add("Grounding CNR", grounded, other.grounding, lambda part: part.macro["cnr"], "chance 0")
    return cards


def remarks(evaluation: Evaluation) -> list[str]:
    """What a reader must know of how the figures came about."""
    said = []
    if evaluation.zero_shot is not None and evaluation.zero_shot.left_out:
        left = ", ".join(evaluation.zero_shot.left_out)
        said.append(f"Left out of the macro means, for want of cases of both classes: {left}.")
    if evaluation.retrieval is not None and evaluation.retrieval.without_text:
        said.append(f"{evaluation.retrieval.without_text} studies without a report took no part in retrieval.")
    return said


def roc_plots(result: ZeroShotResult | None, untrained: ZeroShotResult | None) -> list[tuple[str, Estimate, str]]:
    """Name, AUROC and plot of every finding with both classes."""
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


def retrieval_tables(result: RetrievalResult | None, untrained: RetrievalResult | None) -> list[dict[str, Any]]:
    """Rows of cells for each direction."""
    tables = []
    for key, direction in result.directions.items() if result is not None else ():
        rows = []
        for name, estimate in direction.values.items():
            spec = number_format(name)
            rows.append(
                {
                    "name": metric_title(name),
                    "value": split_estimate(estimate, spec),
                    "chance": format(direction.chance[name], spec),
                    "shuffled": split_estimate(direction.shuffled[name], spec),
                    "untrained": split_estimate(untrained.directions[key].values[name], spec)
                    if untrained
                    else ("", ""),
                }
            )
        queries, candidates = len(direction.query_rows), len(direction.candidate_rows)
        tables.append({"title": TITLES[key], "rows": rows, "queries": queries, "candidates": candidates})
    return tables


def gallery_cases(
    result: RetrievalResult | None,
    embeddings: Embeddings | None,
    images: Mapping[int, np.ndarray] | None,
    names: Sequence[str],
    show_text: bool,
    number: int,
) -> list[dict[str, Any]]:
    """Test images from the best to the worst ranked, each with its own and its nearest reports."""
    if result is None or embeddings is None:
        return []
    direction = result.image_to_text
    pictures = embeddings.thumbnails if images is None else images
    shown = np.flatnonzero([int(row) in pictures for row in direction.query_rows])
    by_rank = shown[np.argsort(direction.ranks[shown], kind="stable")]
    places = sorted({round(place) for place in np.linspace(0, len(by_rank) - 1, number)}) if len(by_rank) else []

    def report(row: int) -> dict[str, str]:
        if not show_text or embeddings.texts is None:
            return {"excerpt": f"Report of study {embeddings.study_ids[row]}", "rest": ""}
        text = embeddings.texts[row].strip()
        if len(text) <= EXCERPT * 1.2:
            return {"excerpt": text, "rest": ""}
        cut = word_end(text, EXCERPT)
        return {"excerpt": text[:cut], "rest": text[cut:]}

    cases = []
    for query in by_rank[places]:
        row = int(direction.query_rows[query])
        similarity = (embeddings.text[direction.candidate_rows] @ embeddings.image[row]).numpy()
        nearest = np.argsort(-similarity, kind="stable")[:GALLERY_REPORTS]
        cases.append(
            {
                "study": embeddings.study_ids[row],
                "picture": picture(pictures[row]),
                "findings": _present(embeddings, row, names),
                "rank": int(direction.ranks[query]),
                "candidates": len(direction.candidate_rows),
                "own": report(row),
                "nearest": [
                    {
                        **report(int(direction.candidate_rows[place])),
                        "right": bool(direction.candidate_groups[place] == direction.query_groups[query]),
                        "similarity": f"{similarity[place]:.2f}",
                    }
                    for place in nearest
                ],
            }
        )
    return cases


def matrix_order(embeddings: Embeddings, names: Sequence[str], number: int) -> tuple[list[int], list[str]]:
    """Rows for the similarity matrix, at most ``number``, ordered by group, and the group of each.

    A study's group is the rarest finding present in it, so that no frequent finding swallows the others.
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


def _matrix(embeddings: Embeddings | None, names: Sequence[str]) -> dict[str, Any] | None:
    if embeddings is None:
        return None
    rows, groups = matrix_order(embeddings, names, MATRIX_STUDIES)
    if not rows:
        return None
    similarity = (embeddings.image[rows] @ embeddings.text[rows].T).numpy()
    return {"svg": similarity_matrix(similarity, groups), "studies": len(rows), "grouped": len(set(groups)) > 1}


def _present(embeddings: Embeddings, row: int, names: Sequence[str]) -> list[str]:
    if embeddings.labels is None or len(names) != embeddings.labels.shape[1]:
        return []
    return [name for name, state in zip(names, embeddings.labels[row].tolist(), strict=True) if state == 1]


def _words(notes: Mapping[str, Any] | None) -> dict[str, str]:
    words = {}
    for name, value in (notes or {}).items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        elif isinstance(value, float):
            value = f"{value:.4g}"
        words[str(name)] = str(value)
    return words


def _yaml(content: Mapping[str, Any] | None) -> str:
    import yaml

    if not content:
        return ""
    try:
        return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100).strip()
    except yaml.YAMLError:
        # Objects that YAML has no word for are written as their text.
        return "\n".join(f"{key}: {value}" for key, value in content.items())
