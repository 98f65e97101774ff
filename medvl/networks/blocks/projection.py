"""Projection of an encoder's features into the joint image-text space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class ProjectionHead(nn.Sequential):
    """Maps features (N, C) to the joint space (N, D) by one or two linear layers.

    Two layers are ConVIRT's ``W2 relu(W1 h)`` (Zhang et al. 2022, https://arxiv.org/abs/2010.00747); one layer without bias
    is MedCLIP's (Wang et al. 2022, https://arxiv.org/abs/2210.10163). The output is not normalised. Two layers with "tanh"
    and a bias in the first are what Hugging Face's models call a pooler and a projection.

    Args:
        in_features: width C of the encoder's embedding, at least 1.
        out_features: width D of the joint space, at least 1.
        layers: 1 (linear) or 2 (linear, ReLU, linear).
        hidden_features: width between the two layers; ``out_features`` where not given.
        bias: whether the linear layers have a bias; for two layers also a pair.
        activation: between two layers, "relu", "gelu" or "tanh".

    Raises:
        ValueError: where ``layers`` is neither 1 nor 2, or ``hidden_features`` is given for one layer; an unknown activation.

    Example:
        >>> ProjectionHead(8, 4, layers=2)(torch.zeros(3, 8)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        layers: int = 1,
        hidden_features: int | None = None,
        bias: bool | Sequence[bool] = True,
        activation: str = "relu",
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
        biases = (bias,) * layers if isinstance(bias, bool) else tuple(bias)
        if layers in (1, 2) and len(biases) != layers:
            raise ValueError(f"bias must be one value, or one for each of {layers} layers, got {bias!r}.")
        for name, width in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("hidden_features", hidden_features),
        ):
            if width is not None and width < 1:
                raise ValueError(f"{name} must be at least 1, got {width}.")
        if layers == 1:
            if hidden_features is not None:
                raise ValueError(f"hidden_features needs layers=2, got hidden_features={hidden_features}, layers=1.")
            super().__init__(nn.Linear(in_features, out_features, bias=biases[0]))
        elif layers == 2:
            hidden = hidden_features or out_features
            super().__init__(
                nn.Linear(in_features, hidden, bias=biases[0]),
                ACTIVATIONS[activation](),
                nn.Linear(hidden, out_features, bias=biases[1]),
            )
        else:
            raise ValueError(f"layers must be 1 or 2, got {layers!r}.")
        self.in_features, self.out_features = in_features, out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Projects ``features`` (..., C) to (..., D).

        Raises:
            ValueError: where ``features`` has another width than C.
        """
        if features.shape[-1] != self.in_features:
            raise ValueError(f"features must have width {self.in_features}, got {features.shape[-1]}.")
        return super().forward(features)


def normalize_embeds(embeds: torch.Tensor) -> torch.Tensor:
    """Projected features (..., D) as unit vectors, in float32 also under autocast."""
    return F.normalize(embeds.float(), dim=-1)
