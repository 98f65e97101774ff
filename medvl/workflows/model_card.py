"""The card of a trained model: the README.md of its folder in Hugging Face's layout, written from the run's own records."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medvl.networks.nets.pretrained import CONFIG as NETWORK
from medvl.networks.nets.pretrained import WEIGHTS as TENSORS
from medvl.utils.io import file_sha256, write_text
from medvl.utils.yaml_text import load_yaml
from medvl.workflows.evaluation_files import EVALUATED_ON, EVALUATION
from medvl.workflows.model_card_facts import evaluation_facts, is_number, key_figures, run_facts
from medvl.workflows.run_records import MODEL, read_record

logger = logging.getLogger(__name__)

CARD = "README.md"
START, END = "<!-- medvl: evaluation -->", "<!-- medvl: end of evaluation -->"
"""What stands between these two lines of a card is written again by every evaluation; the rest stays."""

FRONT = {
    "library_name": "medvl",
    "pipeline_tag": "zero-shot-image-classification",
    "tags": ["medical", "vision-language", "image-text", "medvl"],
}
TASKS = {
    "zero_shot": "zero-shot-image-classification",
    "label_agreement": "zero-shot-image-classification",
    "single_label": "zero-shot-image-classification",
    "retrieval": "image-feature-extraction",
    "label_retrieval": "image-feature-extraction",
    "knn": "image-classification",
    "linear_probe": "image-classification",
    "fine_tune": "image-classification",
    "segmentation": "image-segmentation",
}
"""The Hub's name of what a protocol measures; "other" where it has none."""

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


def write_model_card(run: str | Path, license: str | None = None, model_folder: str | Path | None = None) -> Path:
    """Write ``model/README.md`` of a run anew: data, figures with intervals, intended use, limits and how to load it.

    All of it comes from the records of the run and from its ``evaluation.json``, if that is of these weights. No text of a
    report and no id is in it.

    Args:
        run: the run's folder.
        license: of the model, by its name in the Hugging Face Hub, such as "apache-2.0"; None keeps that of the earlier card.
        model_folder: the folder of the model; ``model`` in that of the run by default.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If a record is damaged.
    """
    run = Path(run)
    folder = run / MODEL if model_folder is None else Path(model_folder)
    if not (folder / NETWORK).is_file():
        raise FileNotFoundError(f"{folder} holds no trained model.")
    path = folder / CARD
    license = license or read_front_matter(path).get("license")
    evaluation = read_evaluation(run, folder)
    name = run.resolve().name
    front = {**({"license": license} if license else {}), **FRONT, **model_index(name, evaluation)}
    facts = {"name": name, **run_facts(run, folder)}
    parts = [
        _section("head", facts),
        _evaluation_part(evaluation),
        _section("rest", facts),
    ]
    write_text(path, _front_text(front) + "\n" + "\n\n".join(parts) + "\n", follow_links=False)
    return path


def update_model_card(run: str | Path) -> bool:
    """Write the figures of a run's evaluation into its model's card; what people wrote around them stays.

    Returns:
        Whether the card has a place for them.
    """
    run = Path(run)
    path = run / MODEL / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    front = read_front_matter(path)
    if not start or not end or not front:
        logger.info(
            "%s has no place for the figures of the evaluation; medvl.workflows.write_model_card adds it.", path
        )
        return False
    evaluation = read_evaluation(run, run / MODEL)
    front.pop("model-index", None)
    front |= model_index(run.resolve().name, evaluation)
    body = _FRONT_MATTER.sub("", before, count=1)
    write_text(path, f"{_front_text(front)}{body}{_evaluation_part(evaluation)}{after}", follow_links=False)
    return True


def read_evaluation(run: Path, model_folder: Path) -> dict[str, Any]:
    """The content of a run's ``evaluation.json``; empty if there is none, or it is of other weights than the folder's."""
    path = run / EVALUATION
    content = read_record(path) if path.is_file() else {}
    evaluated = content.get(EVALUATED_ON)
    known = evaluated.get("model_sha256") if isinstance(evaluated, dict) else None
    return content if known is not None and known == file_sha256(model_folder / TENSORS) else {}


def model_index(name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The key figures with their intervals as the Hub reads them (``model-index``); empty without any."""
    results = []
    for key, protocol in evaluation.items():
        metrics = []
        for figure in key_figures(protocol):
            if is_number(figure.get("value")):
                ends = figure.get("interval")
                interval = {"args": {"interval": [round(end, 4) for end in ends]}} if ends else {}
                slug = re.sub(r"[^a-z0-9]+", "_", figure["name"].lower()).strip("_")
                metrics.append({"type": slug, "name": figure["name"], "value": round(figure["value"], 4), **interval})
        if metrics:
            data = str(evaluation[EVALUATED_ON]["data"])
            task = {"type": TASKS.get(key, "other"), "name": key.replace("_", " ")}
            results.append({"task": task, "dataset": {"type": data, "name": data}, "metrics": metrics})
    return {"model-index": [{"name": name, "results": results}]} if results else {}


def read_front_matter(path: Path) -> dict[str, Any]:
    """The YAML at the head of a card; empty where there is none that can be read."""
    found = _FRONT_MATTER.match(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    try:
        content = load_yaml(found[1]) if found else None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _evaluation_part(evaluation: Mapping[str, Any]) -> str:
    """The figures between the two lines by which they are found again."""
    return f"{START}\n\n{_section('evaluation', evaluation_facts(evaluation))}\n\n{END}"


def _front_text(front: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n"


def _section(name: str, facts: Mapping[str, Any]) -> str:
    """A part of the card with these facts."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medvl.workflows"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["words"] = plain_words
    text = environment.get_template(f"model_card_{name}.md.j2").render(**facts, table=markdown_table)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def plain_words(text: Any) -> str:
    """A name in one line of Markdown: no HTML begins in it, and no heading or list after the end of a line.

    Example:
        >>> plain_words("Edema\\n# <b>")
        'Edema # &lt;b>'
    """
    return " ".join(str(text).split()).replace("<", "&lt;")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown_table(["Finding", "Cases"], [("a|b", 3)]))
        | Finding | Cases |
        | --- | --- |
        | a\\|b | 3 |
    """
    lines = [head, ["---"] * len(head), *rows]
    cells = ([plain_words(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
