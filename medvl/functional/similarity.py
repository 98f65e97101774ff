"""Similarity of embeddings and of label vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors scaled to length one along the last axis; a vector of length zero stays zero and gets no gradient.

    Args:
        vectors: (..., D), floating point.

    Returns:
        The same shape and dtype.

    Example:
        >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    squared = vectors.square().sum(-1, keepdim=True)
    # A square below the smallest normal number has lost its digits, and its root's gradient is no use to anyone.
    long_enough = squared > torch.finfo(vectors.dtype).tiny
    return vectors * torch.where(long_enough, torch.where(long_enough, squared, 1.0).rsqrt(), 0.0)
