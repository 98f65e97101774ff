"""How well the patches of an image and the sentences of a text match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from medvl.functional._sides import Ids, Side, make_side, with_ids
from medvl.functional.contrastive import REDUCTIONS, contrast_logits
from medvl.functional.similarity import l2_normalize
from medvl.functional.targets import ALL, id_targets
from medvl.functional.tiled import check_tile_size
from medvl.functional.transport import sinkhorn
from medvl.utils.checks import check_fraction, check_option, check_positive
from medvl.utils.distributed import all_gather_with_grad, all_reduce_max, is_distributed
from medvl.utils.tensors import as_mask, as_matrix, as_scale, check_same

ALIGNMENTS = ("transport", "attention", "max")

# Patch-sentence pairs that "auto" scores at once: a float32 tensor of them is 64 MB, and a step of the transport has
# about fifteen.
TILE_ELEMENTS = 2**24


def patch_sentence_plan(
    similarity: Tensor,
    patch_mask: Tensor,
    sentence_mask: Tensor,
    alignment: str = "transport",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
) -> Tensor:
    """How much of the match falls on every pair of a patch and a sentence; sums to 1 over the pairs.

    ``"transport"``: the Sinkhorn plan of cost 1 - similarity with uniform marginals. ``"attention"``: every sentence
    has the same share and spreads it by softmax over patches. ``"max"``: half of the share goes from every patch to
    its best sentence, half from every sentence to its best patch.

    Args:
        similarity: (..., P, S), cosines.
        patch_mask: (..., P), True keeps.
        sentence_mask: (..., S), True keeps.
        alignment: one of the names above.
        epsilon: of the transport, above 0, in units of cosine.
        attention_temperature: of the attention's softmax, above 0.

    Returns:
        (..., P, S); all 0 where a mask keeps nothing.

    Example:
        >>> similarity = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1]])
        >>> patch_sentence_plan(similarity, torch.ones(3) > 0, torch.ones(2) > 0, "max").tolist()
        [[0.4166666865348816, 0.0], [0.0, 0.4166666865348816], [0.1666666716337204, 0.0]]
    """
    check_option(alignment, "alignment", ALIGNMENTS)
    check_positive(attention_temperature, "attention_temperature")
    if not similarity.numel():
        return torch.zeros_like(similarity)
    if alignment == "transport":
        return sinkhorn(1 - similarity, epsilon, patch_mask, sentence_mask)
    patch_share, sentence_share = (
        _share(patch_mask, similarity).unsqueeze(-1),
        _share(sentence_mask, similarity).unsqueeze(-2),
    )
    # Lowest rather than -inf: where a mask keeps nothing, a softmax of it is still a number, and its share is 0.
    lowest, hidden_patches = torch.finfo(similarity.dtype).min, ~patch_mask.unsqueeze(-1)
    if alignment == "attention":
        attention = (similarity / attention_temperature).masked_fill(hidden_patches, lowest).softmax(-2)
        return attention * (patch_share > 0) * sentence_share
    over_patches = similarity.masked_fill(hidden_patches, lowest)
    over_sentences = similarity.masked_fill(~sentence_mask.unsqueeze(-2), lowest)
    by_patch = torch.zeros_like(similarity).scatter_(-1, over_sentences.argmax(-1, keepdim=True), 0.5)
    by_sentence = torch.zeros_like(similarity).scatter_(-2, over_patches.argmax(-2, keepdim=True), 0.5)
    any_kept = patch_mask.any(-1)[..., None, None] & sentence_mask.any(-1)[..., None, None]
    return (by_patch * patch_share + by_sentence * sentence_share) * any_kept


def _share(mask: Tensor, like: Tensor) -> Tensor:
    """The same share for everything kept, 0 elsewhere; sums to 1 along the last axis."""
    weights = mask.to(like.dtype)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1)


def patch_sentence_scores(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    *,
    alignment: str = "transport",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
    tile_size: int | str | None = None,
) -> Tensor:
    """Match of every image with every text: sum_ps T_ps <patch_p, sentence_s> with T as in :func:`patch_sentence_plan`.

    Args:
        patch_embeds: (N, P, D), scaled to unit length here.
        sentence_embeds: (M, S, D), scaled to unit length here.
        patch_mask: (N, P), True keeps; all of them without it.
        sentence_mask: (M, S), True keeps.
        alignment: ``"transport"``, ``"attention"`` or ``"max"``.
        epsilon: of the transport.
        attention_temperature: of the attention.
        tile_size: texts at a time, ``"auto"``, or None for all at once. With tiles, the backward pass computes each
            again, and memory is one tile's.

    Returns:
        (N, M), in [-1, 1]; 0 for an image without patches or a text without sentences.

    Example:
        >>> patches, sentences = torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> patch_sentence_scores(patches, sentences, alignment="max").tolist()
        [[0.8333333730697632]]
    """
    patches, sentences = _patch_sentence_sides(patch_embeds, sentence_embeds, patch_mask, sentence_mask)
    plan = partial(
        patch_sentence_plan, alignment=alignment, epsilon=epsilon, attention_temperature=attention_temperature
    )
    return _scores(patches, sentences, plan, tile_size)


def _patch_sentence_sides(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    patch_mask: Tensor | None,
    sentence_mask: Tensor | None,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    weights: Tensor | None = None,
) -> tuple[Side, Side]:
    patch_embeds = as_matrix(patch_embeds, "patch_embeds", "N P D")
    sentence_embeds = as_matrix(sentence_embeds, "sentence_embeds", "M S D")
    check_same(patch_embeds, sentence_embeds, 2, ("patch_embeds", "sentence_embeds"), "width D")
    dtype = torch.promote_types(patch_embeds.dtype, sentence_embeds.dtype)
    return (
        make_side(
            "image", patch_embeds.to(dtype), as_mask(patch_mask, "patch_mask", patch_embeds), image_ids, weights=weights
        ),
        make_side(
            "text", sentence_embeds.to(dtype), as_mask(sentence_mask, "sentence_mask", sentence_embeds), text_ids
        ),
    )


def _scores(images: Side, texts: Side, plan: Callable[..., Tensor], tile_size: int | str | None) -> Tensor:
    """(N, M) scores; with tiles, each is computed again in the backward pass."""
    with torch.autocast(images.embeds.device.type, enabled=False):
        patches, sentences = l2_normalize(images.embeds), l2_normalize(texts.embeds)
        score = partial(_score_tile, patches, images.mask, plan=plan)
        size, again = _texts_at_once(images, texts, tile_size)
        parts = zip(sentences.split(size), texts.mask.split(size), strict=True)
        if again:
            score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([score(part, mask) for part, mask in parts], dim=1)


def _texts_at_once(images: Side, texts: Side, tile_size: int | str | None) -> tuple[int, bool]:
    """How many texts to score at a time, and whether to forget them until the backward pass."""
    check_tile_size(tile_size)
    if isinstance(tile_size, int):
        return max(1, min(tile_size, len(texts))), True
    per_text = max(1, images.embeds.shape[0] * images.embeds.shape[1] * texts.embeds.shape[1])
    if tile_size == "auto" and per_text * len(texts) > TILE_ELEMENTS:
        return max(1, TILE_ELEMENTS // per_text), True
    return max(1, len(texts)), False


def _score_tile(
    patches: Tensor, patch_mask: Tensor, sentences: Tensor, sentence_mask: Tensor, *, plan: Callable[..., Tensor]
) -> Tensor:
    similarity = torch.einsum("npd,msd->nmps", patches, sentences).contiguous()
    shape = similarity.shape
    plans = plan(similarity, patch_mask.unsqueeze(1).expand(shape[:3]), sentence_mask.expand(*shape[:2], shape[3]))
    return (similarity * plans).sum((-2, -1))


def patch_sentence_matching_loss(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    weights: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    alignment: str = "transport",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
    temperature: float = 0.1,
    image_weight: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss of patch-sentence scores; see :class:`medvl.losses.PatchSentenceMatchingLoss`.

    Example:
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4).reshape(2, 2, 4)
        >>> round(patch_sentence_matching_loss(patches, sentences, alignment="max", temperature=1.0).item(), 4)
        0.3133
    """
    check_option(reduction, "reduction", REDUCTIONS)
    check_fraction(image_weight, "image_weight")
    plan = partial(
        patch_sentence_plan, alignment=alignment, epsilon=epsilon, attention_temperature=attention_temperature
    )
    images, texts = with_ids(
        *_patch_sentence_sides(patch_embeds, sentence_embeds, patch_mask, sentence_mask, image_ids, text_ids, weights)
    )
    scale = as_scale(logit_scale, temperature, images.embeds)
    gather = gather and is_distributed()
    if gather:
        texts = _pad_sentences(texts).gathered()
    scores = _scores(images, texts, plan, tile_size)
    has_patches = images.mask.any(1)
    if gather:
        # Each process scores its own images; the (N, M) scores are small beside what they are made of.
        images = replace(images, mask=has_patches).gathered("mask", "ids", "weights")
        scores, has_patches = all_gather_with_grad(scores), images.mask
    log_targets = id_targets(images, texts).block(ALL, ALL)
    # Without patches or sentences a score says nothing: it teaches nothing as a positive.
    log_targets = log_targets.masked_fill(~(has_patches.unsqueeze(1) & texts.mask.any(1)), -torch.inf)
    return contrast_logits(scores * scale, log_targets, images, texts, image_weight, reduction)


def _pad_sentences(texts: Side) -> Side:
    """As many sentences as the process with the most has."""
    missing = all_reduce_max(texts.embeds.shape[1], texts.embeds.device) - texts.embeds.shape[1]
    return replace(texts, embeds=pad(texts.embeds, (0, 0, 0, missing)), mask=pad(texts.mask, (0, missing)))


def semantic_integrity(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    visible_mask: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Share of a report's attention that falls on the visible patches of its masked image.

    a_ip = softmax_p(max_s <patch_p, sentence_s> / temperature), c_i = sum_{p visible} a_ip; without gradient. Ours, made
    to do what MLIP describes (Liu et al., 2024, without published code).

    Args:
        patch_embeds: (N, P, D), of the whole image, scaled to unit length here.
        sentence_embeds: (N, S, D), of the image's own report.
        visible_mask: (N, P), True where a patch was not masked.
        patch_mask: (N, P), True keeps.
        sentence_mask: (N, S), True keeps; an image whose report has no sentence attends to all patches alike.
        temperature: above 0.

    Returns:
        (N,), in [0, 1].

    Example:
        >>> patches, sentences = torch.eye(2)[None], torch.eye(2)[None, :1]
        >>> [round(c, 4) for c in semantic_integrity(patches, sentences, torch.tensor([[True, False]])).tolist()]
        [1.0]
        >>> [round(c, 4) for c in semantic_integrity(patches, sentences, torch.tensor([[False, True]])).tolist()]
        [0.0]
    """
    check_positive(temperature, "temperature")
    images, texts = _patch_sentence_sides(patch_embeds, sentence_embeds, patch_mask, sentence_mask)
    check_same(images.embeds, texts.embeds, 0, ("patch_embeds", "sentence_embeds"), "number of images and reports")
    visible = as_mask(visible_mask, "visible_mask", images.embeds)
    with torch.no_grad(), torch.autocast(images.embeds.device.type, enabled=False):
        similarity = torch.einsum("npd,nsd->nps", l2_normalize(images.embeds), l2_normalize(texts.embeds))
        lowest = torch.finfo(similarity.dtype).min
        # One more column, so that there is a largest where no report has a sentence.
        best = pad(similarity.masked_fill(~texts.mask.unsqueeze(1), lowest), (0, 1), value=lowest).amax(2)
        best = best.masked_fill(~texts.mask.any(1, keepdim=True), 0.0)
        attention = (best / temperature).masked_fill(~images.mask, lowest).softmax(1)
        return (attention * (visible & images.mask)).sum(1)
