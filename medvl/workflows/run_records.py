"""The records of a run: their file names, and what they say about how the run was made."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medvl.data import Manifest, parse_source, table_path
from medvl.data.shards import PackedLocation
from medvl.data.tables.join import parse_join
from medvl.handlers.skipped_log import read_skipped_lines
from medvl.transforms.packed_image import INDEX
from medvl.utils.checksums import verify_file
from medvl.utils.distributed import get_world_size
from medvl.utils.errors import StudyError, plain_reason
from medvl.utils.io import file_sha256
from medvl.utils.limits import read_small_text
from medvl.utils.yaml_text import load_yaml
from medvl.workflows.literals import literal_text

CONFIG, ENVIRONMENT, METRICS, SKIPPED = "config.yaml", "environment.json", "metrics.jsonl", "skipped.jsonl"
MODEL, CHECKPOINTS, PROMPTS, TENSORBOARD = "model", "checkpoints", "prompts.json", "tensorboard"
WEIGHTS, TEXT_LABELS = "weights.json", "text_labels.npz"

PACKAGES = (
    "medvl",
    "torch",
    "monai",
    "pytorch-ignite",
    "transformers",
    "tokenizers",
    "numpy",
    "pillow",
    "pydicom",
    "nibabel",
)

OF_THE_MACHINE = ("device", "cpu", "cuda", "processes")
"""Keys of ``environment.json`` that, with the versions, the last bits of the weights depend on."""


def describe_environment(
    config: Mapping[str, Any], folder: Path, manifest: Manifest, device: torch.device | str, threads: int
) -> dict[str, Any]:
    """The content of ``environment.json``.

    Args:
        config: the run's configuration.
        folder: the run's folder.
        manifest: the studies.
        device: that of the training.
        threads: number of PyTorch's threads in the training.
    """
    return {
        "seed": config["seed"],
        "data": manifest.name,
        "tables_sha256": tables_sha256(literal_text(config), folder),
        "data_fingerprint": manifest.fingerprint(),
        "data_summary": manifest.summary(),
        "studies": {split: len(manifest.subset(split, allow_empty=True)) for split in ("train", "val", "test")},
        "label_policy": (config.get("prepare_batch") or {}).get("label_policy"),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": get_world_size(),
        "threads": threads,
        "device": torch.device(device).type,
        "cpu": _cpu(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
    }


def _cpu() -> str:
    """The processor and the instructions that PyTorch's kernels use on it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the weights depend on and has changed between two environments: (before, now) by name.

    Example:
        >>> find_differences({"versions": {"torch": "2.8"}, "cpu": "a"}, {"versions": {"torch": "2.9"}, "cpu": "a"})
        {'torch': ['2.8', '2.9']}
    """
    old = {**before.get("versions", {}), **{key: before.get(key) for key in OF_THE_MACHINE}}
    new = {**now.get("versions", {}), **{key: now.get(key) for key in OF_THE_MACHINE}}
    return {key: [old.get(key), new[key]] for key in new if old.get(key) != new[key]}


def read_record(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file of a run, which is a dictionary.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, or is not as it was saved (:func:`~medvl.utils.checksums.verify_file`).
    """
    verify_file(path)
    try:
        content = (load_yaml if path.suffix == ".yaml" else json.loads)(read_small_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no settings.")
    return content


def read_skipped(path: str | Path) -> list[StudyError]:
    """The studies that the run in this folder skipped for an error.

    Raises:
        ValueError: If a line of the file is damaged, with its number, or the file is not as it was written.
    """
    return [StudyError(**line) for line in read_skipped_lines(Path(path) / SKIPPED)]


def tables_sha256(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Hashes of the tables that a run reads (:func:`input_tables`)."""
    return [file_sha256(table) for table in input_tables(config, folder)]


def input_tables(config: Mapping[str, Any], folder: Path) -> list[Path]:
    """The tables of ``data``, ``sources`` and what is joined; a public set has none.

    Args:
        config: the configuration of a run, or these keys of it.
        folder: the run's folder.
    """
    locations = [config.get("data"), *(parse_source(source)[1] for source in config.get("sources") or [])]
    tables = [table_path(location, folder) for location in locations if location is not None]
    joins = (config.get("columns") or {}).get("join") or ()
    tables += [Path(parse_join(join).path) for join in ([joins] if isinstance(joins, str) else joins)]
    packed = [place.folder for name in locations if name is not None and (place := PackedLocation.parse(name))]
    tables += [Path(folder) / INDEX for folder in packed]  # none, where it is on a web server
    return [table for table in tables if table.is_file()]
