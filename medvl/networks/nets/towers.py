"""The towers of a published architecture: its presets, and what the caller puts in their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvl.networks.encoders import ImageEncoder, TextEncoder
from medvl.networks.encoders.text import load_tokenizer
from medvl.networks.nets.dual_encoder import DualEncoder

Preset = Mapping[str, Mapping[str, Any]]

BERT_BASE = {"model_type": "bert"}
BERT_SMALL = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""A text tower that learns the language of reports in minutes on a CPU."""


def build_dual_encoder(
    presets: Mapping[str, Preset],
    preset: str,
    *,
    spatial_dims: int,
    in_channels: int,
    image_size: int,
    image_encoder: Any,
    text_encoder: Any,
    tokenizer: Any,
    prompts: Mapping[str, Any] | None = None,
    **options: Any,
) -> DualEncoder:
    """The dual encoder of ``presets[preset]``, with the encoders given in place of its own.

    Args:
        presets: by name, options of :class:`ImageEncoder` under "image", of :class:`TextEncoder` under "text" and, where it
            has some of its own, of :class:`DualEncoder` under "options".
        preset: one of the names.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images in pixels.
        image_encoder: an encoder, or what it takes as backbone, with its own defaults; the preset's where None.
        text_encoder: an encoder, a Hugging Face text model, its configuration or a local folder; the preset's where None.
        tokenizer: the Hugging Face tokenizer; read from ``text_encoder`` where that is a folder which holds one.
        prompts: the text encoder's learned prompt tokens, unless an encoder is given.
        **options: of :class:`DualEncoder`, before the preset's.

    Raises:
        ValueError: an unknown preset; a tokenizer with more tokens than the text model.
    """
    if preset not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}, received {preset!r}.")
    image, text = dict(presets[preset]["image"]), dict(presets[preset]["text"])
    if not isinstance(image_encoder, ImageEncoder):
        image = image if image_encoder is None else {"backbone": image_encoder}
        image_encoder = ImageEncoder(**image, spatial_dims=spatial_dims, in_channels=in_channels, image_size=image_size)
    if tokenizer is None and isinstance(text_encoder, str | Path) and _holds_tokenizer(text_encoder):
        tokenizer = load_tokenizer(text_encoder)
    if not isinstance(text_encoder, TextEncoder):
        if text_encoder is not None:
            text["model"] = text_encoder
        elif tokenizer is not None:
            text["model"] = {**text["model"], "vocab_size": len(tokenizer)}
        text_encoder = TextEncoder(**text, prompts=prompts)
    vocabulary = text_encoder.model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > vocabulary:
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, more than the text model's {vocabulary}.")
    options = {**presets[preset].get("options", {}), **options}
    return DualEncoder(image_encoder, text_encoder, tokenizer=tokenizer, **options)


def _holds_tokenizer(folder: str | Path) -> bool:
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"))
