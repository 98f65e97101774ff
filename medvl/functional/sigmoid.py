"""Sigmoid contrastive loss: every image-text pair is a yes-or-no question of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from medvl.functional._sides import Ids, make_side
from medvl.functional.contrastive import REDUCTIONS, matched_sides
from medvl.functional.similarity import l2_normalize
from medvl.functional.targets import ALL, match_targets
from medvl.functional.tiled import SigmoidRule, TiledContrast, choose_tile_size
from medvl.utils.checks import check_option
from medvl.utils.distributed import all_gather_with_grad, all_reduce_sum, is_distributed
from medvl.utils.tensors import as_embeds, as_number, as_scale


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
    temperature: float = 0.1,
    bias: float = -10.0,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Sigmoid loss with positives by id or label; see :class:`medvl.losses.SigmoidContrastiveLoss`.

    Example:
        >>> round(sigmoid_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0, bias=0.0).item(), 4)
        1.0064
    """
    check_option(reduction, "reduction", REDUCTIONS)
    image_embeds, text_embeds = as_embeds(image_embeds, text_embeds)
    images, texts = matched_sides(
        make_side("image", image_embeds, ids=image_ids, labels=image_labels, label_mask=image_label_mask),
        make_side("text", text_embeds, ids=text_ids, labels=text_labels, label_mask=text_label_mask),
    )
    scale = as_scale(logit_scale, temperature, image_embeds)
    offset = as_number(bias if logit_bias is None else logit_bias, "logit_bias", image_embeds)
    gather = gather and is_distributed()
    device = image_embeds.device
    count = all_reduce_sum(len(images), device) if gather else len(images)
    texts = texts.gathered() if gather else texts
    tile = choose_tile_size(tile_size, count, len(texts), device)
    with torch.autocast(device.type, enabled=False):
        targets = match_targets(images, texts, label_agreement)
        if tile is None:
            logits = l2_normalize(images.embeds) @ l2_normalize(texts.embeds).T * scale + offset
            weights = targets.block(ALL, ALL).exp()
            # Of a positive with a large logit, log(1 + exp(x)) - x would leave the rounding of x.
            terms = -(weights * logsigmoid(logits) + (1 - weights) * logsigmoid(-logits)).sum(1)
        else:
            rule = SigmoidRule(targets, images.embeds.detach(), len(images))
            (terms,) = TiledContrast.apply(images.embeds, texts.embeds, scale, offset, rule, tile)
    # A row needs nothing of the other rows: each process computes its own images' terms, tiled or not.
    terms = all_gather_with_grad(terms) if gather else terms
    if reduction == "none":
        return terms
    return terms.sum() / max(len(terms), 1) if reduction == "mean" else terms.sum()
