"""Files of a saved model: configuration, weights and tokenizer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from medvl.networks.encoders.hugging_face_files import check_model_values
from medvl.utils.checksums import verify_checksums
from medvl.utils.disk import name_full_disk
from medvl.utils.errors import plain_reason
from medvl.utils.io import write_text

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MODEL_CARD = """---
{{ card_data }}
---

A dual encoder of medical images and reports, made with [medvl](https://github.com/medvl/medvl). It is for research, not for
diagnosis.

```python
from medvl.networks import DualEncoder

model = DualEncoder.from_pretrained("FOLDER")  # this folder, or its name in the Hugging Face Hub
```

This card was written without the records of a training. For a run of `medvl train`, `medvl card RUN` writes the whole card to
`RUN/model/README.md`: data, training, evaluation with intervals, intended use and limits. `hf upload NAME RUN/model` shares the
model with it.
"""
"""What ``save_pretrained`` and ``push_to_hub`` write, which know nothing of the training."""


def save_model_folder(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Write ``config.json`` and ``model.safetensors``; return these names.

    Raises:
        DiskFullError: If there is no space left.
        OSError: If a file cannot be written for another reason.
    """
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    path = folder / WEIGHTS
    with name_full_disk(path):
        try:
            save_model(model, str(path))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    # safetensors lets only the owner read the file; who may read the configuration may read the weights.
    path.chmod((folder / CONFIG).stat().st_mode & 0o777)
    return [CONFIG, WEIGHTS]


def resolve_model_folder(model: str | Path, **hub_options: Any) -> Path:
    """The local folder of a saved model: ``model`` itself, or a snapshot of that repository of the Hugging Face Hub.

    Args:
        model: a folder, or the name of a repository, NAME or OWNER/NAME.
        **hub_options: options of ``huggingface_hub.snapshot_download``.

    Raises:
        FileNotFoundError: If ``model`` can only be a path and is not a folder, or the configuration or the weights are
            missing.
        ValueError: If a file is not as it was saved (:func:`~medvl.utils.checksums.verify_checksums`).
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
    verify_checksums(folder)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a saved model.

    Raises:
        ValueError: If it is damaged, or would load something from elsewhere.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("text_processor", {}), dict):
        raise ValueError(f"{path} is damaged: it holds no settings of a model.")
    check_model_values(config, str(path))
    return config


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the weights of a saved model; missing and unexpected weights, and weights of another shape, are errors.

    Raises:
        ValueError: If the weights are not those of the model, or the file is damaged.
    """
    path = folder / WEIGHTS
    try:
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0] if lines else "")[:300]
        raise ValueError(f"the weights in {path} cannot be loaded: {reason.removesuffix('.')}.") from error
