"""Contrastive losses between N images and M texts: softmax over rows and columns, hard and soft targets alike."""

from __future__ import annotations

import torch
from torch import Tensor

from medvl.functional.batch import (
    Batch,
    Ids,
    ids_and_labels,
    image_weights,
    optional_ids,
    pair_ids,
    pair_labels,
    paired_rows,
    warn_if_labels_are_empty,
    warn_if_without_positive,
)
from medvl.functional.grouping import gathered_mean_by_id, mean_by_id
from medvl.functional.reduction import reduce_terms, term_weights
from medvl.functional.similarity import Similarity, label_similarity, log_softmax, softmax
from medvl.functional.targets import (
    ALL,
    agreement_blocks,
    agreement_targets,
    id_targets,
    similarity_targets,
    sum_to_one,
)
from medvl.functional.tiled import split_batch, tiled_contrastive_loss
from medvl.utils.checks import check_fraction, check_positive, error_message
from medvl.utils.tensors import as_scale, check_axes, check_same_size


def image_text_contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Ids | None = None,
    text_ids: Ids | None = None,
    weights: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    temperature: float | None = None,
    image_weight: float = 0.75,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
    pool_texts: bool = False,
    paired_only: bool = False,
) -> Tensor:
    """Contrastive loss with positives by id (ConVIRT, CLIP).

    y_ij = [id_i = id_j] / sum_j [id_i = id_j],  L_v = mean_i -sum_j y_ij log softmax_j(<v_i, t_j> / tau),  L_t likewise
    down the columns,  L = lambda L_v + (1 - lambda) L_t. Arguments, shapes, ranges, errors and the source are those of
    :class:`medvl.losses.ImageTextContrastiveLoss`.

    Example:
        >>> round(image_text_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
        0.3133
    """
    if paired_only and (ids := optional_ids(image_ids, text_ids, image_embeds, text_embeds)) is not None:
        images, texts = paired_rows(ids, gather)
        weights = image_weights(weights, image_embeds)
        weights = None if weights is None else weights[images]
        image_embeds, text_embeds, image_ids, text_ids = (
            image_embeds[images],
            text_embeds[texts],
            ids[0][images],
            ids[1][texts],
        )
    if pool_texts:
        if text_ids is None:
            raise ValueError(error_message("text_ids", "be given where pool_texts is True", None))
        text_embeds, text_ids = (gathered_mean_by_id if gather else mean_by_id)(text_embeds, text_ids)
    if gather or tile_size is not None:
        embeds = read_embeds(image_embeds, text_embeds, normalize=False)
        ids = pair_ids(image_ids, text_ids, *embeds)
        batch, tile = split_batch(Batch(embeds, ids, weights=image_weights(weights, embeds[0])), gather, tile_size)
        scale = as_scale(logit_scale, temperature, embeds[0], 0.1)
        if tile is not None:
            return tiled_contrastive_loss(batch, id_targets(batch), scale, image_weight, reduction, gather, tile)
        return image_text_contrastive_loss(
            **batch.arguments(), logit_scale=scale, image_weight=image_weight, reduction=reduction
        )

    v, t = read_embeds(image_embeds, text_embeds)  # unit vectors (N, D), (M, D)
    with torch.autocast(v.device.type, enabled=False):
        logits = v @ t.T * as_scale(logit_scale, temperature, v, 0.1)  # (N, M)
        check_fraction(image_weight, "image_weight")
        image_ids, text_ids = pair_ids(image_ids, text_ids, v, t)
        positive = image_ids[:, None] == text_ids  # (N, M)
        image_counts, text_counts = positive.any(1), positive.any(0)
        m = positive.to(v.dtype)

        image_terms = -(sum_to_one(m, 1) * log_softmax(logits, 1)).sum(1)  # (N,)
        text_terms = -(sum_to_one(m, 0) * log_softmax(logits, 0)).sum(0)  # (M,)

        w_v, w_t = term_weights(image_weights(weights, v), image_ids, text_ids, image_counts, text_counts)
        image_terms, text_terms = image_weight * w_v * image_terms, (1 - image_weight) * w_t * text_terms
        return reduce_terms(image_terms, text_terms, image_counts, text_counts, reduction)


def semantic_matching_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    image_label_mask: Tensor | None = None,
    text_label_mask: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    *,
    temperature: float | None = None,
    target_temperature: float = 1.0,
    similarity: Similarity = "cosine",
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
) -> Tensor:
    """Contrastive loss with soft targets from label similarity (MedCLIP).

    y_ij = softmax_j(s_ij / tau_y),  L_v = mean_i -sum_j y_ij log softmax_j(<v_i, t_j> / tau),  L_t likewise down the
    columns,  L = (L_v + L_t) / 2. Arguments, shapes, ranges, errors and the source are those of
    :class:`medvl.losses.SemanticMatchingLoss`.

    Example:
        >>> labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> round(semantic_matching_loss(torch.eye(2), torch.eye(2), labels, labels, temperature=1.0).item(), 4)
        0.4325
    """
    labels, masks = (image_labels, text_labels), (image_label_mask, text_label_mask)
    if gather or tile_size is not None:
        embeds = read_embeds(image_embeds, text_embeds, normalize=False)
        batch, tile = split_batch(Batch(embeds, labels=pair_labels(labels, masks, embeds)), gather, tile_size)
        scale = as_scale(logit_scale, temperature, embeds[0], 0.07)
        if tile is not None:
            warn_if_labels_are_empty(*pair_labels(labels, masks, embeds))
            targets = similarity_targets(batch, similarity, target_temperature)
            return tiled_contrastive_loss(batch, targets, scale, 0.5, reduction, gather, tile)
        return semantic_matching_loss(
            **batch.arguments(),
            logit_scale=scale,
            target_temperature=target_temperature,
            similarity=similarity,
            reduction=reduction,
        )

    v, t = read_embeds(image_embeds, text_embeds)  # unit vectors (N, D), (M, D)
    with torch.autocast(v.device.type, enabled=False):
        logits = v @ t.T * as_scale(logit_scale, temperature, v, 0.07)  # (N, M)
        a, b = pair_labels(labels, masks, (v, t))  # (N, K), (M, K)
        warn_if_labels_are_empty(a, b)
        check_positive(target_temperature, "target_temperature")
        s = (label_similarity(a, b, similarity) / target_temperature).to(v.dtype)  # (N, M)

        image_terms = -(softmax(s, 1) * log_softmax(logits, 1)).sum(1)  # (N,)
        text_terms = -(softmax(s, 0) * log_softmax(logits, 0)).sum(0)  # (M,)

        has_target = s > -torch.inf
        return reduce_terms(0.5 * image_terms, 0.5 * text_terms, has_target.any(1), has_target.any(0), reduction)


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
    temperature: float | None = None,
    image_weight: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
    tile_size: int | str | None = None,
    agreement_temperature: float | None = None,
) -> Tensor:
    """Contrastive loss with positives by id or label (UMCL).

    y_ij = m_ij / sum_j m_ij with m_ij = 1 where ids are equal, else the agreement of labels,
    L_v = mean_i -sum_j y_ij log softmax_j(<v_i, t_j> / tau),  L_t likewise down the columns,
    L = lambda L_v + (1 - lambda) L_t. Arguments, shapes, ranges, errors and the source are those of
    :class:`medvl.losses.ImageTextLabelContrastiveLoss`.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> round(image_text_label_contrastive_loss(torch.eye(2), torch.eye(2), labels, labels, temperature=1.0).item(), 4)
        0.8133
    """
    ids, labels, masks = (image_ids, text_ids), (image_labels, text_labels), (image_label_mask, text_label_mask)
    if gather or tile_size is not None:
        embeds = read_embeds(image_embeds, text_embeds, normalize=False)
        batch, tile = split_batch(Batch(embeds, *ids_and_labels(ids, labels, masks, embeds)), gather, tile_size)
        scale = as_scale(logit_scale, temperature, embeds[0], 0.07)
        if tile is not None:
            targets = agreement_targets(batch, label_agreement, agreement_temperature)
            return tiled_contrastive_loss(batch, targets, scale, image_weight, reduction, gather, tile)
        return image_text_label_contrastive_loss(
            **batch.arguments(),
            logit_scale=scale,
            label_agreement=label_agreement,
            agreement_temperature=agreement_temperature,
            image_weight=image_weight,
            reduction=reduction,
        )

    v, t = read_embeds(image_embeds, text_embeds)  # unit vectors (N, D), (M, D)
    with torch.autocast(v.device.type, enabled=False):
        logits = v @ t.T * as_scale(logit_scale, temperature, v, 0.07)  # (N, M)
        check_fraction(image_weight, "image_weight")
        known = ids_and_labels(ids, labels, masks, (v, t))
        agreement = agreement_blocks(*known, label_agreement, agreement_temperature)
        m = agreement(ALL, ALL).to(v.dtype)  # (N, M)
        warn_if_without_positive(m)

        image_terms = -(sum_to_one(m, 1) * log_softmax(logits, 1)).sum(1)  # (N,)
        text_terms = -(sum_to_one(m, 0) * log_softmax(logits, 0)).sum(0)  # (M,)

        image_terms, text_terms = image_weight * image_terms, (1 - image_weight) * text_terms
        return reduce_terms(image_terms, text_terms, m.any(1), m.any(0), reduction)


def read_embeds(
    image_embeds: Tensor,
    text_embeds: Tensor,
    names: tuple[str, str] = ("image_embeds", "text_embeds"),
    axes: tuple[str, str] = ("N, D", "M, D"),
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Check embeddings of images and of texts, bring them to one dtype and scale them to unit length.

    All in one body: this is everything that runs between the call of a loss and its matrix product.

    Args:
        image_embeds: (N, D), floating point.
        text_embeds: (M, D), floating point.
        names: what error messages call the two.
        axes: the axes of the two, D the last.
        normalize: scale to unit length, with the values of :func:`medvl.functional.l2_normalize`.

    Returns:
        Plain tensors of the same shapes, float64 if one of the two is, else float32.

    Raises:
        TypeError: If the embeddings are not floating point tensors.
        ValueError: If their shapes are inconsistent.
    """
    read = []
    for name, axis_names, vectors in zip(names, axes, (image_embeds, text_embeds), strict=True):
        ok = isinstance(vectors, Tensor) and vectors.is_floating_point() and vectors.ndim == axis_names.count(",") + 1
        if not ok:
            check_axes(vectors, name, axis_names)
    if image_embeds.shape[-1] != text_embeds.shape[-1]:
        check_same_size(image_embeds, text_embeds, -1, names, "width D")
    # float32 at least: half precision cannot hold a logit of 100.
    dtype = torch.float64 if torch.float64 in (image_embeds.dtype, text_embeds.dtype) else torch.float32
    for vectors in (image_embeds, text_embeds):
        # MetaTensor survives every operation, slowly; tracing has subclasses of its own, by which it follows a tensor.
        if type(vectors) not in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling():
            vectors = vectors.as_subclass(Tensor)
        vectors = vectors.to(dtype)
        if normalize:
            wide = torch.float32 if vectors.device.type == "mps" else torch.float64
            length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=wide)
            too_short = ~(length > torch.finfo(dtype).tiny)
            vectors = vectors * (1 / length.masked_fill(too_short, torch.inf)).to(dtype)
        read.append(vectors)
    return read[0], read[1]
