"""UMCL's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.towers import BERT_BASE, BERT_SMALL, Preset, build_dual_encoder

PRESETS: dict[str, Preset] = {
    "base": {"image": {"backbone": "resnet50"}, "text": {"model": BERT_BASE, "pooling": "cls"}},
    "small": {"image": {"backbone": "resnet10", "width": 0.5}, "text": {"model": BERT_SMALL, "pooling": "cls"}},
}


def umcl(
    preset: str = "base",
    spatial_dims: int = 2,
    in_channels: int = 1,
    image_size: int = 224,
    image_encoder: Any = None,
    text_encoder: Any = None,
    embed_dim: int = 512,
    tokenizer: Any = None,
    num_prompt_tokens: int = 16,
    **options: Any,
) -> DualEncoder:
    """UMCL: a ResNet and a BERT with linear projections to one space in which images, texts and labels are contrasted.

    Wang et al. 2023, "Unified Medical Image-Text-Label Contrastive Learning With Continuous Prompt",
    https://arxiv.org/abs/2307.05920, publishes no code: the sizes are ours, after MedCLIP's. Both towers start from random
    weights unless an encoder with weights is given. It trains on whole reports and on prompts written from labels, so that
    reports are embedded as a whole; prompts have 16 learned tokens.

    Args:
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of one layer of width 128 without
            dropout, which learns in minutes on a CPU).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: in place of the preset's: an encoder, whose dimensions, channels and size then count, or what it takes
            as backbone, such as a name.
        text_encoder: in place of the preset's: an encoder, a Hugging Face text model, its configuration or a local folder.
        embed_dim: width D of the joint space.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one. It sets
            the preset's vocabulary size.
        num_prompt_tokens: learned tokens that :class:`medvl.transforms.AddPromptTokens` or
            :meth:`DualEncoder.encode_with_prompts` put beside a class name; 0 for none. A given
            :class:`~medvl.networks.TextEncoder` keeps those that it has.
        **options: of :class:`DualEncoder`, in place of this function's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> model = umcl("small", image_size=64, embed_dim=32)
        >>> tuple(model.text_encoder.prompts().shape)
        (1, 16, 128)
    """
    prompts = {"num_tokens": num_prompt_tokens} if num_prompt_tokens else None
    return build_dual_encoder(
        PRESETS,
        preset,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        image_size=image_size,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        prompts=prompts,
        **{
            "embed_dim": embed_dim,
            "projection_layers": 1,
            "temperature": 0.07,
            "report_encoding": "whole",
            **options,
        },
    )
