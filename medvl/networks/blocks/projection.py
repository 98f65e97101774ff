"""Projection of an encoder's features into the image-text embedding space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from medvl.utils.checks import check_integer, check_option, error_message

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
IMAGE_POOLINGS = ("encoder", "projected_patches", "first_patch")


class ProjectionHead(nn.Sequential):
    """Projects features (N, C) to the embedding space (N, D) by one or two linear layers.

    Two layers are ConVIRT's ``W2 relu(W1 h)`` (Zhang et al. 2022, https://arxiv.org/abs/2010.00747); one layer without bias
    is MedCLIP's (Wang et al. 2022, https://arxiv.org/abs/2210.10163). Two layers with "tanh" and a bias in the first
    correspond to the pooler and the projection of Hugging Face's models. The output is not normalized.

    Args:
        in_features: width C of the encoder's embedding, at least 1.
        out_features: width D of the embedding space, at least 1.
        layers: 1 (linear) or 2 (linear, ReLU, linear).
        hidden_features: width between the two layers, by default ``out_features``.
        bias: whether the linear layers have a bias; with two layers also a pair.
        activation: "relu", "gelu" or "tanh", between two layers.
        layer_norm: whether a layer norm follows the activation, as in CXR-BERT (Boecking et al. 2022,
            https://arxiv.org/abs/2204.09817).

    Raises:
        ValueError: If an option is unknown or out of range, or ``hidden_features`` or ``layer_norm`` is given for one layer.

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
        layer_norm: bool = False,
    ) -> None:
        check_option(activation, "activation", tuple(ACTIVATIONS))
        check_option(layers, "layers", (1, 2))
        biases = (bias,) * layers if isinstance(bias, bool) else tuple(bias)
        if len(biases) != layers:
            raise ValueError(error_message("bias", f"be one value, or one for each of {layers} layers", repr(bias)))
        for name, width in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("hidden_features", hidden_features),
        ):
            if width is not None:
                check_integer(width, name, minimum=1)
        if layers == 1:
            if hidden_features is not None:
                raise ValueError(error_message("hidden_features", "be None for layers=1", hidden_features))
            if layer_norm:
                raise ValueError(error_message("layer_norm", "be False for layers=1", layer_norm))
            super().__init__(nn.Linear(in_features, out_features, bias=biases[0]))
        else:
            hidden = hidden_features or out_features
            super().__init__(
                nn.Linear(in_features, hidden, bias=biases[0]),
                ACTIVATIONS[activation](),
                *([nn.LayerNorm(hidden, eps=1e-12)] if layer_norm else []),
                nn.Linear(hidden, out_features, bias=biases[1]),
            )
        self.in_features, self.out_features = in_features, out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project ``features`` (..., C) to (..., D).

        Raises:
            ValueError: If the width of ``features`` is not C.
        """
        if features.shape[-1] != self.in_features:
            raise ValueError(error_message("features", f"have width {self.in_features}", features.shape[-1]))
        return super().forward(features)


def normalize_embeds(embeds: torch.Tensor) -> torch.Tensor:
    """Projected features (..., D) as unit vectors, in float32 also under autocast."""
    return F.normalize(embeds.float(), dim=-1)


def pool_image(features: Mapping[str, torch.Tensor], projection: nn.Module, pooling: str = "encoder") -> torch.Tensor:
    """Unit vectors (N, D) of images.

    Args:
        features: ``embed`` (N, C) and ``patches`` (N, P, C) of an image encoder.
        projection: the images' projection.
        pooling: "encoder", the projection of the encoder's embedding; "projected_patches", the mean of the projections of the
            patches, as in BioViL; or "first_patch", the projection of the first patch, as in CXR-CLIP with a Swin.
    """
    if pooling == "projected_patches":
        return normalize_embeds(projection(features["patches"]).mean(1))
    return normalize_embeds(projection(features["patches"][:, 0] if pooling == "first_patch" else features["embed"]))
