"""Similarity of embeddings and of label vectors, and the soft targets made from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from medvl.utils.checks import check_option, check_positive, error_message
from medvl.utils.tensors import as_labels, check_same_size, wide_dtype

Similarity: TypeAlias = str | Callable[[Tensor, Tensor], Tensor]

SIMILARITIES = ("cosine", "dot", "jaccard")


def l2_normalize(vectors: Tensor) -> Tensor:
    """Scale vectors to unit length along the last axis; a zero vector stays zero and gets no gradient.

    Unlike :func:`torch.nn.functional.normalize`, lengths are summed in float64, and there is no epsilon: every vector
    longer than the smallest normal number of its dtype gets length 1.

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
    """1 / length along the last axis, which keeps size 1; 0 for a zero vector."""
    # Summed in float64: an error of the length is one of every logit of the vector, times a scale of up to 100.
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=wide_dtype(vectors.device))
    # Below the smallest normal number a vector has lost its digits, and the gradient would be noise.
    too_short = ~(length > torch.finfo(vectors.dtype).tiny)
    return (1 / length.masked_fill(too_short, torch.inf)).to(vectors.dtype)


def softmax(logits: Tensor, axis: int) -> Tensor:
    """Softmax along an axis; 0 where every entry is -inf, rather than NaN."""
    # torch's softmax along the first axis adds up one by one on a CPU: at 8,192 rows its float32 sums are 2e-5 off.
    return (logits - logits.logsumexp(axis, keepdim=True)).exp().nan_to_num(0.0)


def log_softmax(logits: Tensor, axis: int) -> Tensor:
    """Logarithm of the softmax along an axis, precise along the first axis too (see :func:`softmax`)."""
    return logits - logits.logsumexp(axis, keepdim=True)


def label_similarity(image_labels: Tensor, text_labels: Tensor, similarity: Similarity = "cosine") -> Tensor:
    """Similarity of every image's labels to every text's.

    ``"cosine"``: a.b / (norm(a) norm(b)), 0 where a vector is all zero. ``"dot"``: a.b. ``"jaccard"``: findings present (above
    0) in both, over findings present in either; 0 where none is present. A callable gets the distinct label vectors
    of both sides, (U, K) and (V, K), and returns (U, V).

    Args:
        image_labels: (N, K) numbers; NaN marks an unknown finding and counts as 0.
        text_labels: (M, K).
        similarity: one of the names above, or a callable.

    Returns:
        (N, M).

    Raises:
        TypeError: If labels are not tensors.
        ValueError: If the widths K differ, or ``similarity`` is none of the names.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> label_similarity(labels, labels, "jaccard").tolist()
        [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    image_labels, text_labels = known_labels(image_labels, text_labels)
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


def _similarity_of_distinct(image_labels: Tensor, text_labels: Tensor, similarity: Callable[..., Tensor]) -> Tensor:
    images, image_groups = image_labels.unique(dim=0, return_inverse=True)
    texts, text_groups = text_labels.unique(dim=0, return_inverse=True)
    table = similarity(images, texts)
    if not isinstance(table, Tensor) or table.shape != (len(images), len(texts)):
        received = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
        expected = f"return a tensor of shape ({len(images)}, {len(texts)})"
        raise ValueError(error_message("similarity", expected, received))
    return table[image_groups][:, text_groups].to(image_labels.dtype)


def known_labels(image_labels: Tensor | None, text_labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both label matrices as plain floats of one dtype, unknown findings as 0."""
    images, texts = as_labels(image_labels, "image_labels"), as_labels(text_labels, "text_labels")
    check_same_size(images, texts, 1, ("image_labels", "text_labels"), "width K")
    dtype = torch.promote_types(images.dtype, texts.dtype)
    return images.to(dtype).nan_to_num(0.0), texts.to(dtype).nan_to_num(0.0)


def semantic_targets(
    image_labels: Tensor, text_labels: Tensor, similarity: Similarity = "cosine", temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Soft targets from label similarity, for the rows and for the columns of an (N, M) matrix of logits.

    y_ij = softmax_j(s_ij / temperature) for the rows, and softmax over i for the columns, with s as in
    :func:`label_similarity`.

    Args:
        image_labels: (N, K); NaN marks an unknown finding and counts as 0.
        text_labels: (M, K).
        similarity: ``"cosine"``, ``"dot"``, ``"jaccard"`` or a callable.
        temperature: above 0; smaller is sharper.

    Returns:
        (N, M) whose rows sum to 1, and (N, M) whose columns sum to 1.

    Raises:
        TypeError: If labels are not tensors.
        ValueError: If the temperature is not above 0, the widths K differ, or ``similarity`` is none of the names.

    Example:
        >>> rows, columns = semantic_targets(torch.eye(2), torch.eye(2)[:1], temperature=0.5)
        >>> rows.tolist(), [round(y, 4) for y in columns[:, 0].tolist()]
        ([[1.0], [1.0]], [0.8808, 0.1192])
    """
    check_positive(temperature, "temperature")
    logits = label_similarity(image_labels, text_labels, similarity) / temperature
    return softmax(logits, 1), softmax(logits, 0)
