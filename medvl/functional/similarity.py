"""Similarity of embeddings and of label vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from medvl.utils.checks import check_option, check_positive
from medvl.utils.tensors import as_labels, check_same, wide_dtype

Similarity: TypeAlias = str | Callable[[Tensor, Tensor], Tensor]

SIMILARITIES = ("cosine", "dot", "jaccard")


def l2_normalize(vectors: Tensor) -> Tensor:
    """Vectors scaled to length one along the last axis; a vector of length zero stays zero and gets no gradient.

    Args:
        vectors: (..., D), floating point.

    Returns:
        The same shape and dtype.

    Example:
        >>> l2_normalize(torch.tensor([[0.0, -4.0], [0.0, 0.0]])).tolist()
        [[0.0, -1.0], [0.0, 0.0]]
    """
    return vectors * inverse_length(vectors)


def inverse_length(vectors: Tensor) -> Tensor:
    """1 / length along the last axis, kept as an axis of size one; 0 for a vector of length zero."""
    # Summed in float64: an error of the length is one of every logit of the vector, times a scale of up to 100.
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=wide_dtype(vectors.device))
    # Below the smallest normal number a vector has lost its digits, and the gradient would be noise.
    long_enough = length > torch.finfo(vectors.dtype).tiny
    return torch.where(long_enough, 1 / torch.where(long_enough, length, 1.0), 0.0).to(vectors.dtype)


def label_similarity(image_labels: Tensor, text_labels: Tensor, similarity: Similarity = "cosine") -> Tensor:
    """Similarity of every image's labels to every text's.

    ``"cosine"``: a.b / (norm(a) norm(b)), 0 where a vector is all zero. ``"dot"``: a.b. ``"jaccard"``: findings present (above
    0) in both, over findings present in either; 0 where none is present. A callable gets the distinct label vectors
    of both sides, (U, K) and (V, K), and gives (U, V).

    Args:
        image_labels: (N, K) numbers; NaN is a finding that is not known, and counts as 0.
        text_labels: (M, K).
        similarity: one of the names above, or a callable.

    Returns:
        (N, M).

    Raises:
        TypeError: where labels are not tensors.
        ValueError: where the widths K differ, or ``similarity`` is none of the names.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> label_similarity(labels, labels, "jaccard").tolist()
        [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    image_labels, text_labels = label_pair(image_labels, text_labels)
    if callable(similarity):
        return _similarity_of_distinct(image_labels, text_labels, similarity)
    check_option(similarity, "similarity", SIMILARITIES)
    if similarity == "jaccard":
        image_present, text_present = (image_labels > 0).to(image_labels), (text_labels > 0).to(text_labels)
        both = image_present @ text_present.T
        either = image_present.sum(1, keepdim=True) + text_present.sum(1) - both
        return both / either.clamp_min(1)
    if similarity == "cosine":
        image_labels, text_labels = l2_normalize(image_labels), l2_normalize(text_labels)
    return image_labels @ text_labels.T


def _similarity_of_distinct(image_labels: Tensor, text_labels: Tensor, similarity: Callable) -> Tensor:
    images, image_groups = image_labels.unique(dim=0, return_inverse=True)
    texts, text_groups = text_labels.unique(dim=0, return_inverse=True)
    table = similarity(images, texts)
    if not isinstance(table, Tensor) or table.shape != (len(images), len(texts)):
        received = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise ValueError(f"similarity must give a tensor of shape ({len(images)}, {len(texts)}), got {received}")
    return table[image_groups][:, text_groups].to(image_labels.dtype)


def label_pair(image_labels: Tensor | None, text_labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both label matrices as plain floats of one dtype, unknown findings as 0."""
    image_labels, text_labels = as_labels(image_labels, "image_labels"), as_labels(text_labels, "text_labels")
    check_same(image_labels, text_labels, 1, ("image_labels", "text_labels"), "width K")
    dtype = torch.promote_types(image_labels.dtype, text_labels.dtype)
    return image_labels.to(dtype).nan_to_num(0.0), text_labels.to(dtype).nan_to_num(0.0)


def semantic_targets(
    image_labels: Tensor, text_labels: Tensor, similarity: Similarity = "cosine", temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Soft targets from label similarity, for the rows and for the columns of an (N, M) matrix of logits.

    y_ij = softmax_j(s_ij / temperature) for the rows, and softmax over i for the columns, with s as in
    :func:`label_similarity`.

    Args:
        image_labels: (N, K); NaN is a finding that is not known, and counts as 0.
        text_labels: (M, K).
        similarity: ``"cosine"``, ``"dot"``, ``"jaccard"`` or a callable.
        temperature: above 0; smaller is sharper.

    Returns:
        (N, M) whose rows sum to 1, and (N, M) whose columns sum to 1.

    Raises:
        ValueError: for a temperature of 0 or below, and as :func:`label_similarity` does.

    Example:
        >>> rows, columns = semantic_targets(torch.eye(2), torch.eye(2)[:1], temperature=0.5)
        >>> rows.tolist(), [round(y, 4) for y in columns[:, 0].tolist()]
        ([[1.0], [1.0]], [0.8808, 0.1192])
    """
    check_positive(temperature, "temperature")
    logits = label_similarity(image_labels, text_labels, similarity) / temperature
    return softmax_targets(logits, 1), softmax_targets(logits, 0)


def softmax_targets(log_targets: Tensor, axis: int) -> Tensor:
    """Softmax along an axis; all 0 where every log target is -inf."""
    # torch's softmax along the first axis adds up one by one on a CPU: at 8,192 rows its float32 sums are 2e-5 off.
    return (log_targets - log_targets.logsumexp(axis, keepdim=True)).exp().nan_to_num(0.0)
