"""MedCLIP's architecture."""

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
def medclip() -> dict[str, Any]:
    """MedCLIP: a ResNet or Swin and a BERT, each with a linear projection without bias; learnable temperature from 0.07.

    Wang et al. 2022, "MedCLIP: Contrastive Learning from Unpaired Medical Images and Text",
    https://arxiv.org/abs/2210.10163. A text is the mean of hidden layers 1, 2 and last, then over its tokens (the released
    code averages over padding too; here only over the text). Both encoders have random weights unless an encoder with
    weights is given; :func:`medvl.networks.load_reference_weights` reads the published ones. It trains on sentences and
    prompts, so that a report is encoded by its sentences. The paper's other image encoder is
    ``image_encoder={"model_type": "swin", "num_channels": 3}``.

    Args:
        preset: "base" (ResNet-50, BERT-base) or "small" (a ResNet-10 of half width, a BERT of two layers of width 128 without
            dropout, which learns in minutes on a CPU).

    Example:
        >>> model = medclip("small", image_size=64, embed_dim=32)
        >>> round(1 / model.logit_scale().item(), 4), model.text_encoder.pooling
        (0.07, 'last_layers')
    """
    return {
        "image_projection": {"bias": False},
        "text_projection": {"bias": False},
        "logit_scale": {"temperature": 0.07},
        "report_encoding": "sentences",
    }
