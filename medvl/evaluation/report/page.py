"""The report of an evaluation: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvl import __version__
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.report.downloads import content_policy, csv_address
from medvl.evaluation.report.examples import (
    ReportTexts,
    clearest_cases,
    failure_cases,
    gallery_cases,
    report_queries,
)
from medvl.evaluation.report.pictures import (
    calibration_plots,
    grids,
    grounding_cases,
    roc_plots,
    segmentation_cases,
    sentence_cases,
    similarity_figure,
)
from medvl.evaluation.report.plots import loss_curve
from medvl.evaluation.report.sentence_maps import SentenceMaps
from medvl.evaluation.results import Evaluation
from medvl.evaluation.tables import Table
from medvl.utils.io import write_text


@dataclass(frozen=True)
class KeyFigureCard:
    """A key figure as the report shows it: section, name, value, level and ends of its interval, and what to compare with."""

    anchor: str
    name: str
    value: str
    level: str
    interval: str
    note: str


@dataclass(frozen=True)
class TableSection:
    """The tables of one protocol under one heading, with what their figures mean."""

    anchor: str
    title: str
    description: str
    tables: list[Table]
    explanations: dict[str, str]


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation,
    embeddings: Embeddings | None = None,
    images: Mapping[int, np.ndarray] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
    configuration: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    show_text: bool = True,
    num_examples: int = 6,
    sentences: Sequence[SentenceMaps] = (),
) -> Path:
    """Write the report of an evaluation as one self-contained HTML file.

    It holds the key figures, facts of the run and the tables of every protocol, with intervals, chance, the untrained model
    and what each figure means; then pictures: heat maps of findings and sentences, segmented cases, ROC and calibration
    curves, the similarity matrix, the best and the worst cases, nearest reports and images; last the prompts and the
    configuration. Sections of what is not given are left out. Tables can be sorted and saved as CSV.

    All text is escaped, nothing is loaded from elsewhere, and the page's content security policy lets no script run but the
    one that sorts. Without it, as in a preview of mail, the page is complete.

    Args:
        path: the file. Its folder is made, and the file is written whole or not at all.
        title: heading of the report.
        evaluation: the results, with those of an untrained model if there are any.
        embeddings: of the test studies, for the similarity matrix and the gallery.
        images: pictures (H, W), uint8, by row of ``embeddings``; None takes ``embeddings.thumbnails``.
        history: lines of ``metrics.jsonl``.
        facts: of the run, in short: data, rows used and left out, seed, time.
        configuration: the resolved configuration.
        environment: versions and machine.
        names: the K findings of the labels' columns, to group the similarity matrix.
        show_text: False keeps every report's text out of the file; the gallery then names the studies.
        num_examples: number of test images shown with their nearest reports; 0 for no examples.
        sentences: heat maps of reports' sentences (:func:`medvl.evaluation.sentence_maps`).

    Returns:
        The path.

    Raises:
        ValueError: If a picture is not a matrix of uint8.
    """
    zero_shot, retrieval, grounded = (evaluation.get(key) for key in ("zero_shot", "retrieval", "grounding"))
    reports = None if embeddings is None else ReportTexts(embeddings, show_text)
    templates = page_templates()
    script = templates.get_template("sort.js.j2").render()
    untrained_zero_shot = None if evaluation.untrained is None else evaluation.untrained.get("zero_shot")
    parts = {
        "title": title,
        "version": __version__,
        "shows_text": show_text,
        "key_figures": key_figure_cards(evaluation),
        "facts": _texts(facts),
        "notes": [note for result in evaluation.values() for note in result.notes()],
        "reading": reading_note(evaluation),
        "csv": evaluation.to_csv(),
        "script": script,
        "policy": content_policy(script),
        "loss": loss_curve(history),
        "sections": table_sections(evaluation),
        "zero_shot": zero_shot,
        "has_untrained": evaluation.untrained is not None,
        "rocs": roc_plots(zero_shot, untrained_zero_shot),
        "calibration": calibration_plots(zero_shot),
        "grounded": grounding_cases(grounded),
        "heat_map_grid": grids(example.heat for example in getattr(grounded, "examples", ())),
        "sentences": sentence_cases(sentences, show_text),
        "sentence_grid": grids(heat for case in sentences for heat in case.maps),
        "segmented": segmentation_cases(evaluation.get("segmentation")),
        "matrix": similarity_figure(embeddings, names),
        "clearest": clearest_cases(zero_shot, embeddings, images) if num_examples else [],
        "worst": failure_cases(zero_shot, embeddings, images) if num_examples else [],
        "gallery": gallery_cases(retrieval, embeddings, images, names, reports, num_examples),
        "queries": report_queries(retrieval, embeddings, images, reports) if num_examples else [],
        "configuration": _yaml(configuration),
        "environment": _yaml(environment),
    }
    text = templates.get_template("report.html.j2").render(**parts, contents=_contents(parts))
    write_text(path, text, follow_links=False)
    return Path(path)


def page_templates() -> Any:
    """The jinja2 environment of the pages, which escapes every text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medvl.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csv_address"] = csv_address
    return environment


CONTENTS = {
    "run": ("Run", ("facts", "loss", "notes")),
    "tables": ("", ()),
    "heat-maps": ("Heat maps", ("grounded",)),
    "sentences": ("Sentences", ("sentences",)),
    "segmented": ("Segmented cases", ("segmented",)),
    "roc": ("ROC curves", ("rocs",)),
    "calibration": ("Calibration", ("calibration",)),
    "similarity": ("Similarity", ("matrix",)),
    "cases": ("Best and worst cases", ("clearest", "worst")),
    "gallery": ("Nearest reports", ("gallery",)),
    "images": ("Nearest images", ("queries",)),
    "prompts": ("Prompts", ("zero_shot",)),
    "configuration": ("Configuration", ("configuration", "environment")),
}
"""Anchor of every section, its name in the list of contents, and the parts of which one must be given."""


def _contents(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed: list[tuple[str, str]] = []
    for anchor, (name, needs) in CONTENTS.items():
        if anchor == "tables":
            listed += [(section.anchor, section.title) for section in parts["sections"]]
        elif any(parts[need] for need in needs):
            listed.append((anchor, name))
    return listed


def table_sections(evaluation: Evaluation) -> list[TableSection]:
    """The tables of every protocol, with the numbers of the untrained model beside them; each explanation once."""
    sections = []
    said: set[str] = set()
    for key, result, untrained in evaluation.pairs():
        tables = result.tables_beside(untrained)
        if tables:
            lines = {name: line for name, line in result.explanations().items() if line not in said}
            said.update(lines.values())
            sections.append(TableSection(_anchor(key), tables[0].title, tables[0].description, tables, lines))
    return sections


def _anchor(key: str) -> str:
    return key.replace("_", "-")


def key_figure_cards(evaluation: Evaluation) -> list[KeyFigureCard]:
    """The key figures of every protocol."""
    cards = []
    for key, result, untrained in evaluation.pairs():
        level = f"{100 * result.settings.get('bootstrap', {}).get('confidence_level', 0):g} % interval"
        for figure in result.key_figures_beside(untrained):
            cell = figure.cell
            notes = [cell.note] if cell.note else []
            if cell.chance is not None:
                notes.append(f"chance {cell.chance:{cell.spec}}")
            if cell.untrained is not None:
                notes.append(f"untrained {cell.untrained.value_text}")
            shown = (cell.value_text, level, cell.interval_text)
            cards.append(KeyFigureCard(_anchor(key), figure.name, *shown, ", ".join(notes)))
    return cards


def reading_note(evaluation: Evaluation) -> str:
    """How figures are to be read: the intervals, if all protocols computed them alike, chance and the untrained model."""
    if not evaluation:
        return ""
    notes = []
    configs = {tuple(result.settings.get("bootstrap", {}).items()) for result in evaluation.values()}
    if len(configs) == 1 and configs != {()}:
        config = dict(configs.pop())
        notes.append(
            f"An interval says how far a figure depends on which patients were tested: it holds the middle "
            f"{100 * config['confidence_level']:g} % of {config['n_resamples']} bootstrap resamples of the patients."
        )
    notes.append("Chance is what guessing reaches.")
    if evaluation.untrained is not None:
        notes.append("Untrained is the same network with random weights: what it reaches was not learned.")
    return " ".join(notes)


def _texts(facts: Mapping[str, Any] | None) -> dict[str, str]:
    texts = {}
    for name, value in (facts or {}).items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        elif isinstance(value, float):
            value = f"{value:.4g}"
        texts[str(name)] = str(value)
    return texts


def _yaml(content: Mapping[str, Any] | None) -> str:
    import yaml

    if not content:
        return ""
    try:
        return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100).strip()
    except yaml.YAMLError:
        # Objects that YAML cannot represent are written as text.
        return "\n".join(f"{key}: {value}" for key, value in content.items())
