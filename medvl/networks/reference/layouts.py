"""How published models name their weights, and where each belongs in a dual encoder.

A layout is a list of rules ``(pattern, place)``; the first whose pattern matches the start of a name applies. ``place`` is the
start of our name, to which the rest of the name is added; or a :class:`Left`, the reason why the weight has no place.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

IMAGE, TEXT = "image_encoder.backbone.", "text_encoder.model."
CONSTANT = "a constant that older versions saved"
NO_POOLER = "a pooler that the model's embedding does not pass through"


@dataclass(frozen=True)
class Left:
    """Why a weight is left."""

    reason: str


Rules = list[tuple[str, str | Left]]

CONSTANTS: Rules = [(r".*\.position_ids$", Left(CONSTANT)), (r".*\.relative_position_index$", Left(CONSTANT))]

# MedCLIP's ResNet-50 is torchvision's with the projection as its last layer; its Swin and BERT are Hugging Face's. The text
# embedding is the mean of three hidden layers, which do not pass through BERT's pooler.
MEDCLIP: Rules = [
    *CONSTANTS,
    (r"logit_scale$", "logit_scale.log_scale"),
    (r"vision_model\.model\.fc\.", "image_projection.0."),
    (r"vision_model\.projection_head\.", "image_projection.0."),
    (r"vision_model\.model\.", IMAGE),
    (r"text_model\.model\.pooler\.", Left(NO_POOLER)),
    (r"text_model\.projection_head\.", "text_projection.0."),
    (r"text_model\.model\.", TEXT),
]

# open_clip with a timm image tower and a Hugging Face text tower, as BiomedCLIP.
OPEN_CLIP: Rules = [
    *CONSTANTS,
    (r"logit_scale$", "logit_scale.log_scale"),
    (r"visual\.head\.proj\.", "image_projection.0."),
    (r"visual\.trunk\.", IMAGE),
    (r"text\.proj\.(?=\d)", "text_projection."),
    (r"text\.proj\.", "text_projection.0."),
    (r"text\.transformer\.pooler\.", Left(NO_POOLER)),
    (r"text\.transformer\.", TEXT),
]


def hugging_face(names: Collection[str]) -> Rules:
    """CLIPModel's and VisionTextDualEncoderModel's rules; a dense pooler becomes the first layer of a projection."""
    rules: Rules = [*CONSTANTS, (r"logit_scale$", "logit_scale.log_scale")]
    for tower, projection, encoder in (
        ("vision_model", "visual_projection", IMAGE),
        ("text_model", "text_projection", TEXT),
    ):
        ours = "image_projection." if encoder == IMAGE else "text_projection."
        pooled = f"{tower}.pooler.dense.weight" in names
        rules += [
            (rf"{tower}\.pooler\.dense\.", f"{ours}0."),
            (rf"{projection}\.", f"{ours}{2 if pooled else 0}."),
            (rf"{tower}\.", encoder),
        ]
    return rules


# From timm's names of a ViT to those that Hugging Face's files have.
TIMM_VIT = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layer.\1.attention.attention.qkv."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^norm\.", "layernorm."),
)

# From the names in Hugging Face's files to those that newer versions have in memory.
NEWER = (
    (r"^(?:vision|text)_model\.", ""),
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.(?:attention|self)\.query\.", "attention.q_proj."),
    (r"attention\.(?:attention|self)\.key\.", "attention.k_proj."),
    (r"attention\.(?:attention|self)\.value\.", "attention.v_proj."),
    (r"attention\.self\.relative_position", "attention.relative_position_bias.relative_position"),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(?<!attention\.)output\.dense\.", "mlp.fc2."),
)
QKV = ("query", "key", "value")


def places(name: str, rules: Rules, ours: Collection[str]) -> list[str] | Left:
    """Where a published weight belongs: our name, three of them for the joined weights of query, key and value, or none."""
    for pattern, place in rules:
        match = re.match(pattern, name)
        if match:
            if isinstance(place, Left):
                return place
            rest = name[match.end() :]
            parts = _tower_names(rest) if place in (IMAGE, TEXT) else [rest]
            found = [_known(place, part, ours) for part in parts]
            missing = [part for part, known in zip(parts, found, strict=True) if known is None]
            return Left(f"the model has no {place}{missing[0]}") if missing else [known for known in found if known]
    return Left("no part of this layout")


def _tower_names(rest: str) -> list[str]:
    for pattern, replacement in TIMM_VIT:
        renamed = re.sub(pattern, replacement, rest)
        if renamed != rest:
            return [renamed.replace(".qkv.", f".{part}.") for part in QKV] if ".qkv." in renamed else [renamed]
    return [rest]


def _known(place: str, rest: str, ours: Collection[str]) -> str | None:
    """The first of a weight's possible names that the model has."""
    newer = rest
    for pattern, replacement in NEWER:
        newer = re.sub(pattern, replacement, newer)
    inner = [place + "model.", place] if place == IMAGE else [place]  # a Hugging Face model lies in its backbone
    return next((start + end for start in inner for end in (rest, newer) if start + end in ours), None)
