"""Hugging Face text models: building them, and properties of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from medvl.networks.encoders.adapters import has_adapters, unwrap_adapters
from medvl.networks.encoders.hugging_face_files import build_model, fetch_hint, find_folder, model_config, read_model
from medvl.utils.checks import error_message
from medvl.utils.modes import eval_mode

DEFAULT_LENGTH = 512
"""Maximum number of tokens of a model without a position table and without such a number in its configuration."""


def build_text_model(model: nn.Module | PretrainedConfig | Mapping[str, Any] | str | Path) -> Any:
    """A Hugging Face text model: ``model`` itself, or built from a configuration (random weights) or a folder (its weights).

    The text encoder is taken from a model with a head, an image-text model or an encoder-decoder. A pooler is removed: no
    pooling here uses it, and its weights would never get a gradient. Weights are loaded as float32, whatever their dtype.

    Raises:
        ValueError: If ``model`` is none of these; if peft wrapped the model with its head, or added prompt tokens; if weights
            are missing in the folder.
    """
    if isinstance(model, nn.Module) and has_adapters(model):
        wrapped: Any = model
        base = unwrap_adapters(wrapped)
        if base.base_model is not base:
            raise ValueError(error_message("model", "be wrapped by peft without its head", f"a {type(base).__name__}"))
        if any(config.is_prompt_learning for config in wrapped.peft_config.values()):
            raise ValueError(
                "model must not have prompt tokens of peft, which are not in the attention mask: use add_prompt_tokens."
            )
        _drop_pooler(base)
        return model
    if isinstance(model, Mapping):
        model = model_config(model)
    if isinstance(model, PretrainedConfig):
        model = build_model(model)
    elif isinstance(model, str | Path) and (folder := find_folder(model)) is not None:
        return _read_folder(str(folder))
    elif not isinstance(model, PreTrainedModel):
        raise ValueError(
            error_message(
                "model",
                "be a Hugging Face model, a configuration or a local folder",
                repr(str(model)) + fetch_hint(model),
            )
        )
    return _encoder_of(model)


def _read_folder(folder: str) -> PreTrainedModel:
    whole, lacking = read_model(folder)
    encoder = _encoder_of(whole)
    wanted = {id(value) for value in encoder.parameters()}
    # transformers initializes missing weights with random numbers.
    weights = dict(whole.named_parameters())
    missing = [name for name in lacking if id(weights.get(name)) in wanted]
    if missing:
        raise ValueError(
            f"model folder {folder!r} must hold all {len(wanted)} weights of a {type(encoder).__name__}, {len(missing)} are "
            f"missing, such as {missing[0]}."
        )
    return encoder


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that returns the last hidden states of a text."""
    if hasattr(model.config, "vision_config") and hasattr(model, "text_model"):
        model = model.text_model
    model = model.base_model
    if model.main_input_name != "input_ids":
        raise ValueError(
            error_message("model", "be a text model", f"a {type(model).__name__}, which takes {model.main_input_name}")
        )
    encoder = model.get_encoder()
    if isinstance(encoder, PreTrainedModel) and encoder is not model:
        return encoder
    _drop_pooler(model)
    return model


def _drop_pooler(model: PreTrainedModel) -> None:
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    if isinstance(getattr(model, "head", None), nn.Linear):  # the name of SigLIP's pooler, which is always called
        model.head = nn.Identity()


def position_limit(model: PreTrainedModel) -> int:
    """The maximum number of tokens for a model's position table.

    The positions of RoBERTa begin after its padding id, those of BART and OPT after an offset: no token has the rows before.
    """
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, nn.Embedding) and ("position" in last or last == "wpe") and "relative" not in last:
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - int(getattr(module, "offset", skipped))
    length = getattr(model.config, "max_position_embeddings", None) or 0
    return int(length) if length > 0 else DEFAULT_LENGTH


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Whether the first token's state does not depend on later tokens; determined by a forward pass of two tokens."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return False
    with eval_mode(model):
        ids = torch.tensor([[0, 0], [0, 1]], device=device)
        first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0].float()
    return torch.allclose(first[0], first[1], rtol=0, atol=1e-7 * float(first.abs().max()))
