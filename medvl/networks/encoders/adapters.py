"""Adapters of the optional peft library on a text model: detecting, saving and rebuilding them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from torch import nn

from medvl.utils.checks import error_message
from medvl.utils.extras import require_extra


def has_adapters(model: nn.Module) -> bool:
    """Whether ``model`` is wrapped by peft."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def unwrap_adapters(model: Any) -> Any:
    """The Hugging Face model inside peft's wrapper, or the model itself if it is not wrapped."""
    return model.get_base_model() if has_adapters(model) else model


def adapters_config(model: Any) -> dict[str, dict[str, Any]]:
    """The configuration of every adapter by name, as plain values for JSON."""
    return {name: _plain(config.to_dict()) for name, config in model.peft_config.items()}


def add_adapters(model: nn.Module, configs: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Wrap ``model`` with the adapters that :func:`adapters_config` describes, with new weights.

    Raises:
        MissingExtraError: If peft is not installed.
        ValueError: If a configuration is one of prompt learning, of X-LoRA or of Megatron, which load what they name.
    """
    require_extra("A text encoder with adapters", "peft")
    from peft import get_peft_config, get_peft_model

    first, *others = configs
    built = {name: get_peft_config(dict(config)) for name, config in configs.items()}
    for name, config in built.items():
        # They load tokenizers, models or modules that they name.
        if config.is_prompt_learning or config.peft_type == "XLORA" or getattr(config, "megatron_config", None):
            kind = getattr(config.peft_type, "value", config.peft_type)
            raise ValueError(error_message(f"adapter {name!r}", "be one of weights alone, such as LORA", kind))
    wrapped = get_peft_model(model, built[first], adapter_name=first)
    for name in others:
        wrapped.add_adapter(name, built[name])
    return wrapped


def adapter_prefix(model: Any) -> str | None:
    """A part of the names of the adapters' weights, such as ``lora_``; None without adapters."""
    return getattr(model.base_model, "prefix", None) if has_adapters(model) else None


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
