"""What a dual encoder needs for images of which some patches are hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medvl.networks.blocks import PatchContrastIntegrity, PatchDecoder, SemanticIntegrity
from medvl.networks.encoders import ImageEncoder


def build_patch_decoder(image_encoder: ImageEncoder, options: Mapping[str, Any]) -> PatchDecoder:
    """A decoder over the encoder's patches."""
    return PatchDecoder(
        image_encoder.out_features,
        patch_size=_patch_size(image_encoder, "patch_decoder"),
        in_channels=image_encoder.in_channels,
        spatial_dims=image_encoder.spatial_dims,
        **options,
    )


def build_integrity(image_encoder: ImageEncoder, source: str) -> nn.Module:
    """The block of semantic integrity by the "report" or by the "contrast" of pixels."""
    patch_size = _patch_size(image_encoder, "semantic_integrity")
    return SemanticIntegrity() if source == "report" else PatchContrastIntegrity(patch_size)


def _patch_size(image_encoder: ImageEncoder, option: str) -> tuple[int, ...]:
    if not image_encoder.takes_visible or image_encoder.patch_size is None:
        raise ValueError(
            f"{option} needs an image encoder that takes visible patches, a ViT, received a "
            f"{type(image_encoder.backbone).__name__}."
        )
    return image_encoder.patch_size


def own_sentences(
    images: int,
    sentence_embeds: torch.Tensor,
    sentence_mask: torch.Tensor,
    image_ids: torch.Tensor | None,
    text_ids: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sentences (N, S, D) of each image's own report, and their mask (N, S), empty for an image without a report.

    Raises:
        ValueError: where there are not as many texts as images, and no ids to tell which belong together.
    """
    if image_ids is not None and text_ids is not None:
        same = image_ids.unsqueeze(1) == text_ids.unsqueeze(0)  # (N, M)
        own = same.int().argmax(1)
        return sentence_embeds[own], sentence_mask[own] & same.any(1, keepdim=True)
    if len(sentence_embeds) != images:
        raise ValueError(
            f"semantic integrity needs image_ids and text_ids to tell an image's own report, received {images} images and "
            f"{len(sentence_embeds)} texts without them."
        )
    return sentence_embeds, sentence_mask
