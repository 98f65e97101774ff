"""MLIP's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.encoders import ImageEncoder
from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.towers import BERT_BASE, BERT_SMALL, Preset, build_dual_encoder

PRESETS: dict[str, Preset] = {
    "base": {"image": {"backbone": "vit", "patch_size": 16}, "text": {"model": BERT_BASE, "pooling": "cls"}},
    "small": {
        "image": {
            "backbone": "vit",
            "patch_size": 16,
            "hidden_size": 192,
            "num_layers": 4,
            "num_heads": 4,
            "mlp_dim": 768,
        },
        "text": {"model": BERT_SMALL, "pooling": "cls"},
    },
}


def mlip(
    preset: str = "base",
    spatial_dims: int = 2,
    in_channels: int = 1,
    image_size: int = 224,
    image_encoder: ImageEncoder | str | None = None,
    text_encoder: Any = None,
    embed_dim: int = 512,
    tokenizer: Any = None,
    **options: Any,
) -> DualEncoder:
    """MLIP: a ViT and a BERT with projections of whole images and texts and of patches and sentences.

    Liu et al. 2024, "MLIP: Medical Language-Image Pre-training with Masked Local Representation Learning",
    https://arxiv.org/abs/2401.01591, publishes no code: what it describes is built from our parts. Both towers start from
    random weights unless an encoder with weights is given.

    Args:
        preset: "base" (ViT-B/16, BERT-base) or "small" (a ViT of 4 layers of width 192, a BERT of one layer of width 128
            without dropout, for a CPU).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: in place of the preset's: an encoder, or a backbone's name.
        text_encoder: in place of the preset's: an encoder, a Hugging Face text model, its configuration or a local folder.
        embed_dim: width D of the joint space.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one. It sets
            the preset's vocabulary size.
        **options: of :class:`DualEncoder`, in place of this function's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> model = mlip("small", image_encoder="resnet10", image_size=64, embed_dim=32)
        >>> model.patch_projection.out_features
        32
    """
    return build_dual_encoder(
        PRESETS,
        preset,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        image_size=image_size,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        **{
            "embed_dim": embed_dim,
            "projection_layers": 1,
            "temperature": 0.07,
            "local_projections": True,
            "report_encoding": "whole",
            **options,
        },
    )
