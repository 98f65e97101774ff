"""The layouts of published vision transformers: ViT and Swin."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from medvl.networks.encoders.published.convolutional import HEAD, _count
from medvl.networks.encoders.published.names import (
    MONAI_VIT,
    QKV,
    SWIN,
    TIMM_VIT,
    TORCHVISION_SWIN,
    TORCHVISION_VIT,
    Renames,
    rename,
)

Weights = dict[str, Tensor]
_VIT_UNUSED = {
    **dict.fromkeys(("head.", "heads.", "pre_logits."), HEAD),
    **dict.fromkeys(("decoder", "mask_token"), "a decoder of masked patches"),
}
_SWIN_UNUSED = {
    "head.": HEAD,
    "relative_position_index": "a constant that is computed anew",
    "attn_mask": "a constant that is computed anew",
}


def read_vit(weights: Weights, monai: bool) -> dict[str, Any]:
    """ViTs of torchvision and timm, in MONAI's or Hugging Face's names."""
    names = {rename(name, TORCHVISION_VIT) if "conv_proj.weight" in weights else name: name for name in weights}
    unused = {old: reason for old in weights for start, reason in _VIT_UNUSED.items() if old.startswith(start)}
    values = {new: weights[old] for new, old in names.items() if old not in unused}
    origin = {new: old for new, old in names.items() if old not in unused}
    kernel, hidden = values["patch_embed.proj.weight"], values["blocks.0.mlp.fc1.weight"]
    width, depth = len(kernel), _count(values, r"^blocks\.(\d+)\.")
    has_class, has_bias = "cls_token" in values, "blocks.0.attn.qkv.bias" in values
    facts: dict[str, Any] = {"in_channels": kernel.shape[1], "unused": unused}
    if "pos_embed" in values:
        facts["image_size"] = math.isqrt(values["pos_embed"].shape[1] - has_class) * kernel.shape[2]
    if monai:
        options = {
            "hidden_size": width,
            "num_layers": depth,
            "mlp_dim": len(hidden),
            "patch_size": kernel.shape[2],
            "qkv_bias": has_bias,
            "pooling": "cls" if has_class else "mean",
            "layer_norm_eps": 1e-6,
        }
        if has_class and "pos_embed" in values:
            # MONAI's table has no position for the class token: it is part of the token.
            values["cls_token"] = values["cls_token"] + values["pos_embed"][:, :1]
            values["pos_embed"] = values["pos_embed"][:, 1:]
        named = {rename(name, MONAI_VIT): name for name in values}
        return {
            **facts,
            "weights": {new: values[old] for new, old in named.items()},
            "origin": {new: origin[old] for new, old in named.items()},
            "options": options,
        }
    options = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": max(width // 64, 1),
        "intermediate_size": len(hidden),
        "patch_size": kernel.shape[2],
        "num_channels": kernel.shape[1],
        "qkv_bias": has_bias,
        "layer_norm_eps": 1e-6,
    }
    return {**facts, **_hugging_face(values, origin, TIMM_VIT), "options": options}


def read_swin(weights: Weights, monai: bool) -> dict[str, Any]:
    """Swins of torchvision, timm and Microsoft, in Hugging Face's names."""
    names = {rename(name, TORCHVISION_SWIN) if "features.0.0.weight" in weights else name: name for name in weights}
    unused = {
        old: reason
        for old in weights
        for part, reason in _SWIN_UNUSED.items()
        if old.startswith(part) or old.endswith(part)
    }
    origin = {_earlier_merging(new, names): old for new, old in names.items() if old not in unused}
    values = {new: weights[old] for new, old in origin.items()}
    kernel = values["patch_embed.proj.weight"]
    stages = range(_count(values, r"^layers\.(\d+)\."))
    tables = [values[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    options = {
        "embed_dim": len(kernel),
        "depths": [_count(values, rf"^layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(len(tables[0])) + 1) // 2,
        "patch_size": kernel.shape[2],
        "num_channels": kernel.shape[1],
        "mlp_ratio": len(values["layers.0.blocks.0.mlp.fc1.weight"]) / len(kernel),
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in values,
    }
    converted = _hugging_face(values, origin, SWIN)
    return {**converted, "unused": unused, "options": options, "in_channels": kernel.shape[1]}


def _earlier_merging(name: str, names: dict[str, str]) -> str:
    """The name of a merging that is the last part of a stage; timm has it as the first part of the next one."""
    if ".downsample." not in name or any(other.startswith("layers.0.downsample.") for other in names):
        return name
    stage = int(name.split(".")[1])
    return f"layers.{stage - 1}.{name.split('.', 2)[2]}"


def _hugging_face(values: Weights, origin: dict[str, str], table: Renames) -> dict[str, Any]:
    """Weights in the names of Hugging Face's files, with joint query, key and value weights cut in three."""
    named: Weights = {}
    sources: dict[str, str] = {}
    for old, value in values.items():
        name = rename(old, table)
        parts = [name.replace(".qkv.", f".{part}.") for part in QKV] if ".qkv." in name else [name]
        for part, piece in zip(parts, torch.chunk(value, len(parts)) if len(parts) > 1 else [value], strict=True):
            named[part], sources[part] = piece, origin[old]
    return {"weights": named, "origin": sources}
