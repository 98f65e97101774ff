"""The names of weights in published vision models, and the corresponding ones of Hugging Face's and MONAI's models.

Tables of patterns and replacements; a name is changed by all patterns of a table, in turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Renames = Sequence[tuple[str, str]]

# From the names in timm's ViT to those in Hugging Face's files.
TIMM_VIT: Renames = (
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
NEWER: Renames = (
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
# From the names of BERT's files from before 2019.
OLD_NORM: Renames = ((r"\bLayerNorm\.gamma$", "LayerNorm.weight"), (r"\bLayerNorm\.beta$", "LayerNorm.bias"))
QKV = ("query", "key", "value")

# From torchvision's ViT to timm's.
TORCHVISION_VIT: Renames = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
)

# From timm's ViT to MONAI's.
MONAI_VIT: Renames = (
    (r"^pos_embed$", "patch_embedding.position_embeddings"),
    (r"^patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
)

# From torchvision's Swin, whose merging has odd numbers between the stages, to the names of the Swin that Microsoft published.
TORCHVISION_SWIN: Renames = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    *((rf"^features\.{2 * stage + 1}\.(\d+)\.", rf"layers.{stage}.blocks.\1.") for stage in range(4)),
    *((rf"^features\.{2 * stage + 2}\.", f"layers.{stage}.downsample.") for stage in range(3)),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)

# From Microsoft's Swin to Hugging Face's files.
SWIN: Renames = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.", "encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.relative_position_bias_table$", ".attention.self.relative_position_bias_table"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.qkv\.", ".attention.self.qkv."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^norm\.", "layernorm."),
)

# From torchvision's and timm's ConvNeXt to the names of the ConvNeXt that Facebook published.
TORCHVISION_CONVNEXT: Renames = (
    (r"^features\.0\.", "downsample_layers.0."),
    *((rf"^features\.{2 * stage}\.", f"downsample_layers.{stage}.") for stage in range(1, 4)),
    *((rf"^features\.{2 * stage + 1}\.(\d+)\.", rf"stages.{stage}.\1.") for stage in range(4)),
    (r"\.block\.0\.", ".dwconv."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".pwconv1."),
    (r"\.block\.5\.", ".pwconv2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "norm."),
)
TIMM_CONVNEXT: Renames = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc1\.", ".pwconv1."),
    (r"\.mlp\.fc2\.", ".pwconv2."),
    (r"^head\.norm\.", "norm."),
)

# From Facebook's ConvNeXt to Hugging Face's.
CONVNEXT: Renames = (
    (r"^downsample_layers\.0\.0\.", "embeddings.patch_embeddings."),
    (r"^downsample_layers\.0\.1\.", "embeddings.layernorm."),
    (r"^downsample_layers\.(\d+)\.", r"encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d+)\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"(?<=\d)\.norm\.", ".layernorm."),
    (r"\.gamma$", ".layer_scale_parameter"),
    (r"^norm\.", "layernorm."),
)


def rename(name: str, *tables: Renames) -> str:
    """A name after the tables, in turn.

    Example:
        >>> rename("encoder.layers.encoder_layer_3.ln_1.weight", TORCHVISION_VIT, TIMM_VIT)
        'encoder.layer.3.layernorm_before.weight'
    """
    for table in tables:
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
    return name
