"""What the card of a trained model says, from the records of its run and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.evaluation.grounding_examples import side_text
from medvl.handlers import read_metrics
from medvl.networks.nets.pretrained import CONFIG as NETWORK
from medvl.networks.nets.pretrained import WEIGHTS as TENSORS
from medvl.workflows.evaluation_files import EVALUATED_ON, KEY_FIGURES, UNTRAINED
from medvl.workflows.literals import literal_text
from medvl.workflows.model_input import PREPROCESSING, ModelInput
from medvl.workflows.run_records import CONFIG, ENVIRONMENT, METRICS, PROMPTS, WEIGHTS, read_record

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
SETTINGS = {
    "Epochs": "epochs",
    "Batch size": "batch_size",
    "Learning rate": "learning_rate",
    "Weight decay": "weight_decay",
    "Seed": "seed",
}
VERSIONS = ("medvl", "torch", "monai", "transformers")
NO_THRESHOLD = "a probability of 0.5, as validation has no case to choose one on"


def run_facts(run: Path, folder: Path) -> dict[str, Any]:
    """What the card says of the model, its data and its training, as far as the records tell."""
    config, environment = literal_text(read_if_there(run / CONFIG)), read_if_there(run / ENVIRONMENT)
    network = read_record(folder / NETWORK)
    given = ModelInput.load(folder) if (folder / PREPROCESSING).is_file() else None
    packages = given.packages() if given is not None else []
    trust = f", trusted_packages={packages}" if packages else ""
    counts = environment.get("studies", {}).items()
    return {
        "is_3d": network.get("image_encoder", {}).get("spatial_dims") == 3,
        "has_preprocessing": given is not None and given.image is not None,
        "trust_model": trust,
        "trust_input": trust,
        "data_summary": environment.get("data_summary"),
        "splits": ", ".join(f"{count} {SPLIT_NAMES.get(split, split)}" for split, count in counts),
        "is_synthetic": config.get("data") == "synthetic" and not config.get("sources"),
        "training": training_rows(run, folder, config, environment, network),
        "model_input": None if given is None else given.card().strip(),
        "prompts": list(read_if_there(folder / PROMPTS)),
        "own_tokenizer": (folder / "tokenizer.json").is_file() and config.get("text_encoder") is None,
        "min_word_patients": config.get("min_word_patients") if is_plain(config.get("min_word_patients")) else None,
    }


def training_rows(
    run: Path, folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any], network: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Name and value of each setting of the training that the records have as a plain value."""
    image, text = network.get("image_encoder", {}), network.get("text_encoder", {}).get("model")
    weights, history = read_if_there(folder / WEIGHTS), read_metrics(run / METRICS)
    last = history[-1] if history else {}
    versions = environment.get("versions", {})
    seconds = sum(line.get("seconds", 0) for line in history)
    facts = {
        "Image encoder": image.get("backbone"),
        "Image size in pixels": image.get("image_size"),
        "Text encoder": text.get("model_type") if isinstance(text, Mapping) else text,
        "Width of the vectors": network.get("embed_dim"),
        "Parameters": f"{count_parameters(folder / TENSORS):,}",
        "Loss": ", ".join(loss_names(config)) or None,
        **{title: config.get(key) for title, key in SETTINGS.items()},
        "Weights": weights_text(weights),
        "Training loss at the end": number_text(last.get("loss"), "") or None,
        "Validation loss at the end": number_text(last.get("val_loss"), "") or None,
        "Time": f"{seconds:.0f} s on {environment.get('device', 'an unknown device')}" if history else None,
        "Versions": ", ".join(f"{name} {versions[name]}" for name in VERSIONS if name in versions) or None,
    }
    return [(name, str(value)) for name, value in facts.items() if is_plain(value)]


def evaluation_facts(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of an evaluation: the key figures with intervals, chance and the untrained model, and the findings."""
    figures = [figure for protocol in evaluation.values() for figure in key_figures(protocol)]
    levels = [level for protocol in evaluation.values() if (level := confidence_level(protocol)) is not None]
    head, findings = finding_rows(evaluation)
    on = evaluation.get(EVALUATED_ON, {})
    return {
        "on": {"warnings": [], **on},
        "level": f"{100 * levels[0]:g} %" if levels else "",
        "has_untrained": bool(evaluation.get(UNTRAINED)),
        "figures": [
            (
                f"{figure['name']}, {figure['note']}" if figure.get("note") else figure["name"],
                number_text(figure.get("value")),
                interval_text(figure.get("interval")),
                number_text(figure.get("chance"), ""),
                number_text((figure.get("untrained") or {}).get("value"), ""),
            )
            for figure in figures
        ],
        "findings_head": head,
        "findings": findings,
        "thresholds": threshold_note(evaluation.get("label_agreement") or {}),
        "grid": side_text((evaluation.get("grounding") or {}).get("settings", {}).get("grid") or ()),
    }


def finding_rows(evaluation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the findings: cases, AUROC, and sensitivity and specificity where they were measured."""
    scored = (evaluation.get("zero_shot") or {}).get("findings") or {}
    called = (evaluation.get("label_agreement") or {}).get("findings") or {}
    rates = ("sensitivity", "specificity") if called else ()
    rows = []
    for name, result in scored.items():
        estimates = [result["auroc"], *(called.get(name, {}).get(rate) or {} for rate in rates)]
        cells = [f"{number_text(e.get('value'))} {interval_text(e.get('interval'))}".strip() for e in estimates]
        rows.append([name, str(result["positives"]), str(result["negatives"]), *cells])
    return ["Finding", "Present", "Absent", "AUROC", *(rate.capitalize() for rate in rates)], rows


def threshold_note(agreement: Mapping[str, Any]) -> str:
    """Where the thresholds of sensitivity and specificity come from."""
    findings, without = agreement.get("findings") or {}, agreement.get("without_threshold") or []
    if not findings:
        return ""
    if len(without) == len(findings):
        return f"Threshold of sensitivity and specificity: {NO_THRESHOLD}."
    rest = f"; that of {', '.join(without)} is {NO_THRESHOLD}" if without else ""
    return f"The threshold of sensitivity and specificity is the one that maximizes F1 on the validation split{rest}."


def key_figures(protocol: Any) -> list[dict[str, Any]]:
    """The key figures of a protocol's results in ``evaluation.json``."""
    return list(protocol.get(KEY_FIGURES, ())) if isinstance(protocol, Mapping) else []


def confidence_level(protocol: Any) -> float | None:
    """That of a protocol's intervals, if it is known."""
    settings = protocol.get("settings") if isinstance(protocol, Mapping) else None
    return settings.get("bootstrap", {}).get("confidence_level") if isinstance(settings, Mapping) else None


def loss_names(config: Mapping[str, Any]) -> list[str]:
    """The class of the loss, or those of its terms."""
    loss = config.get("loss")
    if not isinstance(loss, Mapping):
        return []
    terms = loss.get("losses")
    names = []
    for term in terms.values() if isinstance(terms, Mapping) else [loss]:
        part = term[0] if isinstance(term, Sequence) and not isinstance(term, str) and term else term
        if isinstance(part, Mapping) and isinstance(part.get("_target_"), str):
            names.append(part["_target_"].rpartition(".")[2])
    return names


def weights_text(weights: Mapping[str, Any]) -> str | None:
    """Of which epoch the weights are."""
    epoch = weights.get("epoch")
    if epoch is None:
        return None
    return "of the last epoch" if epoch == "last" else f"of epoch {epoch}, the best by {weights.get('chosen_by')}"


def count_parameters(path: Path) -> int:
    """Number of the values of all tensors in a file of safetensors, from its head alone."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def read_if_there(path: Path) -> dict[str, Any]:
    """A record, empty where the file does not exist."""
    return read_record(path) if path.is_file() else {}


def number_text(value: Any, missing: str = "n/a") -> str:
    """A number as a table of figures shows it: three decimals, from 10 on one, a whole number none.

    Example:
        >>> [number_text(value) for value in (0.92927, 0.9, 1.0, 430.5, None)]
        ['0.929', '0.900', '1', '430.5', 'n/a']
    """
    if not is_number(value):
        return missing
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def interval_text(ends: Any) -> str:
    """The ends of an interval in brackets; empty without one."""
    return f"[{number_text(ends[0])}, {number_text(ends[1])}]" if ends else ""


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_plain(value: Any) -> bool:
    """Whether a value of a configuration can be shown as it is: a number, or a text that refers to nothing."""
    return is_number(value) or (isinstance(value, str) and value[:1] not in ("@", "$", "%", ""))
