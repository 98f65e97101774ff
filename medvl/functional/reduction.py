"""Weights and reductions of the terms of a contrastive loss: one for each image, one for each text."""

from __future__ import annotations

import torch
from torch import Tensor

from medvl.utils.checks import check_option

REDUCTIONS = ("mean", "sum", "none")


def reduce_terms(
    image_terms: Tensor, text_terms: Tensor, image_counts: Tensor, text_counts: Tensor, reduction: str
) -> Tensor:
    """Reduce the weighted terms of a contrastive loss.

    Args:
        image_terms: (N,).
        text_terms: (M,).
        image_counts: (N,), True for an image that has a target; the mean is over these.
        text_counts: (M,).
        reduction: ``"mean"``: the images' mean plus the texts' mean. ``"sum"``: the sum of all terms. ``"none"``: the N
            image terms and then the M text terms.

    Returns:
        A scalar, or (N + M,).

    Raises:
        ValueError: If the reduction is unknown.

    Example:
        >>> terms, counts = (torch.tensor([1.0, 3.0]), torch.tensor([4.0])), (torch.tensor([True, True]), torch.tensor([True]))
        >>> reduce_terms(*terms, *counts, "mean").item(), reduce_terms(*terms, *counts, "sum").item()
        (6.0, 8.0)
    """
    check_option(reduction, "reduction", REDUCTIONS)
    if reduction == "mean":
        return image_terms.sum() / image_counts.sum().clamp_min(1) + text_terms.sum() / text_counts.sum().clamp_min(1)
    terms = torch.cat([image_terms, text_terms])
    return terms.sum() if reduction == "sum" else terms


def term_weights(
    weights: Tensor | None, image_ids: Tensor, text_ids: Tensor, image_counts: Tensor, text_counts: Tensor
) -> tuple[Tensor | float, Tensor | float]:
    """Weights of the image terms (N,) and of the text terms (M,); 1 and 1 without ``weights``.

    A text weighs what the images with its id weigh on average. Each side has mean 1 over the terms that count.

    Args:
        weights: (N,), of the images.
        image_ids: (N,).
        text_ids: (M,).
        image_counts: (N,), True for an image that has a target.
        text_counts: (M,).

    Example:
        >>> ids, counts = torch.tensor([7, 8]), torch.tensor([True, True])
        >>> term_weights(torch.tensor([1.0, 3.0]), ids, ids.flip(0), counts, counts)
        (tensor([0.5000, 1.5000]), tensor([1.5000, 0.5000]))
    """
    if weights is None:
        return 1.0, 1.0
    groups = torch.cat([image_ids, text_ids]).unique(return_inverse=True)[1]
    image_groups, text_groups = groups.split([len(image_ids), len(text_ids)])
    sums = weights.new_zeros(len(groups)).index_add_(0, image_groups, weights)
    sizes = weights.new_zeros(len(groups)).index_add_(0, image_groups, torch.ones_like(weights))
    text_weights = (sums / sizes.clamp_min(1))[text_groups]
    return scale_to_mean_one(weights, image_counts), scale_to_mean_one(text_weights, text_counts)


def scale_to_mean_one(weights: Tensor, counts: Tensor) -> Tensor:
    """Mean 1 over the terms that count, 0 elsewhere."""
    weights = weights * counts
    return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny) * counts.sum()
