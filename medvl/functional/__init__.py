"""Tensor mathematics on plain torch tensors; imports nothing else of medvl, nor monai, nor transformers."""

from medvl.functional.contrastive import (
    image_text_contrastive_loss,
    image_text_label_contrastive_loss,
    semantic_matching_loss,
    soft_target_cross_entropy,
)
from medvl.functional.distributed import (
    gather_rows,
)
from medvl.functional.retrieval import (
    chance_recall_at_k,
    mean_rank,
    median_rank,
    precision_at_k,
    ranks_from_scores,
    recall_at_k,
    retrieval_ranks,
)
from medvl.functional.similarity import (
    label_similarity,
    semantic_targets,
    unit_vectors,
)

__all__ = [
    "chance_recall_at_k",
    "gather_rows",
    "image_text_contrastive_loss",
    "image_text_label_contrastive_loss",
    "label_similarity",
    "mean_rank",
    "median_rank",
    "precision_at_k",
    "ranks_from_scores",
    "recall_at_k",
    "retrieval_ranks",
    "semantic_matching_loss",
    "semantic_targets",
    "soft_target_cross_entropy",
    "unit_vectors",
]
