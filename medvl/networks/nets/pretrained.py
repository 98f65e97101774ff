"""Files of a saved model: configuration, weights and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors.torch import load_model, save_model
from torch import nn

from medvl.utils.io import write_text

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MODEL_CARD = """---
{{ card_data }}
---

An image-text dual encoder made with medvl: `medvl.networks.DualEncoder.from_pretrained(FOLDER)` reads it.
"""


def save_model_folder(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_model(model, str(folder / WEIGHTS))


def resolve_model_folder(model: str | Path, **hub_options: Any) -> Path:
    """The local folder of a saved model: ``model`` itself, or a snapshot of that repository of the Hugging Face Hub.

    Args:
        model: a folder, or the name of a repository, NAME or OWNER/NAME.
        **hub_options: options of ``huggingface_hub.snapshot_download``.

    Raises:
        FileNotFoundError: If ``model`` can only be a path and is not a folder, or the configuration or the weights are
            missing.
    """
    folder = Path(model)
    if not folder.is_dir():
        # Names in the Hub have at most one slash: do not ask the network for what must be a path.
        is_path = (
            isinstance(model, Path) or folder.is_absolute() or len(folder.parts) > 2 or str(model)[:1] in (".", "~")
        )
        if is_path:
            raise FileNotFoundError(
                f"{model} is not a folder; expected one that save_pretrained wrote, or a name in the Hugging Face Hub."
            )
        folder = Path(snapshot_download(str(model), **hub_options))
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a saved model: {' and '.join(missing)} not found in it.")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a saved model."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return config


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the weights of a saved model; missing and unexpected weights are errors."""
    load_model(model, str(folder / WEIGHTS), strict=True)
