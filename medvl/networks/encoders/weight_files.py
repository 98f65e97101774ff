"""Weights from files, without executing code from them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medvl.utils.checks import error_message
from medvl.utils.errors import plain_reason

NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""Files of weights in a folder; the first that exists is read."""
ENTRIES = ("state_dict", "model_state_dict", "model")
"""Keys of the weights in training checkpoints."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that parallel, compiled and training wrappers add to every name."""
BROKEN = (
    EOFError, KeyError, OSError, RuntimeError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError, TypeError,
    AttributeError, IndexError, OverflowError, MemoryError, AssertionError, zipfile.BadZipFile
)  # fmt: skip
"""Errors from reading a truncated file, or one of another format."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, or of the first known file in a folder, on the CPU.

    Args:
        path: a folder, a ``.safetensors`` file, an ``.index.json`` of several files, or a file of ``torch.save``, which is
            loaded with ``weights_only=True``; objects beside the weights, such as a checkpoint's hyperparameters, are passed
            over, and no code of theirs is run. A state dict under ``state_dict``, ``model_state_dict`` or ``model``, as in
            training checkpoints, or under the one key that has one, is unwrapped; ``module.``, ``_orig_mod.`` or ``model.``
            before every name are removed.

    Weights of half precision become float32, so that what is computed from them is not rounded twice.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a file is damaged, holds more than weights, none, or such as cannot be used by themselves.
    """
    path = Path(path).expanduser()
    weights = _read(path)
    if not weights:
        raise ValueError(f"{path} holds no weights.")
    weights = {name: _as_float32(name, value, path) for name, value in weights.items()}
    while prefix := next((prefix for prefix in PREFIXES if _all_begin(weights, prefix)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _as_float32(name: str, value: Tensor, path: Path) -> Tensor:
    """A weight of half precision as float32, another unchanged; ``ValueError`` if its values are not plain numbers."""
    kind = "sparse" if value.layout != torch.strided else "without values (meta)" if value.is_meta else ""
    kind = kind or ("quantized" if value.is_quantized else "complex" if value.is_complex() else "")
    if value.is_floating_point() and value.dtype.itemsize < 2:
        kind = str(value.dtype).removeprefix("torch.")
    if kind:
        expected = "be a dense tensor of real numbers of at least 16 bits"
        raise ValueError(error_message(f"{name} in {path}", expected, f"one that is {kind}"))
    return value.float() if value.is_floating_point() and value.dtype.itemsize == 2 else value


def _all_begin(weights: dict[str, Tensor], prefix: str) -> bool:
    return bool(weights) and all(name.startswith(prefix) for name in weights)


def _read(path: Path) -> dict[str, Tensor]:
    if os.path.isdir(path):
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{path} holds no weights; expected one of {', '.join(NAMES)}.")
        path = found[0]
    if not os.path.isfile(path):
        raise FileNotFoundError(f"path must be a file or folder of weights, got {path}, which does not exist.")
    try:
        if path.name.endswith(".index.json"):
            parts = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
            return {name: value for part in parts for name, value in _read(path.parent / Path(part).name).items()}
        _check_kind(path)
        # By the content, not by the suffix: files are renamed.
        weights = load_file(path) if _is_safetensors(path) else _load_weights_only(path)
    except BROKEN as error:
        raise ValueError(f"{path} is not a complete file of weights ({plain_reason(error)}).") from error
    return _unwrapped(weights, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in the content of a file, below a known key or the only one that has one."""
    if _holds_weights(content):
        return content
    parts = content if _is_dict(content) else {}
    known = [parts[entry] for entry in ENTRIES if _is_dict(parts.get(entry))]
    other = [part for part in parts.values() if _holds_weights(part) and part]
    if known or len(other) == 1:
        return _unwrapped((known or other)[0], path)
    got = f"a {type(content).__name__}" + (f" with {', '.join(map(str, list(parts)[:5]))}" if parts else "")
    odd = [name for name, value in parts.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if 0 < len(odd) < len(parts):
        got = f"also {odd[0]!r}, of type {type(parts[odd[0]]).__name__}, among {len(parts) - len(odd)} tensors"
    raise ValueError(error_message(str(path), "hold a state dict of tensors", got))


def _is_dict(part: Any) -> bool:
    """Whether this is a dictionary, and not an object in whose place one was made."""
    return isinstance(part, dict) and not isinstance(part, Counter)


def _holds_weights(part: Any) -> bool:
    return _is_dict(part) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in part.items())


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: with the length of a header in JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and start[:2] not in (b"PK", b"\x80\x02"))


def _check_kind(path: Path) -> None:
    """Raise ``ValueError``, with what to do, for a file of another kind: what is left where a download failed, an archive, a
    TorchScript program or a file of another library.
    """
    with path.open("rb") as file:
        start = file.read(265)
    if start[8:9] == b"{":  # safetensors, whose first bytes, the length of the header, may be those of any other kind
        return
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, not the weights; git lfs pull fetches them.")
    if start.lstrip().startswith(b"<"):
        raise ValueError(f"{path} is a web page, not the weights; fetch the file again.")
    if start.startswith(b"\x89HDF"):
        raise ValueError(f"{path} is an HDF5 file, as Keras writes; only weights of PyTorch are read.")
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        raise ValueError(f"{path} is an archive, not the weights: unpack it first.")
    if zipfile.is_zipfile(path):
        _check_archive(path)


def _check_archive(path: Path) -> None:
    """Raise ``ValueError`` for a ZIP archive that ``torch.save`` has not written, or whose list of files is damaged."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):  # as OpenAI's CLIP is published
        raise ValueError(
            f"{path} is a TorchScript program, not a state dict: if you trust its source, "
            "torch.save(torch.jit.load(PATH, 'cpu').state_dict(), NEW_PATH) writes the weights."
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError(f"{path} is an archive with {', '.join(names[:3])}, not the weights: unpack it first.")


class _Placeholder:
    """Makes an empty dictionary in place of an object of another package, such as a checkpoint's hyperparameters."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return Counter()  # a kind of dictionary that torch's restricted reader fills


class _ArrayPlaceholder:
    """In place of an array or a number of numpy, whose state is no dictionary."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _ArrayPlaceholder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


def _load(path: Path) -> Any:
    with path.open("rb") as file:  # of a path, torch goes by the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def _load_weights_only(path: Path) -> Any:
    """The content of a file of ``torch.save``, without running code of it.

    Training checkpoints hold objects of other packages beside the weights, such as hyperparameters. torch's restricted reader
    then reads the file with an empty placeholder for each such class or function, none of which is imported or called.
    """
    try:
        return _load(path)
    except pickle.UnpicklingError as error:
        content = _load_beside_objects(path)
        if content is None:
            raise ValueError(f"{path} holds more than weights and is not loaded, as it could execute code.") from error
        return content


def _load_beside_objects(path: Path) -> dict[str, Any] | None:
    """The weights of a checkpoint that holds objects beside them; None if they cannot be told apart from these."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        kinds: list[Any] = [(_ArrayPlaceholder if name.startswith("numpy.") else _Placeholder, name) for name in names]
        with torch.serialization.safe_globals(kinds):
            content = _load(path)
    except (pickle.UnpicklingError, ValueError, *BROKEN):
        return None
    try:
        return _unwrapped(content, path)
    except ValueError:
        return None
