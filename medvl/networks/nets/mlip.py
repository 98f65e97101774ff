"""MLIP's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.towers import BERT_BASE, BERT_SMALL, Preset, build_dual_encoder

PRESETS: dict[str, Preset] = {
    "base": {
        "image": {"backbone": "vit_base", "patch_size": 16},
        "text": {"model": BERT_BASE, "pooling": "cls"},
        "options": {"patch_decoder": {"features": 512, "num_layers": 4, "num_heads": 8}},
    },
    "small": {
        "image": {"backbone": "vit_tiny", "patch_size": 16, "num_layers": 4},
        "text": {"model": BERT_SMALL, "pooling": "cls"},
        "options": {"patch_decoder": {"features": 128, "num_layers": 2, "num_heads": 4}},
    },
}


def mlip(
    preset: str = "base",
    spatial_dims: int = 2,
    in_channels: int = 1,
    image_size: int = 224,
    image_encoder: Any = None,
    text_encoder: Any = None,
    embed_dim: int = 512,
    tokenizer: Any = None,
    **options: Any,
) -> DualEncoder:
    """MLIP: a ViT that sees some patches, a decoder of the others, and a space for patches and sentences beside the whole.

    Liu et al. 2024, "MLIP: Medical Language-Image Pre-training with Masked Local Representation Learning",
    https://arxiv.org/abs/2401.01591, publishes no code: what it describes is built from our parts, with sizes of ours. The
    masked patches come as ``visible`` (:class:`medvl.transforms.RandMaskPatches` draws them); the weights of masked images
    are their semantic integrity by the report. Both towers start from random weights unless an encoder with weights is given.
    For an image encoder other than a ViT give ``patch_decoder=None, semantic_integrity=None``, and mask nothing.

    Args:
        preset: "base" (ViT-B/16, BERT-base) or "small" (a ViT of 4 layers of width 192, a BERT of one layer of width 128
            without dropout, for a CPU).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: in place of the preset's: an encoder, whose dimensions, channels and size then count, or what it takes
            as backbone, such as a name.
        text_encoder: in place of the preset's: an encoder, a Hugging Face text model, its configuration or a local folder.
        embed_dim: width D of the joint space.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one. It sets
            the preset's vocabulary size.
        **options: of :class:`DualEncoder`, in place of this function's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> import torch
        >>> model = mlip("small", image_size=32, embed_dim=8)
        >>> tokens = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "sentence_ids": torch.tensor([[-1, 0, 1, -1]])}
        >>> output = model(torch.rand(1, 1, 32, 32), visible=torch.tensor([[0, 3]]), **tokens)
        >>> output["patch_embeds"].shape, output["sentence_embeds"].shape, output["patch_prediction"].shape
        (torch.Size([1, 4, 8]), torch.Size([1, 2, 8]), torch.Size([1, 4, 256]))
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
            "semantic_integrity": "report",
            **options,
        },
    )
