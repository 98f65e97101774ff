"""ConVIRT's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.towers import BERT_BASE, BERT_SMALL, Preset, build_dual_encoder

PRESETS: dict[str, Preset] = {
    "base": {"image": {"backbone": "resnet50"}, "text": {"model": BERT_BASE, "pooling": "max"}},
    "small": {"image": {"backbone": "resnet10", "width": 0.5}, "text": {"model": BERT_SMALL, "pooling": "max"}},
}


def convirt(
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
    """ConVIRT: a ResNet and a BERT, max-pooled over tokens, each with a two-layer projection; temperature fixed at 0.1.

    Zhang et al. 2022, "Contrastive Learning of Medical Visual Representations from Paired Images and Text",
    https://arxiv.org/abs/2010.00747. Both towers start from random weights unless an encoder with weights is given. The
    paper starts from ImageNet's ResNet-50 and ClinicalBERT, whose embeddings and first six layers it freezes
    (``model.text_encoder.freeze(6)``). It trains on sentences, so that reports are embedded by their sentences.

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
        **options: of :class:`DualEncoder`, in place of the paper's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> model = convirt("small", image_size=64, embed_dim=32)
        >>> round(model.logit_scale().item(), 4)
        10.0
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
            "projection_layers": 2,
            "temperature": 0.1,
            "learnable_temperature": False,
            "report_encoding": "sentences",
            **options,
        },
    )
