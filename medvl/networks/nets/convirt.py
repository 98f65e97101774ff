"""ConVIRT's architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.encoders.text import load_tokenizer
from medvl.networks.nets.dual_encoder import DualEncoder

PRESETS: dict[str, dict[str, Any]] = {
    "base": {"image": {"backbone": "resnet50"}, "text": {"model_type": "bert"}},
    "small": {
        "image": {"backbone": "resnet10", "width": 0.5},
        "text": {
            "model_type": "bert",
            "hidden_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    },
}


def convirt(
    preset: str = "base",
    spatial_dims: int = 2,
    in_channels: int = 1,
    image_size: int = 224,
    image_encoder: ImageEncoder | str | None = None,
    text_encoder: Any = None,
    embed_dim: int = 512,
    tokenizer: Any = None,
) -> DualEncoder:
    """ConVIRT: a ResNet and a BERT, max-pooled over tokens, each with a two-layer projection; temperature fixed at 0.1.

    Zhang et al. 2022, "Contrastive Learning of Medical Visual Representations from Paired Images and Text",
    https://arxiv.org/abs/2010.00747. Both towers start from random weights unless an encoder with weights is given. The
    paper starts from ImageNet's ResNet-50 and ClinicalBERT, whose embeddings and first six layers it freezes
    (``model.text_encoder.freeze(6)``).

    Args:
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of one layer of width 128 without
            dropout, which learns in minutes on a CPU).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: in place of the preset's: an encoder, or a backbone's name.
        text_encoder: in place of the preset's: an encoder, a Hugging Face text model, its configuration or a local folder.
        embed_dim: width D of the joint space.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one. It sets
            the preset's vocabulary size.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.

    Example:
        >>> model = convirt("small", image_size=64, embed_dim=32)
        >>> round(model.logit_scale().item(), 4)
        10.0
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, received {preset!r}.")
    sizes = PRESETS[preset]
    if not isinstance(image_encoder, ImageEncoder):
        image = {**sizes["image"], **({"backbone": image_encoder} if image_encoder else {})}
        image_encoder = ImageEncoder(**image, spatial_dims=spatial_dims, in_channels=in_channels, image_size=image_size)
    if tokenizer is None and isinstance(text_encoder, str | Path):
        tokenizer = load_tokenizer(text_encoder)
    if text_encoder is None:
        text_encoder = dict(sizes["text"], **({} if tokenizer is None else {"vocab_size": len(tokenizer)}))
    if not isinstance(text_encoder, TextEncoder):
        text_encoder = TextEncoder(text_encoder, pooling="max")
    vocabulary = text_encoder.model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > vocabulary:
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, more than the text model's {vocabulary}.")
    return DualEncoder(
        image_encoder,
        text_encoder,
        embed_dim=embed_dim,
        projection_layers=2,
        temperature=0.1,
        learnable_temperature=False,
        tokenizer=tokenizer,
    )
