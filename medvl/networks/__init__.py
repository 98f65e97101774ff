"""Encoders, blocks and dual encoders."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.networks", "monai")

from medvl.networks.blocks import (
    ContinuousPromptEmbedding,
    LogitScale,
    PatchContrastIntegrity,
    PatchDecoder,
    PatchSentenceAligner,
    ProjectionHead,
    SemanticIntegrity,
)
from medvl.networks.encoders import ImageEncoder, TextEncoder, load_tokenizer
from medvl.networks.export import export_encoders
from medvl.networks.nets import (
    DualEncoder,
    MaskedDualEncoder,
    PooledViews,
    TextProcessor,
    convirt,
    medclip,
    mlip,
    umcl,
)
from medvl.networks.reference import LoadReport, load_reference_weights

__all__ = [
    "ContinuousPromptEmbedding",
    "DualEncoder",
    "ImageEncoder",
    "LoadReport",
    "LogitScale",
    "MaskedDualEncoder",
    "PatchContrastIntegrity",
    "PatchDecoder",
    "PatchSentenceAligner",
    "PooledViews",
    "ProjectionHead",
    "SemanticIntegrity",
    "TextEncoder",
    "TextProcessor",
    "convirt",
    "export_encoders",
    "load_reference_weights",
    "load_tokenizer",
    "medclip",
    "mlip",
    "umcl",
]
