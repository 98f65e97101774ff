"""Which image goes with which text, and how much, for any block of an (N, M) matrix without storing the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medvl.functional._sides import Side
from medvl.functional.similarity import SIMILARITIES, Similarity, l2_normalize, label_pair, label_similarity
from medvl.utils.checks import check_option, check_positive
from medvl.utils.tensors import as_labels, check_same

LABEL_AGREEMENTS = ("exact", "overlap", "soft")

ALL = slice(None)


@dataclass(frozen=True)
class LogTargets:
    """Logarithms of target weights: 0 and -inf for positives and negatives, similarity / temperature for soft ones.

    Args:
        block: gives the (n, m) log weights of a slice of images and a slice of texts.
        bound: no finite log weight is above it, nor below its negative; infinite where not known.
    """

    block: Callable[[slice, slice], Tensor]
    bound: float


def id_targets(images: Side, texts: Side) -> LogTargets:
    """Positives are equal ids."""
    if images.ids is None or texts.ids is None:
        raise ValueError("image_ids and text_ids are needed, or labels of both sides; got neither")
    image_ids, text_ids, dtype = images.ids, texts.ids, images.embeds.dtype

    def block(rows: slice, columns: slice) -> Tensor:
        return _log_mask(image_ids[rows, None] == text_ids[columns], dtype)

    return LogTargets(block, bound=0.0)


def similarity_targets(images: Side, texts: Side, similarity: Similarity, temperature: float) -> LogTargets:
    """Softmax targets of label similarity."""
    check_positive(temperature, "target_temperature")
    if not callable(similarity):
        check_option(similarity, "similarity", SIMILARITIES)
    image_labels, text_labels = label_pair(images.labels, texts.labels)
    kind = similarity
    if similarity == "cosine":
        # Scaled once here rather than for every block.
        image_labels, text_labels, kind = l2_normalize(image_labels), l2_normalize(text_labels), "dot"

    def block(rows: slice, columns: slice) -> Tensor:
        return (
            label_similarity(image_labels[rows], text_labels[columns], kind).div_(temperature).to(images.embeds.dtype)
        )

    return LogTargets(block, bound=1 / temperature if similarity in ("cosine", "jaccard") else torch.inf)


def match_targets(images: Side, texts: Side, label_agreement: str) -> LogTargets:
    """Positives are equal ids, and elsewhere labels that agree."""
    check_option(label_agreement, "label_agreement", LABEL_AGREEMENTS)
    if images.labels is None or texts.labels is None:
        return id_targets(images, texts)
    agreement = _agreement(images.labels, texts.labels, label_agreement)
    image_ids, text_ids, dtype = images.ids, texts.ids, images.embeds.dtype

    def block(rows: slice, columns: slice) -> Tensor:
        weights = agreement(rows, columns)
        if image_ids is not None and text_ids is not None:
            weights.masked_fill_(image_ids[rows, None] == text_ids[columns], 1)
        return _log_mask(weights, dtype) if weights.dtype == torch.bool else weights.to(dtype).log_()

    return LogTargets(block, bound=0.0)


def _log_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _agreement(image_labels: Tensor, text_labels: Tensor, label_agreement: str) -> Callable[[slice, slice], Tensor]:
    """Label agreement by block: a mask for "exact" and "overlap", numbers in [0, 1] for "soft"."""
    if label_agreement == "exact":
        image_groups, text_groups = _label_groups(image_labels, text_labels)
        return lambda images, texts: image_groups[images, None] == text_groups[texts]
    images_known, texts_known = label_pair(image_labels, text_labels)
    if label_agreement == "overlap":
        images_known, texts_known = (images_known > 0).float(), (texts_known > 0).float()
        return lambda images, texts: images_known[images] @ texts_known[texts].T > 0.5
    images_known, texts_known = l2_normalize(images_known), l2_normalize(texts_known)
    return lambda images, texts: (images_known[images] @ texts_known[texts].T).clamp_(0, 1)


def _label_groups(image_labels: Tensor, text_labels: Tensor) -> tuple[Tensor, Tensor]:
    """A number for every distinct label vector, a finding that is not known being a state of its own.

    Vectors without any known finding get numbers that equal nothing: to know nothing of two studies is no agreement.
    """
    image_labels, text_labels = as_labels(image_labels, "image_labels"), as_labels(text_labels, "text_labels")
    check_same(image_labels, text_labels, 1, ("image_labels", "text_labels"), "width K")
    labels = torch.cat([image_labels.double(), text_labels.double()])
    unknown = labels.isnan()
    groups = labels.masked_fill(unknown, torch.finfo(labels.dtype).max).unique(dim=0, return_inverse=True)[1]
    images, texts = groups.split([len(image_labels), len(text_labels)])
    nothing_known = unknown.all(1)
    return images.masked_fill(nothing_known[: len(images)], -1), texts.masked_fill(nothing_known[len(images) :], -2)
