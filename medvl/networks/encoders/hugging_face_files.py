"""Hugging Face models, configurations and tokenizers from local files, which run no code and ask no network.

A model folder is data: it may come from anybody. ``auto_map`` (code in the folder), pre-trained backbones by name, attention
kernels from the Hub, quantization and adapters that name another model are ignored or refused, and nothing is asked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from transformers import MODEL_MAPPING, AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from medvl.utils.checks import error_message
from medvl.utils.errors import plain_reason
from medvl.utils.limits import TEXT, check_regular_file, check_size

ATTENTIONS = ("eager", "sdpa", "flex_attention")
"""Implementations of attention that are part of transformers and torch; others may be loaded from the Hub and run."""

_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")
_ADAPTER_FILE = "adapter_config.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@contextmanager
def offline() -> Iterator[None]:
    """Keep huggingface_hub, and so transformers, from the network."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def find_folder(source: str | Path) -> Path | None:
    """The local folder ``source``, or that of the model of the Hugging Face Hub with this name in this machine's cache.

    Nothing is downloaded: a model is in the cache after ``hf download NAME``. None if there is neither.
    """
    if os.path.isdir(source):
        return Path(source)
    if not isinstance(source, str) or not _HUB_NAME.fullmatch(source):
        return None
    try:
        with offline():
            return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch_hint(source: object) -> str:
    """How to fetch a model that :func:`find_folder` does not find, if ``source`` may be a name in the Hub."""
    is_name = isinstance(source, str) and _HUB_NAME.fullmatch(source)
    return (
        f"; nothing is downloaded here: `hf download {source}` fetches a model of the Hugging Face Hub of this name"
        if is_name
        else ""
    )


def read_normalization_of(folder: str | Path) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of a model's input for values in [0, 1], from the folder's preprocessor; None without one.

    Raises:
        ValueError: If the file is damaged.
    """
    path = next((Path(folder) / name for name in _PROCESSOR_FILES if (Path(folder) / name).is_file()), None)
    if path is None:
        return None
    check_files(folder)
    stated = _read_json(path)
    stated = stated.get("image_processor", stated)
    if not isinstance(stated, Mapping):
        return None
    try:
        factor = float(stated.get("rescale_factor", 1 / 255)) if stated.get("do_rescale", True) else 1.0
        mean, std = stated.get("image_mean"), stated.get("image_std")
        if not stated.get("do_normalize", mean is not None) or mean is None or std is None:
            mean, std = [0.0], [1.0]
        scale = 255 * factor  # what the model's own preparation makes of a white pixel, before it normalizes
        scale = 1.0 if abs(scale - 1) < 1e-6 else scale
        pair = [
            [float(value) / scale for value in (values if isinstance(values, list) else [values])]
            for values in (mean, std)
        ]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
    return None if pair == [[0.0], [1.0]] else (pair[0], pair[1])


def check_model_values(values: Any, name: str) -> None:
    """Raise ``ValueError`` if a configuration would load something from elsewhere, or run what is loaded.

    Args:
        values: the configuration as plain values, with those inside it.
        name: of the configuration, for the error.
    """
    if isinstance(values, list | tuple):
        for value in values:
            check_model_values(value, name)
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if key == "use_pretrained_backbone" and value:
            raise ValueError(
                error_message(f"use_pretrained_backbone of {name}", "be false: nothing is downloaded", value)
            )
        if key == "quantization_config" and value:
            raise ValueError(error_message(name, "not be quantized", "a quantization_config"))
        if key in _ATTENTION_KEYS:
            kinds = list(value.values()) if isinstance(value, Mapping) else [value]
            if any(kind is not None and kind not in ATTENTIONS for kind in kinds):
                raise ValueError(error_message(f"{key} of {name}", f"be one of {', '.join(ATTENTIONS)}", repr(value)))
        check_model_values(value, name)


def model_config(source: Mapping[str, Any] | str | Path, name: str = "model") -> PretrainedConfig:
    """The configuration that a dictionary with ``model_type``, or the ``config.json`` of a folder, describes.

    Args:
        source: the dictionary or the folder.
        name: of the argument, for errors.

    Raises:
        ValueError: If the configuration is damaged, of no kind that transformers has, or would load something from elsewhere.
    """
    if isinstance(source, Mapping):
        where = f"{name}, a configuration,"
        if "model_type" not in source:
            raise ValueError(error_message(where, "have a model_type", ", ".join(map(str, source)) or "nothing"))
        values: Any = source
    else:
        where = f"the model folder {source}"
        check_files(source)
        if (Path(source) / _ADAPTER_FILE).exists():
            raise ValueError(
                f"{where} holds adapters of peft ({_ADAPTER_FILE}): merge them into the model's weights first."
            )
        values = _read_json(Path(source) / "config.json")
    check_model_values(values, where)
    with _errors(where), offline():
        if isinstance(source, Mapping):
            return AutoConfig.for_model(**source)
        return AutoConfig.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)


def build_model(config: PretrainedConfig) -> Any:
    """The model of a configuration, without a head and with random weights."""
    kind = model_class(config)
    with _errors(f"a {kind.__name__} of this configuration"), offline():
        return kind(config)


def read_model(folder: str | Path) -> tuple[Any, list[str]]:
    """The model in a folder, without a head and in float32, and the names of its weights that the folder lacks.

    Raises:
        ValueError: If a file is damaged or missing; see also :func:`model_config`.
    """
    config = model_config(folder)
    with _errors(f"the model folder {folder}"), offline():
        # For training and in float32, whatever the dtype in the file.
        model, report = model_class(config).from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    return model, sorted(report["missing_keys"])


def load_tokenizer(folder: str | Path) -> Any:
    """The Hugging Face tokenizer saved in a local folder. Nothing is downloaded, and no code of the folder is run.

    Args:
        folder: the folder, or the name of a model of the Hugging Face Hub that is in this machine's cache.

    Raises:
        ValueError: If the folder does not exist, or holds no tokenizer, a damaged one or one without a padding token.
    """
    found = find_folder(folder)
    if found is None:
        raise ValueError(
            f"a tokenizer is read from a local folder (nothing is downloaded), there is no folder {folder}"
            f"{fetch_hint(folder)}."
        )
    folder = found
    check_files(folder)
    with _errors(f"the tokenizer in {folder}"), offline():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer in {folder} must have a padding token, which it lacks.")
    return tokenizer


def check_files(folder: str | Path) -> None:
    """Raise ``ValueError`` if a file of a folder is a pipe or a device, which would be waited on, or a text too large."""
    for path in sorted(Path(folder).iterdir()):
        if not path.is_dir():
            check_regular_file(path)
            if path.suffix in (".json", ".txt", ".jinja") and path.exists():
                check_size(path.stat().st_size, str(path), TEXT)


def model_class(config: PretrainedConfig) -> Any:
    """The class of the model without a head; transformers' mapping often lacks those of single encoders.

    Raises:
        ValueError: If transformers has no such class.
    """
    if type(config) in MODEL_MAPPING:
        known = MODEL_MAPPING[type(config)]
        return known[0] if isinstance(known, tuple) else known
    name = type(config).__name__.replace("Config", "Model")
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ValueError(f"transformers has no {name} for the configuration, a {type(config).__name__}.")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"the model folder {path.parent} holds no {path.name}.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no settings.")
    return content


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """What transformers and torch raise, of whatever kind, as one sentence that names its subject."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = plain_reason(error)
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own, which is not run"
        raise ValueError(f"{what} cannot be loaded: {reason}.") from error
