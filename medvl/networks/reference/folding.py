"""Published layers that a dual encoder has not, as part of the linear layers before them, and values in place of others."""

from __future__ import annotations

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def fold_batch_norm(weights: Weights, linear: str, norm: str, eps: float = 1e-5) -> dict[str, str]:
    """Fold a batch norm, as it is in evaluation, into the linear layer or the convolution of side 1 before it.

    Args:
        weights: the weights, changed in place: the layer becomes linear, with a bias, and the batch norm is removed.
        linear: prefix of the layer's names, as ``head.0.``.
        norm: prefix of the batch norm's names.
        eps: epsilon of the batch norm.

    Returns:
        The batch norm's names, each with that of the layer's weight; nothing if either is missing or of another shape.

    Example:
        >>> weights = {"0.weight": torch.eye(2), "1.running_mean": torch.ones(2), "1.running_var": torch.full((2,), 4.0)}
        >>> fold_batch_norm(weights, "0.", "1.", eps=0.0)
        {'1.running_mean': '0.weight', '1.running_var': '0.weight'}
        >>> weights["0.weight"].tolist(), weights["0.bias"].tolist()
        ([[0.5, 0.0], [0.0, 0.5]], [-0.5, -0.5])
    """
    names = [name for name in weights if name.startswith(norm)]
    weight, mean, variance = (
        weights.get(name) for name in (f"{linear}weight", f"{norm}running_mean", f"{norm}running_var")
    )
    if weight is None or mean is None or variance is None or not len(weight) == len(mean) == len(variance):
        return {}
    zeros = torch.zeros_like(mean)
    scale = weights.get(f"{norm}weight", torch.ones_like(mean)) / (variance + eps).sqrt()
    shift = weights.get(f"{norm}bias", zeros)
    weights[f"{linear}weight"] = weight.flatten(1) * scale.unsqueeze(1)
    weights[f"{linear}bias"] = (weights.get(f"{linear}bias", zeros) - mean) * scale + shift
    for name in names:
        del weights[name]
    return dict.fromkeys(names, f"{linear}weight")


def flatten_convolutions(weights: Weights, prefixes: tuple[str, ...]) -> None:
    """Convolutions of side 1 as linear layers, in place."""
    for name, value in weights.items():
        if name.startswith(prefixes) and value.ndim > 2 and value[0, 0].numel() == 1:
            weights[name] = value.flatten(1)


def identity(own: Tensor) -> Tensor | None:
    """The identity of the size of a square matrix; None for another."""
    return torch.eye(len(own)) if own.ndim == 2 and own.shape[0] == own.shape[1] else None


def zeros(own: Tensor) -> Tensor:
    """Zeros of the same shape."""
    return torch.zeros_like(own)
