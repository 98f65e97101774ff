"""Weights from files, without running anything that a file might hold."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""What a folder of weights may hold, the first found is read."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, or of the first known file in a folder, on the CPU.

    Args:
        path: a folder, a ``.safetensors`` file, an ``.index.json`` of several files, or a file that ``torch.save`` wrote,
            which is read with ``weights_only=True``. A state dict under ``state_dict``, as training checkpoints have it, and
            the prefix ``module.`` are unwrapped.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where a file holds anything but weights.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{path} holds no weights: looked for {', '.join(NAMES)}.")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file or folder of weights, received {path}, which does not exist.")
    if path.name.endswith(".index.json"):
        parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return {name: value for part in parts for name, value in read_weights(path.parent / Path(part).name).items()}
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than weights, and is not read: it could run code.") from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} must hold a state dict of tensors, received a {type(weights).__name__}.")
    return {name.removeprefix("module."): value for name, value in weights.items()}
