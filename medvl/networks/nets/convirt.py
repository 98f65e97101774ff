"""ConVIRT's architecture."""

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
    "base": {"image": RESNET_BASE, "text": {"model": BERT_BASE, "pooling": "max"}},
    "small": {"image": RESNET_SMALL, "text": {"model": BERT_SMALL, "pooling": "max"}},
}


@dual_encoder_factory(PRESETS, DualEncoder)
def convirt() -> dict[str, Any]:
    """ConVIRT: a ResNet and a BERT, max-pooled over tokens, each with a two-layer projection; temperature fixed at 0.1.

    Zhang et al. 2022, "Contrastive Learning of Medical Visual Representations from Paired Images and Text",
    https://arxiv.org/abs/2010.00747. Both encoders have random weights unless an encoder with weights is given. The paper
    starts from ImageNet's ResNet-50 and ClinicalBERT, whose embeddings and first six layers it freezes
    (``model.text_encoder.freeze(6)``). It trains on sentences, so that a report is encoded by its sentences.

    Args:
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of one layer of width 128 without
            dropout, which learns in minutes on a CPU).

    Example:
        >>> model = convirt("small", image_size=64, embed_dim=32)
        >>> round(model.logit_scale().item(), 4)
        10.0
    """
    return {
        "image_projection": {"layers": 2},
        "text_projection": {"layers": 2},
        "logit_scale": {"temperature": 0.1, "learnable": False},
        "report_encoding": "sentences",
    }
