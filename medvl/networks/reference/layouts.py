"""The names of weights in published models, and the corresponding names in a dual encoder.

A layout is a list of rules ``(pattern, target)``; the first whose pattern matches the start of a name applies. ``target`` is
the prefix in the dual encoder, to which the rest of the name is appended; or :class:`Unused` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medvl.networks.encoders.published.names import NEWER, OLD_NORM, QKV, TIMM_VIT, Renames, rename
from medvl.networks.encoders.weight_files import read_weights

IMAGE, TEXT = "image_encoder.backbone.", "text_encoder.model."
CONSTANT = "a constant that older versions of the library saved"
NO_POOLER = "a pooler that the embedding does not use"
NO_LOCAL = "a projection of patches or words, which the model lacks (local_projections)"
TRAINING = "a part of the training that no embedding uses"
EARLIER_IMAGE = "a comparison with an earlier image, which is not given"
HARMLESS = (CONSTANT, NO_POOLER, NO_LOCAL, TRAINING, EARLIER_IMAGE)
"""The reasons for which a weight may be unused without an error."""
LOCAL = ("patch_projection.", "sentence_projection.")


@dataclass(frozen=True)
class Unused:
    """The reason why a weight is not used."""

    reason: str


Rules = list[tuple[str, str | Unused]]
Weights = dict[str, Tensor]
Completion = tuple[str, Callable[[Tensor], "Tensor | None"], "str | None"]


def _unchanged(weights: Weights, adapted: list[str]) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Layout:
    """How a published model's weights are read into a dual encoder.

    Args:
        rules: from the published names to the rules.
        names: from the names of the published encoders to those of Hugging Face's files or the backbone's.
        read: from a path to the published weights.
        prepare: changes published weights in place before the rules apply, adds what it did to a list of sentences, and
            returns the names that became part of another weight, with its name.
        complete: what the published model does without a weight of its own: the name in the dual encoder, the value from the
            dual encoder's own, None if there is none, and the sentence that says so, None for none.
    """

    rules: Callable[[Collection[str]], Rules]
    names: Renames = TIMM_VIT
    read: Callable[[str | Path], Weights] = read_weights
    prepare: Callable[[Weights, list[str]], dict[str, str]] = _unchanged
    complete: tuple[Completion, ...] = ()


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
    """Rules for CLIPModel, SiglipModel and VisionTextDualEncoderModel.

    A dense pooler becomes the first layer of a projection, and SigLIP's head of the text encoder the projection.
    """
    rules: Rules = [*CONSTANTS, (r"logit_scale$", "logit_scale.log_scale")]
    if "logit_bias" in names:
        rules += [(r"logit_bias$", "logit_bias"), (r"text_model\.head\.", "text_projection.0.")]
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


# OpenAI's CLIP and what is trained with its code, such as CheXzero. The vision encoder is under "visual.", the text encoder's
# parts have no prefix of their own.
OPENAI_CLIP: Rules = [
    (r"(?:input_resolution|context_length|vocab_size)$", Unused(CONSTANT)),
    (r"logit_scale$", "logit_scale.log_scale"),
    (r"visual\.proj$", "image_projection.0.weight"),
    (r"text_projection$", "text_projection.0.weight"),
    (r"visual\.", IMAGE),
    (r"(?=transformer\.|token_embedding\.|positional_embedding$|ln_final\.)", TEXT),
]

# From the names in OpenAI's encoders to those of Hugging Face's CLIP.
OPENAI: Renames = (
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^ln_final\.", "final_layer_norm."),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.attn\.in_proj_", ".self_attn.qkv_proj."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def prepare_openai(weights: Weights, adapted: list[str]) -> dict[str, str]:
    """Transpose the projections, which are matrices themselves and not of linear layers: their rows are the inputs."""
    for name in ("visual.proj", "text_projection"):
        if name in weights:
            weights[name] = weights[name].T
    return {}


def prepare_hugging_face(weights: Weights, adapted: list[str]) -> dict[str, str]:
    """Add the identity as the projection of images that SigLIP has not."""
    norm = weights.get("vision_model.post_layernorm.weight")
    if "logit_bias" in weights and norm is not None and "visual_projection.weight" not in weights:
        weights["visual_projection.weight"] = torch.eye(len(norm))
        adapted.append("the projection of images is the identity, as the model has none")
    return {}


def target_names(
    name: str, rules: Rules, model_names: Collection[str], encoder_names: Renames = TIMM_VIT
) -> list[str] | Unused:
    """The model's names for a published weight: one, three for joined query, key and value weights, or the reason for none."""
    for pattern, target in rules:
        match = re.match(pattern, name)
        if match:
            if isinstance(target, Unused):
                return target
            rest = name[match.end() :]
            parts = _encoder_names(rest, encoder_names) if target in (IMAGE, TEXT) else [rest]
            found = [_existing_name(target, part, model_names) for part in parts]
            missing = [part for part, known in zip(parts, found, strict=True) if known is None]
            if missing and target.startswith(LOCAL) and not any(name.startswith(LOCAL) for name in model_names):
                return Unused(NO_LOCAL)
            return Unused(f"the model has no {target}{missing[0]}") if missing else [known for known in found if known]
    return Unused("not a part of this layout")


def _encoder_names(rest: str, table: Renames) -> list[str]:
    renamed = rename(rest, table)
    if ".qkv_proj." in renamed:
        return [renamed.replace(".qkv_proj.", f".{part[0]}_proj.") for part in QKV]
    return [renamed.replace(".qkv.", f".{part}.") for part in QKV] if ".qkv." in renamed else [renamed]


def _existing_name(prefix: str, rest: str, model_names: Collection[str]) -> str | None:
    """The first possible name of a weight that exists in the model."""
    rest = rename(rest, OLD_NORM)
    newer = rename(rest, NEWER)
    prefixes = (
        [f"{prefix}model.", prefix] if prefix == IMAGE else [prefix]
    )  # a Hugging Face model is inside the backbone
    return next((start + end for start in prefixes for end in (rest, newer) if start + end in model_names), None)
