"""Sigmoid contrastive loss: every image-text pair is a binary classification of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from medvl.functional.batch import Batch, Ids, ids_and_labels, warn_if_without_positive
from medvl.functional.contrastive import read_embeds
from medvl.functional.reduction import REDUCTIONS
from medvl.functional.targets import ALL, agreement_blocks, agreement_targets
from medvl.functional.tiled import split_batch, tiled_sigmoid_terms
from medvl.utils.checks import check_option
from medvl.utils.distributed import all_gather_with_grad
from medvl.utils.tensors import as_number, as_scale


def sigmoid_contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    image_labels: Tensor | None = None,
    text_labels: Tensor | None = None,
    image_label_mask: Tensor | None = None,
    text_label_mask: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    *,
    label_agreement: str = "exact",
    temperature: float | None = None,
    bias: float | None = None,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Sigmoid loss with positives by id or label (SigLIP).

    x_ij = <v_i, t_j> / tau + b,  L = mean_i -sum_j m_ij log sigmoid(x_ij) + (1 - m_ij) log sigmoid(-x_ij) with m_ij = 1
    where ids are equal, else the agreement of labels. Arguments, shapes, ranges, errors and the source are those of
    :class:`medvl.losses.SigmoidContrastiveLoss`.

    Example:
        >>> round(sigmoid_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0, bias=0.0).item(), 4)
        1.0064
    """
    ids, labels, masks = (image_ids, text_ids), (image_labels, text_labels), (image_label_mask, text_label_mask)
    b = bias if bias is not None else -10.0 if logit_bias is None else logit_bias
    if gather or tile_size is not None:
        embeds = read_embeds(image_embeds, text_embeds, normalize=False)
        # A row needs nothing of the other rows: each process computes the terms of its own images, tiled or not.
        batch = Batch(embeds, *ids_and_labels(ids, labels, masks, embeds))
        batch, tile = split_batch(batch, gather, tile_size, own_images=True)
        scale, b = as_scale(logit_scale, temperature, embeds[0], 0.1), as_number(b, "logit_bias", embeds[0])
        if tile is not None:
            terms = tiled_sigmoid_terms(batch, agreement_targets(batch, label_agreement), scale, b, tile)
        else:
            terms = sigmoid_contrastive_loss(
                **batch.arguments(),
                logit_scale=scale,
                logit_bias=b,
                label_agreement=label_agreement,
                reduction="none",
            )
        return _reduce(all_gather_with_grad(terms) if gather else terms, reduction)

    v, t = read_embeds(image_embeds, text_embeds)  # unit vectors (N, D), (M, D)
    with torch.autocast(v.device.type, enabled=False):
        x = v @ t.T * as_scale(logit_scale, temperature, v, 0.1) + as_number(b, "logit_bias", v)  # (N, M)
        agreement = agreement_blocks(*ids_and_labels(ids, labels, masks, (v, t)), label_agreement)
        m = agreement(ALL, ALL).to(v.dtype)  # (N, M)
        warn_if_without_positive(m)
        # Not log(1 + exp(x)) - m x: of a positive with a large logit it would leave the rounding of x.
        terms = -(m * logsigmoid(x) + (1 - m) * logsigmoid(-x)).sum(1)  # (N,)
        return _reduce(terms, reduction)


def _reduce(terms: Tensor, reduction: str) -> Tensor:
    check_option(reduction, "reduction", REDUCTIONS)
    if reduction == "none":
        return terms
    return terms.sum() / max(len(terms), 1) if reduction == "mean" else terms.sum()
