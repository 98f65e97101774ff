"""Tensor mathematics on plain torch tensors; imports nothing else of medvl, nor monai, nor transformers."""

from medvl.functional.contrastive import image_text_contrastive_loss, soft_target_cross_entropy
from medvl.functional.retrieval import (
    chance_recall_at_k,
    mean_rank,
    median_rank,
    precision_at_k,
    ranks_from_scores,
    recall_at_k,
    retrieval_ranks,
)
from medvl.functional.similarity import unit_vectors

__all__ = [
    "chance_recall_at_k",
    "image_text_contrastive_loss",
    "mean_rank",
    "median_rank",
    "precision_at_k",
    "ranks_from_scores",
    "recall_at_k",
    "retrieval_ranks",
    "soft_target_cross_entropy",
    "unit_vectors",
]
