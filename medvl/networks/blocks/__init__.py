"""Blocks that networks are made of."""

from __future__ import annotations

from medvl.networks.blocks.continuous_prompt import ContinuousPromptEmbedding
from medvl.networks.blocks.logit_scale import LogitScale
from medvl.networks.blocks.patch_decoder import PatchDecoder
from medvl.networks.blocks.patch_sentence_aligner import PatchSentenceAligner
from medvl.networks.blocks.projection import ProjectionHead, normalize_embeds
from medvl.networks.blocks.semantic_integrity import PatchContrastIntegrity, SemanticIntegrity

__all__ = [
    "ContinuousPromptEmbedding",
    "LogitScale",
    "PatchContrastIntegrity",
    "PatchDecoder",
    "PatchSentenceAligner",
    "ProjectionHead",
    "SemanticIntegrity",
    "normalize_embeds",
]
