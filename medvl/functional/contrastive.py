"""Contrastive losses between N images and M texts: softmax over rows and columns, hard and soft targets alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from medvl.functional._sides import Ids, Side, check_together, make_side, with_ids
from medvl.functional.similarity import Similarity, l2_normalize, softmax_targets
from medvl.functional.targets import ALL, LogTargets, id_targets, match_targets, similarity_targets
from medvl.functional.tiled import choose_tile_size, tiled_soft_target_cross_entropy
from medvl.utils.checks import check_fraction, check_option
from medvl.utils.distributed import all_reduce_sum, is_distributed
from medvl.utils.tensors import as_embeds, as_scale

REDUCTIONS = ("mean", "sum", "none")


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
        -(softmax_targets(log_targets, axis) * (logits - logits.logsumexp(axis, keepdim=True))).sum(axis)
        for axis in (1, 0)
    )
    return image_terms, text_terms


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
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss with positives by id; see :class:`medvl.losses.ImageTextContrastiveLoss`.

    Example:
        >>> round(image_text_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
        0.3133
    """
    image_embeds, text_embeds = as_embeds(image_embeds, text_embeds)
    sides = with_ids(
        make_side("image", image_embeds, ids=image_ids, weights=weights), make_side("text", text_embeds, ids=text_ids)
    )
    return _contrast(
        *sides,
        id_targets,
        as_scale(logit_scale, temperature, image_embeds),
        image_weight,
        reduction,
        gather,
        tile_size,
    )


def semantic_matching_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    image_label_mask: Tensor | None = None,
    text_label_mask: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    temperature: float = 0.07,
    target_temperature: float = 1.0,
    similarity: Similarity = "cosine",
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss with soft targets from label similarity; see :class:`medvl.losses.SemanticMatchingLoss`.

    Example:
        >>> labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> round(semantic_matching_loss(torch.eye(2), torch.eye(2), labels, labels, temperature=1.0).item(), 4)
        0.4325
    """
    image_embeds, text_embeds = as_embeds(image_embeds, text_embeds)
    return _contrast(
        make_side("image", image_embeds, labels=image_labels, label_mask=image_label_mask),
        make_side("text", text_embeds, labels=text_labels, label_mask=text_label_mask),
        partial(similarity_targets, similarity=similarity, temperature=target_temperature),
        as_scale(logit_scale, temperature, image_embeds),
        0.5,
        reduction,
        gather,
        tile_size,
    )


def image_text_label_contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_labels: Tensor | None = None,
    text_labels: Tensor | None = None,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    image_label_mask: Tensor | None = None,
    text_label_mask: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    label_agreement: str = "exact",
    temperature: float = 0.07,
    image_weight: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss with positives by id or label; see :class:`medvl.losses.ImageTextLabelContrastiveLoss`.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> round(image_text_label_contrastive_loss(torch.eye(2), torch.eye(2), labels, labels, temperature=1.0).item(), 4)
        0.8133
    """
    image_embeds, text_embeds = as_embeds(image_embeds, text_embeds)
    return _contrast(
        *matched_sides(
            make_side("image", image_embeds, ids=image_ids, labels=image_labels, label_mask=image_label_mask),
            make_side("text", text_embeds, ids=text_ids, labels=text_labels, label_mask=text_label_mask),
        ),
        partial(match_targets, label_agreement=label_agreement),
        as_scale(logit_scale, temperature, image_embeds),
        image_weight,
        reduction,
        gather,
        tile_size,
    )


def matched_sides(images: Side, texts: Side) -> tuple[Side, Side]:
    """Sides for positives by id or label: with neither, image i and text i are a pair."""
    check_together(images.labels, texts.labels, "labels")
    check_together(images.ids, texts.ids, "ids")
    return with_ids(images, texts) if images.labels is None else (images, texts)


def _contrast(
    images: Side,
    texts: Side,
    make_targets: Callable[[Side, Side], LogTargets],
    scale: Tensor,
    image_weight: float,
    reduction: str,
    gather: bool,
    tile_size: int | str | None,
) -> Tensor:
    """The steps that all softmax losses share, on one process or on many."""
    check_fraction(image_weight, "image_weight")
    check_option(reduction, "reduction", REDUCTIONS)
    gather = gather and is_distributed()
    count = all_reduce_sum(len(images), images.embeds.device) if gather else len(images)
    texts = texts.gathered() if gather else texts
    tile = choose_tile_size(tile_size, count, len(texts), texts.embeds.device)
    if gather and tile is None:
        images, gather = images.gathered(), False
    with torch.autocast(texts.embeds.device.type, enabled=False):
        targets = make_targets(images, texts)
        if tile is None:
            logits = l2_normalize(images.embeds) @ l2_normalize(texts.embeds).T * scale
            return contrast_logits(logits, targets.block(ALL, ALL), images, texts, image_weight, reduction)
        terms, counts = tiled_soft_target_cross_entropy(images.embeds, texts.embeds, targets, scale, tile, gather)
        if gather:
            images = images.gathered("ids", "weights")
        return _join_terms(terms, counts, images, texts, image_weight, reduction)


def contrast_logits(
    logits: Tensor, log_targets: Tensor, images: Side, texts: Side, image_weight: float, reduction: str
) -> Tensor:
    """Loss of an (N, M) matrix of logits; of the sides, ids and weights are used."""
    terms = soft_target_cross_entropy(logits, log_targets)
    has_target = log_targets > -torch.inf
    return _join_terms(terms, (has_target.any(1), has_target.any(0)), images, texts, image_weight, reduction)


def _join_terms(
    terms: tuple[Tensor, Tensor],
    counts: tuple[Tensor, Tensor],
    images: Side,
    texts: Side,
    image_weight: float,
    reduction: str,
) -> Tensor:
    """Weigh the image and text terms and reduce them; the mean of each is over those that count."""
    shares, weights = (image_weight, 1 - image_weight), _term_weights(images, texts, *counts)
    weighted = [share * weight * term for share, weight, term in zip(shares, weights, terms, strict=True)]
    if reduction == "mean":
        images_mean, texts_mean = (term.sum() / n.sum().clamp_min(1) for term, n in zip(weighted, counts, strict=True))
        return images_mean + texts_mean
    joined = torch.cat(weighted)
    return joined.sum() if reduction == "sum" else joined


def _term_weights(images: Side, texts: Side, image_counts: Tensor, text_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 1 over the terms that count, 0 elsewhere; a text weighs what the images with its id weigh on average."""
    if images.weights is None or images.ids is None or texts.ids is None:
        dtype = images.embeds.dtype
        return image_counts.to(dtype), text_counts.to(dtype)
    weights = images.weights
    groups = torch.cat([images.ids, texts.ids]).unique(return_inverse=True)[1]
    image_groups, text_groups = groups.split([len(images.ids), len(texts.ids)])
    sums = weights.new_zeros(len(groups)).index_add_(0, image_groups, weights)
    sizes = weights.new_zeros(len(groups)).index_add_(0, image_groups, torch.ones_like(weights))
    text_weights = (sums / sizes.clamp_min(1))[text_groups]
    return _mean_one(weights, image_counts), _mean_one(text_weights, text_counts)


def _mean_one(weights: Tensor, counts: Tensor) -> Tensor:
    weights = weights * counts
    return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny) * counts.sum()
