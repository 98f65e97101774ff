"""The report's tables of the protocols that are one row a thing: single label, linear probe, segmentation and so on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medvl.evaluation.protocols.grounding import MEASURES, TITLES, GroundingResult
from medvl.evaluation.protocols.label_retrieval import LabelRetrievalResult
from medvl.evaluation.protocols.linear_probe import LinearProbeResult
from medvl.evaluation.protocols.segmentation import SegmentationResult
from medvl.evaluation.protocols.single_label import SingleLabelResult
from medvl.evaluation.results import Evaluation
from medvl.evaluation.statistics.bootstrap import Estimate

Cell = tuple[str, str]
"""A value and its interval, which stands below it."""


@dataclass(frozen=True)
class ReportRow:
    """A row: its name, its cells, and a remark that stands below the name."""

    name: str
    cells: list[Cell]
    remark: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table with what must be said of it."""

    anchor: str
    title: str
    lead: str
    head: list[str]
    rows: list[ReportRow] = field(default_factory=list)
    last: ReportRow | None = None
    note: str = ""


def report_tables(evaluation: Evaluation) -> list[ReportTable]:
    """The tables of what was run, in the order of the page."""
    other = evaluation.untrained or Evaluation()
    tables = []
    if evaluation.single_label is not None:
        tables.append(single_label_table(evaluation.single_label, other.single_label))
    if evaluation.label_retrieval is not None:
        tables.append(label_retrieval_table(evaluation.label_retrieval, other.label_retrieval))
    if evaluation.linear_probe is not None:
        tables.append(probe_table(evaluation.linear_probe, other.linear_probe))
    if evaluation.segmentation is not None:
        tables.append(segmentation_table(evaluation.segmentation, other.segmentation))
    if evaluation.grounding is not None:
        tables.append(grounding_table(evaluation.grounding, other.grounding))
    return tables


def single_label_table(result: SingleLabelResult, untrained: SingleLabelResult | None) -> ReportTable:
    """F1 of each class, and how often the studies of a class were called which one."""
    results = [result] if untrained is None else [result, untrained]
    rows = [
        ReportRow(
            f"{name} ({counts.sum()})",
            [*(split_estimate(part.class_f1[name]) for part in results), *((str(count), "") for count in counts)],
        )
        for name, counts in zip(result.classes, result.confusion, strict=True)
    ]
    means = [split_estimate(part.values["macro_f1"]) for part in results]
    accuracy = f"Accuracy {result.values['accuracy']}, chance {result.chance:.3f}"
    if untrained is not None:
        accuracy += f", untrained {untrained.values['accuracy']}"
    return ReportTable(
        "single-label",
        "Single-label zero-shot",
        "Which one of the classes does an image show? Over images that show one of them alone; behind each class the number "
        "of its images, and in its row what they were called.",
        ["Class", "F1", *(["Untrained F1"] if untrained is not None else []), *(f"Called {c}" for c in result.classes)],
        rows,
        ReportRow("Mean", [*means, *[("", "")] * len(result.classes)]),
        f"{accuracy}.",
    )


def label_retrieval_table(result: LabelRetrievalResult, untrained: LabelRetrievalResult | None) -> ReportTable:
    """Precision at each depth for image and text queries."""
    titles = {"image_to_image": "Image queries", "text_to_image": "Text queries"}
    rows = []
    for kind, part in result.queries.items():
        for name, estimate in part.values.items():
            cells = [split_estimate(estimate), (f"{result.chance[kind]:.3f}", "")]
            if untrained is not None:
                cells.append(split_estimate(untrained.queries[kind].values[name]))
            rows.append(ReportRow(f"{titles.get(kind, kind)}, {name.replace('precision_at_', 'P@')}", cells))
    return ReportTable(
        "label-match",
        "Retrieval by finding",
        "The share of the nearest images that show the query's finding, among images that show one finding each: "
        + ", ".join(result.classes)
        + ".",
        ["Query", "Precision", "Chance", *(["Untrained"] if untrained is not None else [])],
        rows,
    )


def probe_table(result: LinearProbeResult, untrained: LinearProbeResult | None) -> ReportTable:
    """Macro figures for each share of the labels."""
    rows = []
    for fraction, part in result.fractions.items():
        cells = [(f"{part.train_studies:.0f}", ""), *(split_estimate(part.macro[name]) for name in ("auroc", "auprc"))]
        if untrained is not None:
            cells.append(split_estimate(untrained.fractions[fraction].macro["auroc"]))
        rows.append(ReportRow(f"{100 * fraction:g} % of the labels", cells))
    return ReportTable(
        "linear-probe",
        "Linear probe",
        "A linear classifier of each finding on the frozen image embeddings, learned from shares of the training "
        "patients; means over findings and seeds.",
        ["Labels", "Studies", "AUROC", "AUPRC", *(["Untrained AUROC"] if untrained is not None else [])],
        rows,
    )


def segmentation_table(result: SegmentationResult, untrained: SegmentationResult | None) -> ReportTable:
    """Dice for each structure and number of labelled cases; empty masks apart."""
    rows = []
    for name, by_shots in result.structures.items():
        for shots, structure in by_shots.items():
            cells = [split_estimate(structure.dice), split_estimate(structure.prior)]
            if untrained is not None:
                cells.append(split_estimate(untrained.structures[name][shots].dice))
            cells += [(str(result.positives[name]), ""), split_estimate(structure.empty_clear)]
            rows.append(ReportRow(f"{name}, {shots} labelled", cells))
    empties = ", ".join(f"{name} {number}" for name, number in result.empties.items())
    return ReportTable(
        "segmentation",
        "Few-shot segmentation",
        "A light decoder on the frozen encoder's feature maps, learned from few labelled cases. “Mean mask” is the mean of "
        "the labelled masks, which looks at no image.",
        [
            "Structure",
            "Dice",
            "Mean mask",
            *(["Untrained"] if untrained is not None else []),
            "Cases",
            "Empty left empty",
        ],
        rows,
        note=f"Dice is over cases that have the structure; cases without it stand apart in the last column ({empties}).",
    )


def grounding_table(result: GroundingResult, untrained: GroundingResult | None) -> ReportTable:
    """CNR, mIoU and pointing game for each finding, beside chance and an untrained model."""
    rows = []
    for name, finding in result.findings.items():
        cells = [split_estimate(getattr(finding, key)) for key in MEASURES] + _others(untrained, name)
        share = "" if not finding.cases else f", {100 * finding.area:.1f} % of the picture"
        rows.append(ReportRow(name, cells, f"{finding.cases} cases{share}"))
    last = [split_estimate(result.macro[key]) for key in MEASURES] + _others(untrained, None)
    return ReportTable(
        "grounding",
        "Phrase grounding",
        "Does the heat map of a finding's sentences lie on the finding? CNR is the contrast between region and rest (0 by "
        "chance, negative where the map avoids it); mIoU the overlap over the thresholds "
        + ", ".join(f"{t:g}" for t in result.settings["thresholds"])
        + " of the cosine; the pointing game the share of maps whose highest patch lies inside.",
        [
            "Finding",
            *(TITLES[key] for key in MEASURES),
            *(["Untrained CNR", "Untrained pointing"] if untrained is not None else []),
        ],
        rows,
        ReportRow("Mean", last, f"chance {_number(result.chance['pointing'])}"),
        "The region's share of the picture is what chance gives for the pointing game, and for mIoU by marking everything.",
    )


def split_estimate(estimate: Estimate, spec: str = ".3f") -> Cell:
    """Value and interval as two texts, so that they can stand on two lines."""
    value, _, rest = estimate.format(spec).partition(" ")
    ends = rest.strip("[]")
    return value, ends.replace(", ", " to " if "-" in ends else "–")


def _others(untrained: GroundingResult | None, name: str | None) -> list[Cell]:
    if untrained is None:
        return []
    part: Any = untrained.macro if name is None else vars(untrained.findings[name])
    return [split_estimate(part[key]) for key in ("cnr", "pointing")]


def _number(value: float) -> str:
    return str(Estimate(value))
