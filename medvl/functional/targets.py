"""Which image goes with which text, and how much, for any block of an (N, M) matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import threshold

from medvl.functional.batch import Batch, Pair
from medvl.functional.similarity import SIMILARITIES, Similarity, known_labels, l2_normalize, label_similarity
from medvl.utils.checks import check_option, check_positive, error_message
from medvl.utils.tensors import as_labels, check_same_size, wide_dtype

LABEL_AGREEMENTS = ("exact", "overlap", "soft")

ALL = slice(None)

Block: TypeAlias = Callable[[slice, slice], Tensor]


def sum_to_one(weights: Tensor, axis: int) -> Tensor:
    """Non-negative weights (N, M) over their sum along an axis; 0 where the sum is 0.

    Example:
        >>> sum_to_one(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), 1).tolist()
        [[0.25, 0.75], [0.0, 0.0]]
    """
    return weights / weights.sum(axis, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


@dataclass(frozen=True)
class LogTargets:
    """Logarithms of target weights by block, for a loss in tiles.

    They are 0 and -inf for positives and negatives, similarity / temperature for soft targets.

    Args:
        block: returns the (n, m) log weights of a slice of images and a slice of texts.
        bound: an upper bound of the absolute value of every finite log weight; infinite if there is none.
    """

    block: Block
    bound: float


def id_targets(batch: Batch) -> LogTargets:
    """Positives are equal ids."""
    return agreement_targets(batch, "exact")


def agreement_targets(batch: Batch, label_agreement: str, temperature: float | None = None) -> LogTargets:
    """Positives are equal ids and, if there are labels, labels that agree."""
    agreement = agreement_blocks(batch.ids, batch.labels, label_agreement, temperature)
    dtype = batch.embeds[0].dtype

    def block(rows: slice, columns: slice) -> Tensor:
        weights = agreement(rows, columns)
        if weights.dtype == torch.bool:
            zeros = torch.zeros(weights.shape, dtype=dtype, device=weights.device)
            return zeros.masked_fill_(~weights, -torch.inf)
        return weights.to(dtype).log_()

    # (cosine - 1) / temperature, and what is below the smallest number of float32 is no agreement.
    return LogTargets(block, bound=0.0 if temperature is None else min(2 / temperature, 88.0))


def similarity_targets(batch: Batch, similarity: Similarity, temperature: float) -> LogTargets:
    """Softmax targets of label similarity."""
    check_positive(temperature, "target_temperature")
    if not callable(similarity):
        check_option(similarity, "similarity", SIMILARITIES)
    image_labels, text_labels = known_labels(*(batch.labels or (None, None)))
    kind, dtype = similarity, batch.embeds[0].dtype
    if similarity == "cosine":
        # Scaled once here rather than for every block.
        image_labels, text_labels, kind = l2_normalize(image_labels), l2_normalize(text_labels), "dot"

    def block(rows: slice, columns: slice) -> Tensor:
        return label_similarity(image_labels[rows], text_labels[columns], kind).div_(temperature).to(dtype)

    return LogTargets(block, bound=1 / temperature if similarity in ("cosine", "jaccard") else torch.inf)


def agreement_blocks(
    ids: Pair | None, labels: Pair | None, label_agreement: str, temperature: float | None = None
) -> Block:
    """m_ij by block: 1 (or True) where ids are equal, else the agreement of labels in [0, 1].

    Args:
        ids: (N,) and (M,) integers.
        labels: (N, K) and (M, K); NaN marks an unknown finding. One of the two pairs must be given.
        label_agreement: ``"exact"``, ``"overlap"`` or ``"soft"``.
        temperature: of the soft agreement exp((cosine - 1) / temperature), above 0; None for max(0, cosine). A label vector
            that is all 0 or unknown agrees with none.

    Returns:
        A function from a slice of images and a slice of texts to a mask or to numbers (n, m).

    Raises:
        ValueError: If ``label_agreement`` is unknown, if the temperature is not above 0 or given for another agreement than
            ``"soft"``, or if there are neither ids nor labels.
    """
    check_label_agreement(label_agreement, temperature)
    same_id = None if ids is None else _equal_blocks(*ids)
    agreement = None if labels is None else _label_agreement_blocks(*labels, label_agreement, temperature)
    if same_id is not None and agreement is not None:
        return lambda rows, columns: agreement(rows, columns).masked_fill_(same_id(rows, columns), 1)
    only = same_id or agreement
    if only is None:
        raise ValueError(error_message("ids or labels", "be given", "neither"))
    return only


def check_label_agreement(label_agreement: str, temperature: float | None) -> None:
    """Raise unless the agreement is known, and its temperature None or above 0 and that of ``"soft"``."""
    check_option(label_agreement, "label_agreement", LABEL_AGREEMENTS)
    if temperature is not None:
        check_positive(temperature, "agreement_temperature")
        if label_agreement != "soft":
            expected = "be None unless label_agreement is 'soft'"
            raise ValueError(error_message("agreement_temperature", expected, temperature))


def _equal_blocks(images: Tensor, texts: Tensor) -> Block:
    return lambda rows, columns: images[rows, None] == texts[columns]


def _label_agreement_blocks(
    image_labels: Tensor, text_labels: Tensor, label_agreement: str, temperature: float | None
) -> Block:
    """A mask for "exact" and "overlap", numbers in [0, 1] for "soft"."""
    if label_agreement == "exact":
        return _equal_blocks(*_label_groups(image_labels, text_labels))
    images, texts = known_labels(image_labels, text_labels)
    if label_agreement == "overlap":
        images, texts = (images > 0).float(), (texts > 0).float()
        return lambda rows, columns: images[rows] @ texts[columns].T > 0.5
    images, texts = l2_normalize(images), l2_normalize(texts)
    if temperature is not None:
        return _exponential_blocks(images, texts, temperature)
    # Rounding leaves orthogonal labels a cosine like 3e-8. Where it is the only one of a row, it would become a target of 1.
    noise = images.shape[1] * torch.finfo(images.dtype).eps
    return lambda rows, columns: threshold(images[rows] @ texts[columns].T, noise, 0.0).clamp_(max=1)


def _exponential_blocks(images: Tensor, texts: Tensor, temperature: float) -> Block:
    """exp((cosine - 1) / temperature) of unit vectors; 0 for a vector of which nothing is stated."""
    stated = images.any(1), texts.any(1)
    smallest = torch.finfo(images.dtype).tiny  # below it, shares of a row would not sum to 1

    def block(rows: slice, columns: slice) -> Tensor:
        agreement = (images[rows] @ texts[columns].T).clamp_(max=1).sub_(1).div_(temperature).exp_()
        return threshold(agreement, smallest, 0.0).mul_(stated[0][rows].unsqueeze(1) & stated[1][columns])

    return block


def _label_groups(image_labels: Tensor, text_labels: Tensor) -> tuple[Tensor, Tensor]:
    """A number for every distinct label vector; an unknown finding is a state of its own.

    Vectors without any known finding get -1 (images) and -2 (texts), which equal nothing: two studies of which nothing
    is known do not agree.
    """
    image_labels, text_labels = as_labels(image_labels, "image_labels"), as_labels(text_labels, "text_labels")
    check_same_size(image_labels, text_labels, 1, ("image_labels", "text_labels"), "width K")
    wide = wide_dtype(image_labels.device)
    labels = torch.cat([image_labels.to(wide), text_labels.to(wide)])
    unknown = labels.isnan()
    groups = labels.masked_fill(unknown, torch.finfo(labels.dtype).max).unique(dim=0, return_inverse=True)[1]
    images, texts = groups.split([len(image_labels), len(text_labels)])
    nothing_known = unknown.all(1)
    return images.masked_fill(nothing_known[: len(images)], -1), texts.masked_fill(nothing_known[len(images) :], -2)
