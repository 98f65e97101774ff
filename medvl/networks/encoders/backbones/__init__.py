"""The backbones of image encoders.

``convolutional`` holds ResNet, DenseNet and EfficientNet, ``transformer`` ViT and Swin, ``hugging_face`` any vision model
of transformers.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medvl.networks.encoders.backbones.convolutional import (
    DENSENETS,
    EFFICIENTNETS,
    RESNETS,
    DenseNetBackbone,
    EfficientNetBackbone,
    ResNetBackbone,
)
from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.networks.encoders.backbones.hugging_face import HuggingFaceBackbone, is_hugging_face
from medvl.networks.encoders.backbones.transformer import SWINS, VITS, SwinBackbone, ViTBackbone

NAMES = (*RESNETS, *DENSENETS, *EFFICIENTNETS, *VITS, *SWINS)

__all__ = [
    "DENSENETS",
    "NAMES",
    "RESNETS",
    "VITS",
    "HuggingFaceBackbone",
    "PatchFeatures",
    "build_backbone",
    "is_hugging_face",
]


def build_backbone(name: str, spatial_dims: int, in_channels: int, image_size: int, **options: Any) -> nn.Module:
    """The MONAI network ``name``, one of ``NAMES``, with random weights."""
    if name in RESNETS:
        return ResNetBackbone(name, spatial_dims, in_channels, **options)
    if name in DENSENETS:
        return DenseNetBackbone(name, spatial_dims, in_channels, **options)
    if name in EFFICIENTNETS:
        return EfficientNetBackbone(name, spatial_dims, in_channels, **options)
    if name in VITS:
        return ViTBackbone(name, spatial_dims, in_channels, image_size, **options)
    return SwinBackbone(name, spatial_dims, in_channels, **options)
