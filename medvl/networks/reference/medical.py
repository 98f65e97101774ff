"""The layouts of published medical models: GLoRIA, MGCA, BioViL and BioViL-T, CXR-CLIP, CT-CLIP.

Names, shapes and operations are those of the authors' public code.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from medvl.networks.encoders.published.names import Renames
from medvl.networks.encoders.weight_files import read_weights
from medvl.networks.reference.folding import flatten_convolutions, fold_batch_norm, identity, zeros
from medvl.networks.reference.layouts import (
    CONSTANTS,
    EARLIER_IMAGE,
    IMAGE,
    NO_POOLER,
    TEXT,
    TRAINING,
    Completion,
    Layout,
    Rules,
    Unused,
    Weights,
)
from medvl.utils.checks import error_message

FOLDED = "batch norm of the projections folded into their linear layers, as it is in evaluation"
NO_PROJECTION = "a projection is the identity, as the published model has none"
LOG_SCALE = "logit_scale.log_scale"

# A ResNet of torchvision, whose third stage is projected for the patches, and a BERT without a projection. A checkpoint of
# PyTorch Lightning has "gloria." before every name.
_GLORIA_RULES: Rules = [
    *CONSTANTS,
    (r"(?:gloria\.)?img_encoder\.model\.", IMAGE),
    (r"(?:gloria\.)?img_encoder\.global_embedder\.", "image_projection.0."),
    (r"(?:gloria\.)?img_encoder\.local_embedder\.", "patch_projection.0."),
    (r"(?:gloria\.)?text_encoder\.model\.pooler\.", Unused(NO_POOLER)),
    (r"(?:gloria\.)?text_encoder\.model\.", TEXT),
]


def _prepare_gloria(weights: Weights, adapted: list[str]) -> dict[str, str]:
    flatten_convolutions(weights, ("gloria.img_encoder.local_embedder.", "img_encoder.local_embedder."))
    return {}


def _log_scale(scale: float) -> Completion:
    """The scale of the logits that is not a weight of the published model."""

    def value(own: Tensor) -> Tensor:
        return torch.full_like(own, math.log(scale))

    return LOG_SCALE, value, f"the scale of the logits is {scale:.6g}, which is no weight of the published model"


GLORIA = Layout(
    lambda names: _GLORIA_RULES,
    prepare=_prepare_gloria,
    complete=(
        ("text_projection.0.weight", identity, NO_PROJECTION),
        ("sentence_projection.0.weight", identity, NO_PROJECTION),
        ("patch_projection.0.bias", zeros, None),
        _log_scale(10.0),
    ),
)

# A ResNet as in GLoRIA or a ViT of timm, and six layers of a BERT with unused cross-attention. The projections have batch norm.
_MGCA_RULES: Rules = [
    *CONSTANTS,
    (r"text_encoder_q\.model\.encoder\.layer\.\d+\.crossattention\.", Unused(TRAINING)),
    (r"(?:patch_local_atten_layer|word_local_atten_layer|prototype_layer)\.", Unused(TRAINING)),
    (r"img_encoder_q\.global_embed\.head\.0\.", "image_projection.0."),
    (r"img_encoder_q\.global_embed\.head\.3\.", "image_projection.2."),
    (r"img_encoder_q\.local_embed\.head\.0\.", "patch_projection.0."),
    (r"img_encoder_q\.local_embed\.head\.3\.", "patch_projection.2."),
    (r"img_encoder_q\.model\.", IMAGE),
    (r"text_encoder_q\.global_embed\.head\.0\.", "text_projection.0."),
    (r"text_encoder_q\.global_embed\.head\.3\.", "text_projection.2."),
    (r"text_encoder_q\.local_embed\.head\.0\.", "sentence_projection.0."),
    (r"text_encoder_q\.local_embed\.head\.3\.", "sentence_projection.2."),
    (r"text_encoder_q\.model\.pooler\.", Unused(NO_POOLER)),
    (r"text_encoder_q\.model\.", TEXT),
]


def _prepare_mgca(weights: Weights, adapted: list[str]) -> dict[str, str]:
    folded: dict[str, str] = {}
    for side in ("img_encoder_q", "text_encoder_q"):
        for part in ("global_embed", "local_embed"):
            head = f"{side}.{part}.head."
            flatten_convolutions(weights, (head,))
            folded |= fold_batch_norm(weights, f"{head}0.", f"{head}1.")
            folded |= fold_batch_norm(weights, f"{head}3.", f"{head}4.")
    if folded:
        adapted.append(FOLDED)
    name = "text_encoder_q.model.embeddings.position_embeddings.weight"
    if name in weights:
        # The released code gives the token types, all 0, to an argument that takes positions.
        weights[name] = weights[name][:1].expand_as(weights[name])
        adapted.append("every token has the first position, as in the released code")
    return folded


MGCA = Layout(
    lambda names: _MGCA_RULES,
    prepare=_prepare_mgca,
    complete=(
        (
            f"{TEXT}embeddings.token_type_embeddings.weight",
            zeros,
            "token types are zero, as the published model has none",
        ),
        _log_scale(1 / 0.07),
    ),
)

# BioViL and BioViL-T: a ResNet-50 with a projection of its cells, in a file beside the text model CXR-BERT.
_BIOVIL_RULES: Rules = [
    *CONSTANTS,
    (r"encoder\.encoder\.fc\.", Unused(TRAINING)),
    (r"encoder\.encoder\.", IMAGE),
    (r"encoder\.vit_pooler\.", Unused(EARLIER_IMAGE)),
    (r"projector\.model\.0\.", "image_projection.0."),
    (r"projector\.model\.3\.", "image_projection.2."),
    (r"bert\.pooler\.", Unused(NO_POOLER)),
    (r"bert\.", TEXT),
    (r"cls_projection_head\.dense_to_hidden\.", "text_projection.0."),
    (r"cls_projection_head\.LayerNorm\.", "text_projection.2."),
    (r"cls_projection_head\.dense_to_output\.", "text_projection.3."),
    (r"cls\.", Unused(TRAINING)),
]
_BIOVIL_IMAGE_FILES = "biovil*_image_*.pt"


def _read_biovil(path: str | Path) -> Weights:
    """The weights of the text model in a folder and of the image model in a file of it."""
    path = Path(path).expanduser()
    files = sorted(path.glob(_BIOVIL_IMAGE_FILES)) if path.is_dir() else []
    if len(files) != 1:
        expected = f"be a folder with the text model and one file {_BIOVIL_IMAGE_FILES} of the image model"
        raise ValueError(error_message("path", expected, f"{len(files)} such files in {path}"))
    return {**read_weights(path), **read_weights(files[0])}


def _prepare_biovil(weights: Weights, adapted: list[str]) -> dict[str, str]:
    folded: dict[str, str] = {}
    linear = "projector.model.0."
    flatten_convolutions(weights, ("projector.", "encoder.backbone_to_vit."))
    reduction, absent = (weights.pop(f"encoder.{name}", None) for name in _TEMPORAL)
    weight = weights.get(f"{linear}weight")
    if reduction is not None and absent is not None and weight is not None:
        # A cell is reduced and joined by a constant where there is no earlier image; the projection of both is linear.
        weights[f"{linear}weight"] = weight[:, : len(reduction)] @ reduction
        weights[f"{linear}bias"] = weight[:, len(reduction) :] @ absent.flatten()
        folded |= {f"encoder.{name}": f"{linear}weight" for name in _TEMPORAL}
        adapted.append(
            "an image without an earlier one: its reduction and the constant in place of a comparison folded"
        )
    normed = fold_batch_norm(weights, linear, "projector.model.1.")
    if normed:
        adapted.append(FOLDED)
    return folded | normed


_TEMPORAL = ("backbone_to_vit.weight", "missing_previous_emb")
BIOVIL = Layout(
    lambda names: _BIOVIL_RULES,
    read=_read_biovil,
    prepare=_prepare_biovil,
    complete=((LOG_SCALE, torch.clone, "the scale of the logits is the model's own, as none was published"),),
)

# A ResNet of torchvision or a Hugging Face Swin or ViT, and a BERT, with linear projections.
CXR_CLIP = Layout(
    lambda names: [
        *CONSTANTS,
        (r"logit_scale$", LOG_SCALE),
        (r"image_encoder\.(?:resnet|image_encoder)\.", IMAGE),
        (r"image_projection\.projection\.", "image_projection.0."),
        (r"text_projection\.projection\.", "text_projection.0."),
        (r"text_encoder\.text_encoder\.pooler\.", Unused(NO_POOLER)),
        (r"text_encoder\.text_encoder\.", TEXT),
    ]
)

# From the names in CT-ViT to those of the backbone here.
_CT_VIT: Renames = (
    (r"^to_patch_emb\.1\.", "patch_embedding.0."),
    (r"^to_patch_emb\.2\.", "patch_embedding.1."),
    (r"^to_patch_emb\.3\.", "patch_embedding.2."),
    (r"^spatial_rel_pos_bias\.net\.0\.0\.", "position_bias.network.0."),
    (r"^spatial_rel_pos_bias\.net\.1\.0\.", "position_bias.network.2."),
    (r"^spatial_rel_pos_bias\.net\.2\.", "position_bias.network.4."),
    (r"^vq\._codebook\.embed$", "codebook"),
    (r"^enc_spatial_transformer\.", "slab_transformer."),
    (r"^enc_temporal_transformer\.", "depth_transformer."),
    (r"\.norm_out\.gamma$", ".norm.weight"),
    (r"\.norm_out\.beta$", ".norm.bias"),
    (r"\.0\.dsconv\.", ".position."),
    (r"\.1\.norm\.gamma$", ".norm.weight"),
    (r"\.1\.norm\.beta$", ".norm.bias"),
    (r"\.1\.to_q\.", ".query."),
    (r"\.1\.to_kv\.", ".key_value."),
    (r"\.1\.q_scale$", ".query_scale"),
    (r"\.1\.k_scale$", ".key_scale"),
    (r"\.1\.to_out\.", ".output."),
    (r"\.3\.0\.", ".mlp_norm."),
    (r"\.3\.1\.", ".gate."),
    (r"\.3\.4\.", ".mlp_output."),
)
_CT_CLIP_RULES: Rules = [
    *CONSTANTS,
    (r"temperature$", LOG_SCALE),
    (r"to_text_latent\.", "text_projection.0."),
    (r"to_visual_latent\.", "image_projection.0."),
    (r"to_(?:text|visual)_latent_extra\.", Unused(TRAINING)),
    (r"text_transformer\.pooler\.", Unused(NO_POOLER)),
    (r"text_transformer\.", TEXT),
    (
        r"visual_transformer\.(?:to_patch_emb_first_frame|to_pixels|to_pixels_first_frame|dec_\w+|discr|vgg)\.",
        Unused(TRAINING),
    ),
    (r"visual_transformer\.vq\._codebook\.(?!embed$)", Unused(TRAINING)),
    (r"visual_transformer\.enc_\w+\.layers\.\d+\.1\.(?:context_norm\.|null_kv$)", Unused(TRAINING)),
    (r"visual_transformer\.", IMAGE),
]


def _prepare_ct_clip(weights: Weights, adapted: list[str]) -> dict[str, str]:
    name = "visual_transformer.vq._codebook.embed"
    if name in weights and weights[name].ndim == 3:
        weights[name] = weights[name][0]
    return {}


CT_CLIP = Layout(lambda names: _CT_CLIP_RULES, names=_CT_VIT, prepare=_prepare_ct_clip)
