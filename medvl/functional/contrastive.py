"""Contrastive losses between N images and M texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from medvl.functional._checks import (
    as_float,
    as_ids,
    as_matrix,
    check_option,
    check_positive,
    check_same,
    check_share,
)
from medvl.functional.similarity import unit_vectors

Ids: TypeAlias = Tensor | Sequence[str] | Sequence[int]


def soft_target_cross_entropy(logits: Tensor, log_targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of every row and of every column of ``logits`` against targets of any form.

    -sum_j y_ij log softmax_j(l_i.)[j] with y_i. = softmax_j(log_targets_i.), and likewise down the columns.

    Args:
        logits: (N, M).
        log_targets: (N, M), logarithms of non-negative weights up to a constant: 0 for a positive and -inf for a
            negative make hard and multi-positive targets, similarity / temperature makes soft ones.

    Returns:
        (N,) and (M,). A row or column whose log targets are all -inf has no target and loss 0.

    Example:
        >>> rows, columns = soft_target_cross_entropy(torch.zeros(2, 4), torch.zeros(2, 4))
        >>> rows.exp().round().tolist(), columns.exp().round().tolist()
        ([4.0, 4.0], [2.0, 2.0, 2.0, 2.0])
    """
    image_terms, text_terms = (
        -(log_targets.softmax(axis).nan_to_num(0.0) * logits.log_softmax(axis)).sum(axis) for axis in (1, 0)
    )
    return image_terms, text_terms


def reduce_terms(
    image_terms: Tensor,
    text_terms: Tensor,
    image_weights: Tensor,
    text_weights: Tensor,
    image_share: float,
    reduction: str,
) -> Tensor:
    """Join the N image terms and M text terms; a weight of 0 takes a term out of the mean."""
    shares = (image_share, 1 - image_share)
    pairs = ((image_terms, image_weights), (text_terms, text_weights))
    if reduction == "mean":
        means = [(terms * weights).sum() / weights.sum().clamp_min(1e-12) for terms, weights in pairs]
        return shares[0] * means[0] + shares[1] * means[1]
    terms = torch.cat([share * terms * weights for share, (terms, weights) in zip(shares, pairs, strict=True)])
    return terms.sum() if reduction == "sum" else terms


def image_text_contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    weights: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    temperature: float = 0.1,
    image_weight: float = 0.75,
    reduction: str = "mean",
) -> Tensor:
    """Bidirectional contrastive loss with positives by id; see :class:`medvl.losses.ImageTextContrastiveLoss`.

    Example:
        >>> round(image_text_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
        0.3133
    """
    check_option(reduction, "reduction", ("mean", "sum", "none"))
    check_share(image_weight, "image_weight")
    image_embeds = as_matrix(image_embeds, "image_embeds", "N D")
    text_embeds = as_matrix(text_embeds, "text_embeds", "M D")
    check_same(image_embeds, text_embeds, 1, ("image_embeds", "text_embeds"), "width D")
    image_keys, text_keys = pair_ids(image_embeds, text_embeds, image_ids, text_ids)
    with torch.autocast(image_embeds.device.type, enabled=False):
        scale = logit_multiplier(logit_scale, temperature)
        logits = unit_vectors(image_embeds) @ unit_vectors(text_embeds).T * scale
        positive = image_keys[:, None] == text_keys
        image_weights, text_weights = pair_weights(positive.to(logits.dtype), weights)
        log_targets = torch.zeros_like(logits).masked_fill(~positive, -torch.inf)
        terms = soft_target_cross_entropy(logits, log_targets)
        return reduce_terms(*terms, image_weights, text_weights, image_weight, reduction)


def logit_multiplier(logit_scale: Tensor | float | None, temperature: float) -> Tensor | float:
    """The number that cosines are multiplied with: the network's scale where there is one, else 1 / temperature."""
    if logit_scale is None:
        check_positive(temperature, "temperature")
        return 1 / temperature
    if isinstance(logit_scale, Tensor):
        if logit_scale.numel() != 1:
            raise ValueError(f"logit_scale must be one number, got shape {tuple(logit_scale.shape)}")
        return as_float(logit_scale).reshape(())
    return float(logit_scale)


def pair_ids(
    image_embeds: Tensor, text_embeds: Tensor, image_ids: Ids | None, text_ids: Ids | None
) -> tuple[Tensor, Tensor]:
    """Ids as int64 (N,) and (M,); without ids, image i and text i are a pair."""
    device = image_embeds.device
    if (image_ids is None) != (text_ids is None):
        missing = "image_ids" if image_ids is None else "text_ids"
        raise ValueError(f"image_ids and text_ids must come together, got no {missing}")
    if image_ids is None or text_ids is None:
        if len(image_embeds) != len(text_embeds):
            raise ValueError(
                "image_ids and text_ids are needed where the numbers of images and texts differ, "
                f"got {len(image_embeds)} images and {len(text_embeds)} texts"
            )
        ids = torch.arange(len(image_embeds), device=device)
        return ids, ids
    return as_ids(image_ids, "image_ids", len(image_embeds), device), as_ids(
        text_ids, "text_ids", len(text_embeds), device
    )


def pair_weights(positive: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights of the N image terms and of the M text terms, each of mean 1 over those that have a positive.

    A text weighs what its images weigh on average.
    """
    if weights is None:
        weights = positive.new_ones(len(positive))
    elif weights.shape != (len(positive),):
        raise ValueError(f"weights must have shape ({len(positive)},), one for each image, got {tuple(weights.shape)}")
    # The weights say how much a view counts; the loss must not learn to lower itself by lowering them.
    weights = as_float(weights).detach().to(positive)
    images, texts = positive.sum(1), positive.sum(0)
    return mean_one(weights, images > 0), mean_one(weights @ positive / texts.clamp_min(1), texts > 0)


def mean_one(weights: Tensor, counted: Tensor) -> Tensor:
    """Weights scaled to mean 1 over the terms that count, and 0 elsewhere."""
    weights = weights * counted
    return weights * (counted.sum() / weights.sum().clamp_min(1e-12))
