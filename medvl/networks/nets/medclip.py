"""MedCLIP's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.towers import BERT_BASE, BERT_SMALL, Preset, build_dual_encoder

PRESETS: dict[str, Preset] = {
    "base": {"image": {"backbone": "resnet50"}, "text": {"model": BERT_BASE, "pooling": "last_layers"}},
    "small": {
        "image": {"backbone": "resnet10", "width": 0.5},
        "text": {"model": {**BERT_SMALL, "num_hidden_layers": 2}, "pooling": "last_layers"},
    },
}


def medclip(
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
    """MedCLIP: a ResNet or Swin and a BERT, each with a linear projection without bias; learnable temperature from 0.07.

    Wang et al. 2022, "MedCLIP: Contrastive Learning from Unpaired Medical Images and Text",
    https://arxiv.org/abs/2210.10163. A text is the mean of hidden layers 1, 2 and last, then over its tokens (the released
    code averages over padding too; here only over the text). Both towers start from random weights unless an encoder with
    weights is given; :func:`medvl.networks.load_reference_weights` reads the published ones. It trains on sentences and
    prompts, so that reports are embedded by their sentences.

    Args:
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of two layers of width 128 without
            dropout, which learns in minutes on a CPU).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: in place of the preset's: an encoder, whose dimensions, channels and size then count, or what it takes
            as backbone, such as a name;
            ``{"model_type": "swin", "num_channels": 3}`` is the paper's other tower.
        text_encoder: in place of the preset's: an encoder, a Hugging Face text model, its configuration or a local folder.
        embed_dim: width D of the joint space.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one. It sets
            the preset's vocabulary size.
        **options: of :class:`DualEncoder`, in place of the paper's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> model = medclip("small", image_size=64, embed_dim=32)
        >>> round(1 / model.logit_scale().item(), 4), model.text_encoder.pooling
        (0.07, 'last_layers')
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
            "projection_bias": False,
            "temperature": 0.07,
            "report_encoding": "sentences",
            **options,
        },
    )
