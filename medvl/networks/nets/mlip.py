"""MLIP's architecture."""

from __future__ import annotations

from typing import Any

from medvl.networks.nets.factory import BERT_BASE, BERT_SMALL, RESNET_SMALL, Preset, dual_encoder_factory
from medvl.networks.nets.masked_dual_encoder import MaskedDualEncoder

PRESETS: dict[str, Preset] = {
    "base": {
        "image": {"backbone": "vit_base", "patch_size": 16},
        "text": {"model": BERT_BASE, "pooling": "last_layers"},
        "model": {"patch_decoder": {"features": 512, "num_layers": 4, "num_heads": 8}},
    },
    "small": {
        # Batch norm: a group norm's statistics are of the whole image and tell every cell what is anywhere in it, so that any
        # cell can stand for a sentence.
        "image": RESNET_SMALL,
        "text": {"model": {**BERT_SMALL, "num_hidden_layers": 2}, "pooling": "last_layers"},
        "model": {"patch_decoder": {"features": 128, "num_layers": 1, "num_heads": 4}},
    },
}


@dual_encoder_factory(PRESETS, MaskedDualEncoder)
def mlip() -> dict[str, Any]:
    """MLIP: an image encoder that sees some patches, a decoder of the others, and projections of patches and sentences.

    Liu et al. 2024, "MLIP: Medical Language-Image Pre-training with Masked Local Representation Learning",
    https://arxiv.org/abs/2401.01591, publishes no code: what it describes is built from our parts, with sizes of ours. The
    visible patches come as ``visible_indices`` (drawn by :class:`medvl.transforms.RandMaskPatches`); the weights of masked
    images are their semantic integrity by the report. Both encoders have random weights unless an encoder with weights is
    given. For an image encoder other than a ViT or a ResNet give ``patch_decoder=None, semantic_integrity=None``, and mask
    nothing.

    Args:
        preset: "base" (ViT-B/16, BERT-base) or "small" (a ResNet-10 of half width with patches of 8 pixels, a BERT of
            two layers of width 128 without dropout, which learns in minutes on a CPU: a ViT from random weights needs more).

    Example:
        >>> import torch
        >>> model = mlip("small", image_size=32, embed_dim=8)
        >>> tokens = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "sentence_ids": torch.tensor([[-1, 0, 1, -1]])}
        >>> output = model(torch.rand(1, 1, 32, 32), visible_indices=torch.tensor([[0, 3]]), **tokens)
        >>> output["patch_embeds"].shape, output["sentence_embeds"].shape, output["patch_prediction"].shape
        (torch.Size([1, 16, 8]), torch.Size([1, 2, 8]), torch.Size([1, 16, 64]))
    """
    return {
        "local_projections": True,
        "logit_scale": {"temperature": 0.07},
        "report_encoding": "sentences",
        "semantic_integrity": "report",
    }
