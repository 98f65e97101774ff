"""UMCL's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.dual_encoder import DualEncoder
from medvl.networks.nets.factory import (
    BERT_BASE,
    BERT_SMALL,
    RESNET_BASE,
    RESNET_SMALL,
    Preset,
    dual_encoder_factory,
)

PRESETS: dict[str, Preset] = {
    "base": {"image": RESNET_BASE, "text": {"model": BERT_BASE, "pooling": "last_layers"}},
    "small": {
        "image": RESNET_SMALL,
        "text": {"model": {**BERT_SMALL, "num_hidden_layers": 2}, "pooling": "last_layers"},
    },
}


@dual_encoder_factory(PRESETS, DualEncoder)
def umcl(num_prompt_tokens: int = 16) -> dict[str, Any]:
    """UMCL: a ResNet and a BERT with linear projections to one space in which images, texts and labels are contrasted.

    Wang et al. 2023, "Unified Medical Image-Text-Label Contrastive Learning With Continuous Prompt",
    https://arxiv.org/abs/2307.05920, publishes no code: the sizes are ours, after MedCLIP's. Both encoders have random
    weights unless an encoder with weights is given. It trains on sentences and on prompts written from labels, so that a report
    is encoded by its sentences; prompts have 16 learned tokens.

    Args:
        num_prompt_tokens: learned tokens that :class:`medvl.transforms.AddPromptTokens` or
            :meth:`DualEncoder.encode_with_prompt_tokens` puts beside a class name; 0 for none. A given
            :class:`TextEncoder` keeps those that it has.
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of two layers of width 128 without
            dropout, which learns in minutes on a CPU).

    Example:
        >>> model = umcl("small", image_size=64, embed_dim=32)
        >>> tuple(model.text_encoder.prompt_tokens().shape)
        (1, 16, 128)
    """
    return {
        "text_encoder": {"prompt_tokens": {"num_tokens": num_prompt_tokens} if num_prompt_tokens else None},
        "logit_scale": {"temperature": 0.07},
        "report_encoding": "sentences",
    }
