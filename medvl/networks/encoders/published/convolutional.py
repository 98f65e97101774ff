"""The layouts of published convolutional networks: ResNet, DenseNet and ConvNeXt.

A reader gives the arguments of :class:`~medvl.networks.encoders.published.tower.Tower` that it knows from the weights.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from medvl.networks.encoders.published.names import CONVNEXT, TIMM_CONVNEXT, TORCHVISION_CONVNEXT, rename
from medvl.utils.checks import error_message

Weights = dict[str, Tensor]
HEAD = "a head for other outputs"
_RESNET_HEADS = ("fc.", "conv_seg.", "op_threshs")
_DENSENET_HEADS = ("classifier.", "op_threshs")
_CONVNEXT_HEADS = ("head.weight", "head.bias", "head.fc.", "classifier.2.")
# Files of torchvision from before 2018.
_OLD_DENSENET = ((r"(denselayer\d+)\.(norm|conv)\.([12])\.", r"\1.\2\3."),)
_MONAI_DENSENET = ((r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.layers.\2\3."),)


def read_resnet(weights: Weights, monai: bool) -> dict[str, Any]:
    """ResNets of torchvision and timm, 2D, and MedicalNet, 3D.

    Raises:
        ValueError: If the stem is another.
    """
    stem = weights.get("conv1.weight")
    if stem is None or stem.shape[2:] != (7,) * (stem.ndim - 2):
        got = "several convolutions or none" if stem is None else f"a kernel of {tuple(stem.shape[2:])}"
        raise ValueError(error_message("the stem of the ResNet", "be one convolution of side 7", got))
    layers = tuple(_count(weights, rf"^layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    options: dict[str, Any] = {
        "layers": layers,
        "block": "bottleneck" if "layer1.0.conv3.weight" in weights else "basic",
        "width": len(stem) / 64,
        "shortcut_type": "B" if "layer2.0.downsample.0.weight" in weights else "A",
        "bias_downsample": "layer2.0.downsample.0.bias" in weights,
    }
    notes = []
    if stem.ndim == 5:
        options |= {"output_stride": 8, "dilated": True}
        notes.append("the last two stages dilated as in MedicalNet (output_stride=32, dilated=False for fewer cells)")
    return {
        **_split(weights, _RESNET_HEADS, {name: name for name in weights}),
        "options": options,
        "notes": notes,
        "spatial_dims": stem.ndim - 2,
        "in_channels": stem.shape[1],
    }


def read_densenet(weights: Weights, monai: bool) -> dict[str, Any]:
    """DenseNets of torchvision, timm and TorchXRayVision."""
    names = {rename(name, _OLD_DENSENET): name for name in weights}
    stem, first = (weights[names[f"features.{name}.weight"]] for name in ("conv0", "denseblock1.denselayer1.conv2"))
    blocks = _count(weights, r"^features\.denseblock(\d+)\.")
    options = {
        "init_features": len(stem),
        "growth_rate": len(first),
        "block_config": tuple(
            _count(weights, rf"^features\.denseblock{block + 1}\.denselayer(\d+)\.") for block in range(blocks)
        ),
    }
    return {
        **_split(weights, _DENSENET_HEADS, {rename(new, _MONAI_DENSENET): old for new, old in names.items()}),
        "options": options,
        "spatial_dims": stem.ndim - 2,
        "in_channels": stem.shape[1],
    }


def read_convnext(weights: Weights, monai: bool) -> dict[str, Any]:
    """ConvNeXts of torchvision, timm and Facebook, in Hugging Face's names."""
    table = TIMM_CONVNEXT if "stem.0.weight" in weights else TORCHVISION_CONVNEXT if _is_numbered(weights) else ()
    names = {rename(name, table, CONVNEXT): name for name in weights}
    stem = weights[names["embeddings.patch_embeddings.weight"]]
    stages = [
        f"encoder.stages.{stage}.layers"
        for stage in range(4)
        if f"encoder.stages.{stage}.layers.0.dwconv.weight" in names
    ]
    scales = {name: value.flatten() for name, value in weights.items() if name.endswith("layer_scale")}
    return {
        **_split({**weights, **scales}, _CONVNEXT_HEADS, names),
        "options": {
            "num_stages": len(stages),
            "depths": [_count(names, rf"^{re.escape(stage)}\.(\d+)\.") for stage in stages],
            "hidden_sizes": [len(weights[names[f"{stage}.0.dwconv.weight"]]) for stage in stages],
            "patch_size": stem.shape[2],
            "num_channels": stem.shape[1],
            "layer_norm_eps": 1e-6,
        },
        "in_channels": stem.shape[1],
    }


def _is_numbered(weights: Weights) -> bool:
    return "features.0.0.weight" in weights


def _split(weights: Weights, heads: tuple[str, ...], names: dict[str, str]) -> dict[str, Any]:
    """The weights by their new names, the names that they had, and the heads apart."""
    kept = {new: old for new, old in names.items() if not old.startswith(heads)}
    return {
        "weights": {new: weights[old] for new, old in kept.items()},
        "origin": kept,
        "unused": {old: HEAD for old in names.values() if old.startswith(heads)},
    }


def _count(names: Any, pattern: str) -> int:
    """The number of different numbers that a pattern finds."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
