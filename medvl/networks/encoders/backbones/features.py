"""The output of a backbone."""

from __future__ import annotations

from typing import NamedTuple

import torch


class PatchFeatures(NamedTuple):
    """An image's embedding and those of its patches.

    Attributes:
        embed: (N, C).
        patches: (N, P, C) in row-major order of the grid.
        grid: (h, w[, d]), patches along each axis of the whole image.

    Example:
        >>> features = PatchFeatures.from_feature_map(torch.tensor([[[[1.0, 2.0, 6.0]]]]))
        >>> features.embed.tolist(), features.patches.tolist(), features.grid
        ([[3.0]], [[[1.0], [2.0], [6.0]]], (1, 3))
    """

    embed: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, ...]

    @classmethod
    def from_feature_map(cls, feature_map: torch.Tensor) -> PatchFeatures:
        """The cells of a feature map (N, C, h, w[, d]) as patches, their mean as the embedding."""
        patches = feature_map.flatten(2).transpose(1, 2)  # (N, P, C)
        return cls(patches.mean(1), patches, tuple(feature_map.shape[2:]))
