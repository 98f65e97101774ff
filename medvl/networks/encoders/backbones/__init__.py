"""The backbones of image encoders.

``convolutional`` holds ResNet, DenseNet and EfficientNet, ``transformer`` ViT and Swin, ``hugging_face`` any vision model
of transformers, ``ct_vit`` the one of CT-CLIP.
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
from medvl.networks.encoders.backbones.ct_vit import CTViTBackbone
from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.networks.encoders.backbones.hugging_face import HuggingFaceBackbone, is_hugging_face
from medvl.networks.encoders.backbones.transformer import SWINS, VITS, SwinBackbone, ViTBackbone
from medvl.utils.checks import error_message

CT_VIT = "ct_vit"
NAMES = (*RESNETS, *DENSENETS, *EFFICIENTNETS, *VITS, *SWINS, CT_VIT)

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
    """The network ``name``, one of ``NAMES``, with random weights.

    Raises:
        ValueError: If CT-ViT is to be of two dimensions, or an option is out of range.
    """
    if name == CT_VIT:
        if spatial_dims != 3:
            raise ValueError(error_message("spatial_dims", f"be 3 for {CT_VIT}", spatial_dims))
        return CTViTBackbone(in_channels, image_size, **options)
    if name in RESNETS:
        return ResNetBackbone(name, spatial_dims, in_channels, **options)
    if name in DENSENETS:
        return DenseNetBackbone(name, spatial_dims, in_channels, **options)
    if name in EFFICIENTNETS:
        return EfficientNetBackbone(name, spatial_dims, in_channels, **options)
    if name in VITS:
        return ViTBackbone(name, spatial_dims, in_channels, image_size, **options)
    return SwinBackbone(name, spatial_dims, in_channels, **options)
