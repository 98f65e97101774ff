"""Encoders, blocks and dual encoders."""

from __future__ import annotations

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
from medvl.networks.nets import DualEncoder, convirt, medclip, mlip, umcl

__all__ = [
    "ContinuousPromptEmbedding",
    "DualEncoder",
    "ImageEncoder",
    "LogitScale",
    "PatchContrastIntegrity",
    "PatchDecoder",
    "PatchSentenceAligner",
    "ProjectionHead",
    "SemanticIntegrity",
    "TextEncoder",
    "convirt",
    "load_tokenizer",
    "medclip",
    "mlip",
    "umcl",
]
