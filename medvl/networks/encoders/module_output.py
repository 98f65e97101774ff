"""From what a torch module returns to the embeddings of an image and of its patches."""

from __future__ import annotations

from typing import Any

import torch

from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.utils.checks import error_message


def as_patch_features(output: Any, width: int, spatial_dims: int) -> PatchFeatures:
    """The features in the output of a backbone.

    Args:
        output: a feature map (N, C, h, w[, d]); tokens (N, P, C) of a square or cubic grid, perhaps with a class token before
            them, which is then the embedding; or one vector (N, C), which is both the embedding and the only patch. Of a list
            the last is taken, as of the maps of several stages; of a pair of a tensor and a list, such as MONAI's ViT returns,
            the tensor.
        width: the number C of features.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: If the output is none of these.

    Example:
        >>> as_patch_features([torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 4, 4)], 8, 2).grid
        (4, 4)
        >>> features = as_patch_features(torch.ones(1, 8), 8, 2)
        >>> features.patches.shape, features.grid
        (torch.Size([1, 1, 8]), (1, 1))
    """
    features = _tensor(output)
    if features is not None and features.ndim == spatial_dims + 2 and features.shape[1] == width:
        return PatchFeatures.from_feature_map(features)
    if features is not None and features.ndim == 2 and features.shape[1] == width:
        return PatchFeatures(features, features.unsqueeze(1), (1,) * spatial_dims)
    if features is not None and features.ndim == 3 and features.shape[2] == width:
        for prefix in (0, 1):
            side = round((features.shape[1] - prefix) ** (1 / spatial_dims))
            if side and side**spatial_dims + prefix == features.shape[1]:
                patches = features[:, prefix:]
                return PatchFeatures(features[:, 0] if prefix else patches.mean(1), patches, (side,) * spatial_dims)
    axes = "h, w" if spatial_dims == 2 else "h, w, d"
    expected = (
        f"give a feature map (N, {width}, {axes}), tokens (N, P, {width}) of a square grid or a vector (N, {width})"
    )
    got = f"a {type(output).__name__}" if features is None else tuple(features.shape)
    raise ValueError(error_message("backbone", expected, got))


def _tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    if not isinstance(output, list | tuple):
        return None
    if len(output) == 2 and isinstance(output[0], torch.Tensor) and isinstance(output[1], list | tuple):
        return output[0]
    return next((part for part in reversed(output) if isinstance(part, torch.Tensor)), None)
