"""The folder of a saved model: configuration, weights and tokenizer, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors.torch import load_model, save_model
from torch import nn

from medvl.networks.encoders.text import load_tokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MODEL_CARD = """---
{{ card_data }}
---

An image-text dual encoder made with medvl: `medvl.networks.DualEncoder.from_pretrained(FOLDER)` reads it.
"""


def save_folder(folder: Path, model: nn.Module, config: Mapping[str, Any], tokenizer: Any = None) -> None:
    """Writes ``config.json``, ``model.safetensors`` and the tokenizer's files."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_model(model, str(folder / WEIGHTS))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def find_folder(model_id: str, **options: Any) -> Path:
    """The local folder of a model: itself, or the Hub's copy of it.

    Raises:
        FileNotFoundError: where configuration or weights are not in it.
    """
    folder = Path(model_id)
    if not folder.is_dir():
        folder = Path(snapshot_download(model_id, **options))
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no saved model: {' and '.join(missing)} not found in it.")
    return folder


def check_place(place: str | Path) -> None:
    """Tells a folder that is not there before its name is looked up in the Hub, where names are NAME or OWNER/NAME.

    Raises:
        FileNotFoundError: for what can only be a folder, and is none.
    """
    path = Path(place)
    only_folder = isinstance(place, Path) or path.is_absolute() or len(path.parts) > 2 or str(place)[:1] in (".", "~")
    if only_folder and not path.is_dir():
        raise FileNotFoundError(f"{place} is no folder, expected one that save_pretrained wrote, or a name in the Hub.")


def load_weights(model: nn.Module, folder: Path) -> None:
    """Reads every weight of the model from the folder; one too many or too few is an error."""
    load_model(model, str(folder / WEIGHTS), strict=True)


def saved_tokenizer(folder: Path) -> Any:
    """The tokenizer saved in a model's folder, None where there is none."""
    return load_tokenizer(folder) if (folder / "tokenizer_config.json").is_file() else None
