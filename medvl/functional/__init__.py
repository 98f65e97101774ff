"""Tensor mathematics on plain torch tensors; imports nothing else of medvl, nor monai, nor transformers."""

from medvl.functional.retrieval import (
    chance_recall_at_k,
    mean_rank,
    median_rank,
    precision_at_k,
    ranks_from_scores,
    recall_at_k,
    retrieval_ranks,
)

__all__ = [
    "chance_recall_at_k",
    "mean_rank",
    "median_rank",
    "precision_at_k",
    "ranks_from_scores",
    "recall_at_k",
    "retrieval_ranks",
]
