"""Alignment of the patches of an image with the sentences of a text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from medvl.functional.batch import Ids, Pair, image_weights, pair_ids
from medvl.functional.contrastive import read_embeds
from medvl.functional.reduction import reduce_terms, term_weights
from medvl.functional.similarity import log_softmax
from medvl.functional.targets import sum_to_one
from medvl.functional.tiled import check_tile_size
from medvl.functional.transport import sinkhorn
from medvl.utils.checks import check_fraction, check_option, check_positive, check_type
from medvl.utils.distributed import all_gather_with_grad, all_reduce_max, is_distributed
from medvl.utils.tensors import as_mask, as_scale, check_same_size, hide_masked

ALIGNMENTS = ("transport", "attention", "max")

# Patch-sentence pairs that "auto" scores at once: a float32 tensor of them is 64 MB, and a step of the transport has
# about fifteen.
TILE_ELEMENTS = 2**24

NAMES, AXES = ("patch_embeds", "sentence_embeds"), ("N, P, D", "M, S, D")

Plan: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From cosines (..., P, S), a patch mask (..., P) and a sentence mask (..., S) to a plan (..., P, S)."""


def patch_sentence_plan(
    similarity: Tensor,
    patch_mask: Tensor,
    sentence_mask: Tensor,
    alignment: str = "transport",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
) -> Tensor:
    """Share of every pair of a patch and a sentence in the alignment; sums to 1 over the pairs.

    ``"transport"``: the Sinkhorn plan of cost 1 - similarity with uniform marginals. ``"attention"``: every sentence
    has the same share and distributes it by softmax over patches. ``"max"``: half of the share goes from every patch to
    its best sentence, half from every sentence to its best patch.

    Args:
        similarity: (..., P, S), cosines.
        patch_mask: (..., P), True keeps.
        sentence_mask: (..., S), True keeps.
        alignment: one of the names above.
        epsilon: entropic regularization of the transport, above 0, in units of cosine.
        attention_temperature: temperature of the attention's softmax, above 0.

    Returns:
        (..., P, S); all 0 where a mask keeps nothing.

    Raises:
        ValueError: If ``alignment`` is unknown, or an option is not above 0.

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
    # The lowest finite number rather than -inf: if a mask keeps nothing, the softmax is still finite, and its share is 0.
    lowest, hidden_patches = torch.finfo(similarity.dtype).min, ~patch_mask.unsqueeze(-1)
    if alignment == "attention":
        hidden = hidden_patches | ~sentence_mask.unsqueeze(-2)
        attention = (similarity / attention_temperature).masked_fill(hidden, lowest).softmax(-2)
        return attention * (patch_share > 0) * sentence_share
    over_patches = similarity.masked_fill(hidden_patches, lowest)
    over_sentences = similarity.masked_fill(~sentence_mask.unsqueeze(-2), lowest)
    by_patch = torch.zeros_like(similarity).scatter_(-1, over_sentences.argmax(-1, keepdim=True), 0.5)
    by_sentence = torch.zeros_like(similarity).scatter_(-2, over_patches.argmax(-2, keepdim=True), 0.5)
    any_kept = patch_mask.any(-1)[..., None, None] & sentence_mask.any(-1)[..., None, None]
    return (by_patch * patch_share + by_sentence * sentence_share) * any_kept


def _share(mask: Tensor, like: Tensor) -> Tensor:
    """Equal shares for everything kept, 0 elsewhere; they sum to 1 along the last axis."""
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
    """Score of every image with every text: sum_ps T_ps <patch_p, sentence_s> with T of :func:`patch_sentence_plan`.

    Args:
        patch_embeds: (N, P, D), scaled to unit length here.
        sentence_embeds: (M, S, D), scaled to unit length here.
        patch_mask: (N, P), True keeps; without it, all are kept.
        sentence_mask: (M, S), True keeps. What a mask excludes may hold any value, NaN too, and gets no gradient.
        alignment: ``"transport"``, ``"attention"`` or ``"max"``.
        epsilon: regularization of the transport, above 0.
        attention_temperature: temperature of the attention's softmax, above 0.
        tile_size: texts at a time, ``"auto"``, or None for all at once. With tiles, the backward pass computes each
            again, and memory is that of one tile.

    Returns:
        (N, M), in [-1, 1]; 0 for an image without patches or a text without sentences.

    Raises:
        TypeError: If embeddings are not floating point tensors, or masks are not tensors.
        ValueError: If the shapes are inconsistent, or an option is out of its range.

    Example:
        >>> patches, sentences = torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> patch_sentence_scores(patches, sentences, alignment="max").tolist()
        [[0.8333333730697632]]
    """
    if patch_mask is not None or sentence_mask is not None:
        patch_embeds, sentence_embeds = read_parts(patch_embeds, sentence_embeds, patch_mask, sentence_mask)
    p, s = read_embeds(patch_embeds, sentence_embeds, NAMES, AXES)
    plan = partial(
        patch_sentence_plan, alignment=alignment, epsilon=epsilon, attention_temperature=attention_temperature
    )
    return score_pairs(p, s, patch_mask, sentence_mask, plan, tile_size)


def read_parts(
    patch_embeds: Tensor, sentence_embeds: Tensor, patch_mask: Tensor | None, sentence_mask: Tensor | None
) -> Pair:
    """Embeddings of patches (N, P, D) and sentences (M, S, D), checked; 0 where a mask does not keep them."""
    p, s = read_embeds(patch_embeds, sentence_embeds, NAMES, AXES, normalize=False)
    return hide_masked(p, patch_mask, "patch_mask"), hide_masked(s, sentence_mask, "sentence_mask")


def score_pairs(
    p: Tensor,
    s: Tensor,
    patch_mask: Tensor | None,
    sentence_mask: Tensor | None,
    plan: Plan,
    tile_size: int | str | None,
    by_sentence: bool = False,
) -> Tensor:
    """Scores (N, M) of unit vectors by a plan, or (N, M, S) by sentence; all texts at once or in tiles."""
    if tile_size is not None:
        return _score_in_tiles(p, s, patch_mask, sentence_mask, plan, tile_size, by_sentence)
    return _score(p, s, patch_mask, sentence_mask, plan, by_sentence)


def _score(
    p: Tensor, s: Tensor, patch_mask: Tensor | None, sentence_mask: Tensor | None, plan: Plan, by_sentence: bool = False
) -> Tensor:
    """Scores (N, M) of unit vectors (N, P, D) and (M, S, D); or (N, M, S), of each sentence by its own part of the plan."""
    with torch.autocast(p.device.type, enabled=False):
        cosine = torch.einsum("npd,msd->nmps", p, s).contiguous()
        shape = cosine.shape  # (N, M, P, S)
        patches = as_mask(patch_mask, "patch_mask", p).unsqueeze(1).expand(shape[:3])
        sentences = as_mask(sentence_mask, "sentence_mask", s).expand(*shape[:2], shape[3])
        shares = plan(cosine, patches, sentences)
        if by_sentence:
            shares = shares / shares.sum(-2, keepdim=True).clamp_min(torch.finfo(shares.dtype).tiny)
            return (cosine * shares).sum(-2)
        return (cosine * shares).sum((-2, -1))


def _score_in_tiles(
    p: Tensor,
    s: Tensor,
    patch_mask: Tensor | None,
    sentence_mask: Tensor | None,
    plan: Plan,
    tile_size: int | str,
    by_sentence: bool = False,
) -> Tensor:
    """Scores as :func:`_score`; each tile of texts is computed again in the backward pass."""
    size, recompute = _texts_at_once(p, s, tile_size)
    sentence_mask = as_mask(sentence_mask, "sentence_mask", s)
    score = partial(checkpoint, _score, use_reentrant=False, preserve_rng_state=False) if recompute else _score
    parts = zip(s.split(size), sentence_mask.split(size), strict=True)
    return torch.cat([score(p, part, patch_mask, mask, plan, by_sentence) for part, mask in parts], dim=1)


def _texts_at_once(p: Tensor, s: Tensor, tile_size: int | str) -> tuple[int, bool]:
    """How many texts to score at a time, and whether to forget them until the backward pass."""
    check_tile_size(tile_size)
    if isinstance(tile_size, int):
        return max(1, min(tile_size, len(s))), True
    per_text = max(1, p.shape[0] * p.shape[1] * s.shape[1])
    if per_text * len(s) > TILE_ELEMENTS:
        return max(1, TILE_ELEMENTS // per_text), True
    return max(1, len(s)), False


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
    temperature: float | None = None,
    image_weight: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss of patch-sentence scores with positives by id (MLIP).

    l_ij = score(i, j) / tau with the scores of :func:`patch_sentence_scores`; targets and loss as in
    :func:`medvl.functional.image_text_contrastive_loss`. Arguments, shapes, ranges, errors and the source are those of
    :class:`medvl.losses.PatchSentenceMatchingLoss`.

    Example:
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4).reshape(2, 2, 4)
        >>> round(patch_sentence_matching_loss(patches, sentences, alignment="max", temperature=1.0).item(), 4)
        0.3133
    """
    score = partial(
        patch_sentence_scores,
        alignment=alignment,
        epsilon=epsilon,
        attention_temperature=attention_temperature,
        tile_size=tile_size,
    )
    if gather and is_distributed():
        embeds, masks, ids = (patch_embeds, sentence_embeds), (patch_mask, sentence_mask), (image_ids, text_ids)
        scores, has_patches, has_sentences, (image_ids, text_ids), weights = _gather_scores(
            score, embeds, masks, ids, weights
        )
    else:
        scores = score(patch_embeds, sentence_embeds, patch_mask, sentence_mask)  # (N, M)
        has_patches = as_mask(patch_mask, "patch_mask", patch_embeds).any(1)
        has_sentences = as_mask(sentence_mask, "sentence_mask", sentence_embeds).any(1)
        image_ids, text_ids = pair_ids(image_ids, text_ids, patch_embeds, sentence_embeds)
        weights = image_weights(weights, scores)

    logits = scores * as_scale(logit_scale, temperature, scores, 0.1)
    check_fraction(image_weight, "image_weight")
    # Without patches or sentences a score says nothing: the pair is no positive.
    positive = (image_ids[:, None] == text_ids) & has_patches[:, None] & has_sentences  # (N, M)
    image_counts, text_counts = positive.any(1), positive.any(0)
    m = positive.to(scores.dtype)

    image_terms = -(sum_to_one(m, 1) * log_softmax(logits, 1)).sum(1)  # (N,)
    text_terms = -(sum_to_one(m, 0) * log_softmax(logits, 0)).sum(0)  # (M,)

    w_v, w_t = term_weights(weights, image_ids, text_ids, image_counts, text_counts)
    image_terms, text_terms = image_weight * w_v * image_terms, (1 - image_weight) * w_t * text_terms
    return reduce_terms(image_terms, text_terms, image_counts, text_counts, reduction)


def _gather_scores(
    score: Callable[..., Tensor],
    embeds: Pair,
    masks: tuple[Tensor | None, Tensor | None],
    ids: tuple[Ids | None, Ids | None],
    weights: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Pair, Tensor | None]:
    """Scores of the images and texts of every process, which have patches and sentences, their ids, the weights.

    Each process scores its own images against the sentences of every process.
    """
    p, s = read_embeds(*embeds, NAMES, AXES, normalize=False)
    image_ids, text_ids = pair_ids(*ids, p, s)
    patch_mask, sentence_mask = as_mask(masks[0], "patch_mask", p), as_mask(masks[1], "sentence_mask", s)
    weights = image_weights(weights, p)
    # As many sentences as the process with the most has.
    missing = all_reduce_max(s.shape[1], s.device) - s.shape[1]
    s, sentence_mask = pad(s, (0, 0, 0, missing)), pad(sentence_mask, (0, missing))
    s, sentence_mask, text_ids = (all_gather_with_grad(x) for x in (s, sentence_mask, text_ids))
    # The (N, M) scores are small beside what they are made of.
    own = score(p, s, patch_mask, sentence_mask), patch_mask.any(1), image_ids
    scores, has_patches, image_ids = (all_gather_with_grad(x) for x in own)
    weights = None if weights is None else all_gather_with_grad(weights)
    return scores, has_patches, sentence_mask.any(1), (image_ids, text_ids), weights


def semantic_integrity(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    visible_mask: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Share of a report's attention that falls on the visible patches of its masked image.

    a_ip = softmax_p(max_s <patch_p, sentence_s> / temperature), c_i = sum_{p visible} a_ip; without gradient. Ours, designed
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

    Raises:
        TypeError: If embeddings are not floating point tensors, or masks are not tensors.
        ValueError: If the shapes are inconsistent, or the temperature is not above 0.

    Example:
        >>> patches, sentences = torch.eye(2)[None], torch.eye(2)[None, :1]
        >>> [round(c, 4) for c in semantic_integrity(patches, sentences, torch.tensor([[True, False]])).tolist()]
        [1.0]
        >>> [round(c, 4) for c in semantic_integrity(patches, sentences, torch.tensor([[False, True]])).tolist()]
        [0.0]
    """
    check_positive(temperature, "temperature")
    check_type(visible_mask, "visible_mask", Tensor)
    p, s = read_embeds(patch_embeds, sentence_embeds, NAMES, AXES)
    check_same_size(p, s, 0, NAMES, "number of images and reports")
    visible = as_mask(visible_mask, "visible_mask", p)
    patch_mask, sentence_mask = as_mask(patch_mask, "patch_mask", p), as_mask(sentence_mask, "sentence_mask", s)
    with torch.no_grad(), torch.autocast(p.device.type, enabled=False):
        similarity = torch.einsum("npd,nsd->nps", p, s)
        lowest = torch.finfo(similarity.dtype).min
        # One more column, so that there is a largest where no report has a sentence.
        best = pad(similarity.masked_fill(~sentence_mask.unsqueeze(1), lowest), (0, 1), value=lowest).amax(2)
        best = best.masked_fill(~sentence_mask.any(1, keepdim=True), 0.0)
        attention = (best / temperature).masked_fill(~patch_mask, lowest).softmax(1)
        return (attention * (visible & patch_mask)).sum(1)
