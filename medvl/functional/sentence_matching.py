"""Contrast of every image with every sentence by its patches, with soft targets from the similarity of labels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from medvl.functional.alignment import Plan, patch_sentence_plan, read_parts, score_pairs
from medvl.functional.batch import Ids, image_weights, warn_if_labels_are_empty
from medvl.functional.grouping import group_by_id
from medvl.functional.pooling import masked_mean
from medvl.functional.reduction import reduce_terms, scale_to_mean_one
from medvl.functional.similarity import Similarity, l2_normalize, label_similarity, log_softmax, softmax
from medvl.utils.checks import check_positive, error_message
from medvl.utils.distributed import all_gather_with_grad, all_reduce_max, is_distributed
from medvl.utils.tensors import as_float, as_ids, as_labels, as_mask, as_scale, check_same_size


def sentence_scores(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    *,
    alignment: str = "attention",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
    tile_size: int | str | None = None,
) -> Tensor:
    """Score of every image with every sentence: sum_p a_ps <patch_p, sentence_s> with shares a_ps that sum to 1 over patches.

    ``"attention"``: a_ps = softmax_p(<patch_p, sentence_s> / tau_a). ``"max"``: the best patch alone. ``"transport"``: the
    sentence's part of the plan between the patches and all sentences of its text, over its sum.

    Args:
        patch_embeds: (N, P, D), scaled to unit length here.
        sentence_embeds: (M, S, D), scaled to unit length here.
        patch_mask: (N, P), True keeps; without it, all are kept.
        sentence_mask: (M, S), True keeps. What a mask excludes may hold any value, NaN too, and gets no gradient.
        alignment: ``"attention"``, ``"max"`` or ``"transport"``.
        epsilon: regularization of the transport, above 0.
        attention_temperature: tau_a, above 0.
        tile_size: texts at a time, ``"auto"``, or None for all at once, as in :func:`patch_sentence_scores`.

    Returns:
        (N, M, S), in [-1, 1]; 0 for an image without patches or where there is no sentence.

    Raises:
        TypeError: If embeddings are not floating point tensors, or masks are not tensors.
        ValueError: If the shapes are inconsistent, or an option is out of its range.

    Example:
        >>> patches, sentences = torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> sentence_scores(patches, sentences, alignment="max").tolist()
        [[[1.0, 1.0]]]
    """
    p, s = read_parts(patch_embeds, sentence_embeds, patch_mask, sentence_mask)
    p, s = l2_normalize(p), l2_normalize(s)
    plan: Plan = partial(
        patch_sentence_plan, alignment=alignment, epsilon=epsilon, attention_temperature=attention_temperature
    )
    if alignment == "max":
        plan = _best_patch
    return score_pairs(p, s, patch_mask, sentence_mask, plan, tile_size, by_sentence=True)


def _best_patch(similarity: Tensor, patch_mask: Tensor, sentence_mask: Tensor) -> Tensor:
    """The share (..., P, S) of each sentence's best patch: 1."""
    kept = patch_mask.unsqueeze(-1) & sentence_mask.unsqueeze(-2)
    if not similarity.numel():
        return torch.zeros_like(similarity)
    best = similarity.masked_fill(~kept, torch.finfo(similarity.dtype).min).argmax(-2, keepdim=True)
    return torch.zeros_like(similarity).scatter_(-2, best, 1.0) * kept


def semantic_sentence_loss(
    patch_embeds: Tensor,
    sentence_embeds: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    patch_mask: Tensor | None = None,
    sentence_mask: Tensor | None = None,
    text_ids: Ids | None = None,
    weights: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    alignment: str = "attention",
    epsilon: float = 0.05,
    attention_temperature: float = 0.1,
    temperature: float | None = None,
    target_temperature: float = 0.1,
    similarity: Similarity = "cosine",
    present_only: bool = True,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss of images and sentences by patches, with soft targets from label similarity.

    l_is = score(i, s) / tau with the scores of :func:`sentence_scores`,  y_is = softmax_s(s_is / tau_y) of the labels'
    similarity,  L_v = mean_i -sum_s y_is log softmax_s(l_is),  L_t likewise down the columns,  L = (L_v + L_t) / 2.
    Arguments, shapes, ranges, errors and the source are those of :class:`medvl.losses.SemanticSentenceLoss`.

    Example:
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4)[::2, None]
        >>> labels = torch.eye(2)
        >>> round(semantic_sentence_loss(patches, sentences, labels, labels, alignment="max", temperature=1.0).item(), 4)
        0.3133
    """
    patches, sentences = read_parts(patch_embeds, sentence_embeds, patch_mask, sentence_mask)
    images = as_labels(image_labels, "image_labels").to(patches.device)  # (N, K)
    if len(images) != len(patches):
        expected = f"have {len(patches)} rows, one for each row of the embeddings"
        raise ValueError(error_message("image_labels", expected, len(images)))
    sentences, labels, mask = _sentences(sentences, text_labels, sentence_mask)
    check_same_size(images, labels, -1, ("image_labels", "text_labels"), "width K")
    warn_if_labels_are_empty(images, labels, "no image is contrasted with a sentence")
    weights = image_weights(weights, patches)
    distributed = gather and is_distributed()
    # Sentences of one text, each in a row of its own, share a transport plan.
    ids = (
        None
        if alignment != "transport" or text_ids is None
        else as_ids(text_ids, "text_ids", len(labels), labels.device)
    )
    if distributed:
        sentences, labels, mask = _gather_sentences(sentences, labels, mask)
        ids = None if ids is None else all_gather_with_grad(ids)
    if ids is not None and sentences.shape[1] == 1:
        sentences, labels, mask = _group_sentences(sentences, labels, mask, ids)
    scores = sentence_scores(
        patches,
        sentences,
        patch_mask,
        mask,
        alignment=alignment,
        epsilon=epsilon,
        attention_temperature=attention_temperature,
        tile_size=tile_size,
    )  # (N, M, S)
    has_patches = as_mask(patch_mask, "patch_mask", patches).any(1)
    if distributed:
        scores, images, has_patches = (all_gather_with_grad(x) for x in (scores, images, has_patches))
        weights = None if weights is None else all_gather_with_grad(weights)

    # What speaks of no finding says nothing about any image; what denies one, nothing about a place.
    stated = labels > 0 if present_only else labels.nan_to_num(0.0) != 0
    rows, columns = has_patches & (images.nan_to_num(0.0) != 0).any(-1), mask & stated.any(-1)
    check_positive(target_temperature, "target_temperature")
    with torch.autocast(scores.device.type, enabled=False):
        logits = scores[rows][:, columns] * as_scale(logit_scale, temperature, scores, 0.1)  # (N', M')
        s = (label_similarity(images[rows], labels[columns], similarity) / target_temperature).to(logits.dtype)

        image_terms = -(softmax(s, 1) * log_softmax(logits, 1)).sum(1)  # (N',)
        text_terms = -(softmax(s, 0) * log_softmax(logits, 0)).sum(0)  # (M',)

        if weights is not None:
            image_terms = image_terms * scale_to_mean_one(weights[rows], torch.ones_like(image_terms, dtype=torch.bool))
        # Every image and sentence has a term, 0 where it says nothing.
        image_terms = scores.new_zeros(len(rows)).masked_scatter(rows, 0.5 * image_terms)
        text_terms = scores.new_zeros(columns.numel()).masked_scatter(columns.flatten(), 0.5 * text_terms)
        both = rows.any() & columns.any()
        return reduce_terms(image_terms, text_terms, rows & both, columns.flatten() & both, reduction)


def _sentences(sentences: Tensor, text_labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences (M, S, D), their labels (M, S, K) and mask (M, S)."""
    by_sentence = isinstance(text_labels, Tensor) and text_labels.ndim == 3
    labels = as_float(text_labels) if by_sentence else as_labels(text_labels, "text_labels").unsqueeze(1)
    labels, mask = labels.to(sentences.device), as_mask(mask, "sentence_mask", sentences)
    if not by_sentence and sentences.shape[1] != 1:  # a label of the whole text
        sentences = masked_mean(l2_normalize(sentences), mask).unsqueeze(1)
        mask = mask.any(1, keepdim=True)
    if labels.shape[:2] != sentences.shape[:2]:
        shape = (*sentences.shape[:2], "K") if by_sentence else (len(sentences), "K")
        expected = (
            f"have shape ({', '.join(map(str, shape))}), one row for each {'sentence' if by_sentence else 'text'}"
        )
        raise ValueError(error_message("text_labels", expected, tuple(text_labels.shape)))
    return sentences, labels, mask


def _group_sentences(sentences: Tensor, labels: Tensor, mask: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences (M, 1, D), their labels (M, 1, K) and mask (M, 1), with those of one id as one text."""
    kept = mask[:, 0]
    rows, grouped, _ = group_by_id(sentences[kept, 0], ids[kept])
    return rows, group_by_id(labels[kept, 0], ids[kept])[0], grouped


def _gather_sentences(sentences: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sentences of every process, as many a text as the process with the most has."""
    missing = all_reduce_max(sentences.shape[1], sentences.device) - sentences.shape[1]
    sentences, labels = pad(sentences, (0, 0, 0, missing)), pad(labels, (0, 0, 0, missing))
    sentences, labels, mask = (all_gather_with_grad(x) for x in (sentences, labels, pad(mask, (0, missing))))
    return sentences, labels, mask
