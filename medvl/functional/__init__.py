"""Tensor mathematics on plain torch tensors; imports neither monai nor transformers."""

from medvl.functional.alignment import (
    patch_sentence_matching_loss,
    patch_sentence_plan,
    patch_sentence_scores,
    semantic_integrity,
)
from medvl.functional.contrastive import (
    image_text_contrastive_loss,
    image_text_label_contrastive_loss,
    semantic_matching_loss,
)
from medvl.functional.grounding import (
    GROUNDING_THRESHOLDS,
    contrast_to_noise_ratio,
    iou_at_thresholds,
    mean_iou,
    pointing_game,
)
from medvl.functional.grouping import (
    group_by_id,
    mean_by_id,
)
from medvl.functional.masking import (
    gather_patches,
    masked_patch_loss,
    patchify,
    random_visible_patches,
    scatter_patches,
)
from medvl.functional.pooling import (
    masked_mean,
    segment_mean,
)
from medvl.functional.prompt_tokens import (
    insert_prompt_tokens,
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
from medvl.functional.sentence_matching import (
    semantic_sentence_loss,
    sentence_scores,
)
from medvl.functional.sigmoid import (
    sigmoid_contrastive_loss,
)
from medvl.functional.similarity import (
    l2_normalize,
    label_similarity,
    semantic_targets,
)
from medvl.functional.transport import (
    sinkhorn,
)
from medvl.functional.zero_shot import (
    class_embeddings,
    class_similarity,
    finding_margins,
)

__all__ = [
    "GROUNDING_THRESHOLDS",
    "chance_recall_at_k",
    "class_embeddings",
    "class_similarity",
    "contrast_to_noise_ratio",
    "finding_margins",
    "gather_patches",
    "group_by_id",
    "image_text_contrastive_loss",
    "image_text_label_contrastive_loss",
    "insert_prompt_tokens",
    "iou_at_thresholds",
    "l2_normalize",
    "label_similarity",
    "masked_mean",
    "masked_patch_loss",
    "mean_by_id",
    "mean_iou",
    "mean_rank",
    "median_rank",
    "patch_sentence_matching_loss",
    "patch_sentence_plan",
    "patch_sentence_scores",
    "patchify",
    "pointing_game",
    "precision_at_k",
    "random_visible_patches",
    "ranks_from_scores",
    "recall_at_k",
    "retrieval_ranks",
    "scatter_patches",
    "segment_mean",
    "semantic_integrity",
    "semantic_matching_loss",
    "semantic_sentence_loss",
    "semantic_targets",
    "sentence_scores",
    "sigmoid_contrastive_loss",
    "sinkhorn",
]
