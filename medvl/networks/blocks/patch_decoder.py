"""A light decoder that predicts the pixels of every patch from the visible ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from medvl.functional import scatter_patches


def sine_positions(grid: Sequence[int], features: int, device: torch.device | None = None) -> torch.Tensor:
    """Fixed sine and cosine embeddings of the places of a grid of any number of axes.

    Every axis gets an equal, even share of the features, sines then cosines of its coordinate at wavelengths from 2 pi to
    10,000 times that; what cannot be shared evenly stays 0.

    Args:
        grid: (h, w[, d]).
        features: width C, at least 2 for each axis.
        device: where the result lies.

    Returns:
        (P, C), float32, places in row-major order.

    Raises:
        ValueError: where ``features`` is too few.

    Example:
        >>> [[round(value, 4) for value in row] for row in sine_positions((1, 2), 4).tolist()]
        [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.8415, 0.5403]]
    """
    share = features // (2 * len(grid))
    if share < 1:
        raise ValueError(f"features must be at least {2 * len(grid)} for a grid of {len(grid)} axes, got {features}.")
    frequencies = 10_000.0 ** (-torch.arange(share, dtype=torch.float32, device=device) / share)
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in grid]
    angles = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(grid), 1) * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)  # (P, axes * 2 * share)
    return nn.functional.pad(waves, (0, features - waves.shape[1]))


class PatchDecoder(nn.Module):
    """Predicts the pixels of all patches from the embeddings of the visible ones (masked autoencoder).

    Visible patches are projected, put back in their places among copies of one learned mask token, given fixed sine-cosine
    positions, and passed through a few transformer layers (He et al. 2022, https://arxiv.org/abs/2111.06377). The positions
    are computed from the grid, so one decoder serves every grid of its number of axes. :class:`medvl.losses.MaskedPatchLoss`
    compares the prediction with the image.

    Args:
        in_features: width of the image encoder's patch embeddings.
        patch_size: pixels along each axis of a patch, one number or one an axis.
        in_channels: channels of the image.
        spatial_dims: 2 or 3.
        features: width of the decoder, divisible by ``num_heads``.
        num_layers: transformer layers.
        num_heads: attention heads.

    Raises:
        ValueError: for sizes that do not fit each other.

    Example:
        >>> decoder = PatchDecoder(in_features=6, patch_size=4, features=16, num_layers=1, num_heads=2)
        >>> decoder(torch.zeros(1, 3, 6), torch.tensor([[0, 2, 5]]), grid=(2, 3)).shape
        torch.Size([1, 6, 16])
    """

    def __init__(
        self,
        in_features: int,
        patch_size: int | Sequence[int] = 16,
        in_channels: int = 1,
        spatial_dims: int = 2,
        features: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        sizes = (patch_size,) * spatial_dims if isinstance(patch_size, int) else tuple(patch_size)
        if len(sizes) != spatial_dims:
            raise ValueError(f"patch_size must have {spatial_dims} numbers, one an axis, got {sizes}.")
        for name, number in (("patch_size", min(sizes)), ("num_layers", num_layers), ("num_heads", num_heads)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        if features % num_heads:
            raise ValueError(f"features must be divisible by num_heads {num_heads}, got {features}.")
        if features < 2 * spatial_dims:
            raise ValueError(f"features must be at least {2 * spatial_dims} for {spatial_dims} axes, got {features}.")
        self.spatial_dims, self.in_features = spatial_dims, in_features
        self.out_features = prod(sizes) * in_channels
        self.entrance = nn.Linear(in_features, features)
        self.mask_token = nn.Parameter(torch.zeros(features))
        nn.init.normal_(self.mask_token, std=0.02)
        layer = nn.TransformerEncoderLayer(
            features, num_heads, 4 * features, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, norm=nn.LayerNorm(features), enable_nested_tensor=False)
        self.exit = nn.Linear(features, self.out_features)

    def forward(self, patches: torch.Tensor, visible_indices: torch.Tensor | None, grid: Sequence[int]) -> torch.Tensor:
        """Predicts a batch.

        Args:
            patches: (N, P', C), embeddings of the visible patches.
            visible_indices: (N, P'), the index of each in the grid; None if all P patches are visible, in order.
            grid: (h, w[, d]) of all P patches.

        Returns:
            (N, P, pixels), patches in row-major order, pixels as :func:`medvl.functional.patchify` orders them.

        Raises:
            ValueError: for a grid of another number of axes, or shapes that do not fit.
        """
        grid = tuple(int(n) for n in grid)
        places = prod(grid)
        if len(grid) != self.spatial_dims:
            raise ValueError(f"grid must have {self.spatial_dims} axes, got {grid}.")
        if patches.ndim != 3 or patches.shape[2] != self.in_features:
            raise ValueError(f"patches must have shape (N, P', {self.in_features}), got {tuple(patches.shape)}.")
        if visible_indices is not None and visible_indices.shape != patches.shape[:2]:
            raise ValueError(
                f"visible_indices must have shape {tuple(patches.shape[:2])}, got {tuple(visible_indices.shape)}."
            )
        if visible_indices is None and patches.shape[1] != places:
            raise ValueError(f"grid {grid} has {places} places, got {patches.shape[1]} patches and no visible_indices.")
        tokens = self.entrance(patches)
        if visible_indices is not None:
            tokens = scatter_patches(tokens, visible_indices, self.mask_token, places)
        positions = sine_positions(grid, tokens.shape[-1], tokens.device).to(tokens.dtype)
        return self.exit(self.layers(tokens + positions))
