"""The names of weights in published models, and the corresponding names in a dual encoder.

A layout is a list of rules ``(pattern, target)``; the first whose pattern matches the start of a name applies. ``target`` is
the prefix in the dual encoder, to which the rest of the name is appended; or :class:`Unused` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

IMAGE, TEXT = "image_encoder.backbone.", "text_encoder.model."
CONSTANT = "a constant that older versions of the library saved"
NO_POOLER = "a pooler that the embedding does not use"


@dataclass(frozen=True)
class Unused:
    """The reason why a weight is not used."""

    reason: str


Rules = list[tuple[str, str | Unused]]

CONSTANTS: Rules = [(r".*\.position_ids$", Unused(CONSTANT)), (r".*\.relative_position_index$", Unused(CONSTANT))]

# MedCLIP's ResNet-50 is torchvision's with the projection as its last layer; its Swin and BERT are Hugging Face's. The text
# embedding is the mean of three hidden layers, which do not pass through BERT's pooler.
MEDCLIP: Rules = [
    *CONSTANTS,
    (r"logit_scale$", "logit_scale.log_scale"),
    (r"vision_model\.model\.fc\.", "image_projection.0."),
    (r"vision_model\.projection_head\.", "image_projection.0."),
    (r"vision_model\.model\.", IMAGE),
    (r"text_model\.model\.pooler\.", Unused(NO_POOLER)),
    (r"text_model\.projection_head\.", "text_projection.0."),
    (r"text_model\.model\.", TEXT),
]

# open_clip with a timm image encoder and a Hugging Face text encoder, as BiomedCLIP.
OPEN_CLIP: Rules = [
    *CONSTANTS,
    (r"logit_scale$", "logit_scale.log_scale"),
    (r"visual\.head\.proj\.", "image_projection.0."),
    (r"visual\.trunk\.", IMAGE),
    (r"text\.proj\.(?=\d)", "text_projection."),
    (r"text\.proj\.", "text_projection.0."),
    (r"text\.transformer\.pooler\.", Unused(NO_POOLER)),
    (r"text\.transformer\.", TEXT),
]


def hugging_face(names: Collection[str]) -> Rules:
    """Rules for CLIPModel and VisionTextDualEncoderModel; a dense pooler becomes the first layer of a projection."""
    rules: Rules = [*CONSTANTS, (r"logit_scale$", "logit_scale.log_scale")]
    for module, projection, encoder in (
        ("vision_model", "visual_projection", IMAGE),
        ("text_model", "text_projection", TEXT),
    ):
        ours = "image_projection." if encoder == IMAGE else "text_projection."
        pooled = f"{module}.pooler.dense.weight" in names
        rules += [
            (rf"{module}\.pooler\.dense\.", f"{ours}0."),
            (rf"{projection}\.", f"{ours}{2 if pooled else 0}."),
            (rf"{module}\.", encoder),
        ]
    return rules


# From the names in timm's ViT to those in Hugging Face's files.
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

# From the names in Hugging Face's files to those of newer versions of transformers in memory.
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


def target_names(name: str, rules: Rules, model_names: Collection[str]) -> list[str] | Unused:
    """The model's names for a published weight: one, three for joined query, key and value weights, or the reason for none."""
    for pattern, target in rules:
        match = re.match(pattern, name)
        if match:
            if isinstance(target, Unused):
                return target
            rest = name[match.end() :]
            parts = _encoder_names(rest) if target in (IMAGE, TEXT) else [rest]
            found = [_existing_name(target, part, model_names) for part in parts]
            missing = [part for part, known in zip(parts, found, strict=True) if known is None]
            return Unused(f"the model has no {target}{missing[0]}") if missing else [known for known in found if known]
    return Unused("not a part of this layout")


def _encoder_names(rest: str) -> list[str]:
    for pattern, replacement in TIMM_VIT:
        renamed = re.sub(pattern, replacement, rest)
        if renamed != rest:
            return [renamed.replace(".qkv.", f".{part}.") for part in QKV] if ".qkv." in renamed else [renamed]
    return [rest]


def _existing_name(prefix: str, rest: str, model_names: Collection[str]) -> str | None:
    """The first possible name of a weight that exists in the model."""
    newer = rest
    for pattern, replacement in NEWER:
        newer = re.sub(pattern, replacement, newer)
    prefixes = (
        [f"{prefix}model.", prefix] if prefix == IMAGE else [prefix]
    )  # a Hugging Face model is inside the backbone
    return next((start + end for start in prefixes for end in (rest, newer) if start + end in model_names), None)
