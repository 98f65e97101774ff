"""A light decoder that predicts the pixels of every patch from the visible patches."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from medvl.functional import scatter_patches
from medvl.utils.checks import check_integer, error_message


def sine_positions(grid: Sequence[int], features: int, device: torch.device | None = None) -> torch.Tensor:
    """Fixed sine and cosine embeddings of the positions in a grid with any number of axes.

    Every axis has the same even number of features, sines and then cosines of its coordinate at wavelengths from 2 pi to
    20,000 pi; the remaining features are 0.

    Args:
        grid: (h, w[, d]).
        features: width C, at least 2 for each axis.
        device: device of the result.

    Returns:
        (P, C), float32, positions in row-major order.

    Raises:
        ValueError: If ``features`` is too small.

    Example:
        >>> [[round(value, 4) for value in row] for row in sine_positions((1, 2), 4).tolist()]
        [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.8415, 0.5403]]
    """
    share = features // (2 * len(grid))
    if share < 1:
        raise ValueError(error_message("features", f"be at least {2 * len(grid)} for {len(grid)} axes", features))
    frequencies = 10_000.0 ** (-torch.arange(share, dtype=torch.float32, device=device) / share)
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in grid]
    angles = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(grid), 1) * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)  # (P, axes * 2 * share)
    return nn.functional.pad(waves, (0, features - waves.shape[1]))


class PatchDecoder(nn.Module):
    """Predicts the pixels of all patches from the embeddings of the visible patches (masked autoencoder).

    Visible patches are projected and put in their positions, masked ones are copies of one learned mask token; fixed
    sine-cosine position embeddings are added, and a few transformer layers follow (He et al. 2022,
    https://arxiv.org/abs/2111.06377). The position embeddings are computed from the grid, so that one decoder works for
    grids of any size. :class:`medvl.losses.MaskedPatchLoss` compares the prediction with the image.

    Args:
        in_features: width of the image encoder's patch embeddings.
        patch_size: size of a patch in pixels, one number or one for each axis.
        in_channels: channels of the image.
        spatial_dims: 2 or 3.
        features: width of the decoder, divisible by ``num_heads``.
        num_layers: number of transformer layers.
        num_heads: number of attention heads.

    Raises:
        ValueError: If sizes are out of range or inconsistent.

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
            raise ValueError(error_message("patch_size", f"have {spatial_dims} values, one for each axis", sizes))
        for name, number in (("patch_size", min(sizes)), ("num_layers", num_layers), ("num_heads", num_heads)):
            check_integer(number, name, minimum=1)
        if features % num_heads:
            raise ValueError(error_message("features", f"be divisible by num_heads {num_heads}", features))
        if features < 2 * spatial_dims:
            expected = f"be at least {2 * spatial_dims} for {spatial_dims} axes"
            raise ValueError(error_message("features", expected, features))
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
        """Predict a batch.

        Args:
            patches: (N, P', C), embeddings of the visible patches.
            visible_indices: (N, P'), the index of each in the grid; None if all P patches are visible, in order.
            grid: (h, w[, d]) of all P patches.

        Returns:
            (N, P, pixels), patches in row-major order, pixels in the order of :func:`medvl.functional.patchify`.

        Raises:
            ValueError: If the grid has another number of axes, or shapes are inconsistent.
        """
        grid = tuple(int(n) for n in grid)
        cells = prod(grid)
        if len(grid) != self.spatial_dims:
            raise ValueError(error_message("grid", f"have {self.spatial_dims} axes", grid))
        if patches.ndim != 3 or patches.shape[2] != self.in_features:
            expected = f"have shape (N, P', {self.in_features})"
            raise ValueError(error_message("patches", expected, tuple(patches.shape)))
        if visible_indices is not None and visible_indices.shape != patches.shape[:2]:
            expected = f"have shape {tuple(patches.shape[:2])}"
            raise ValueError(error_message("visible_indices", expected, tuple(visible_indices.shape)))
        if visible_indices is None and patches.shape[1] != cells:
            expected = f"have {patches.shape[1]} cells, one for each patch, without visible_indices"
            raise ValueError(error_message("grid", expected, grid))
        tokens = self.entrance(patches)
        if visible_indices is not None:
            tokens = scatter_patches(tokens, visible_indices, self.mask_token, cells)
        positions = sine_positions(grid, tokens.shape[-1], tokens.device).to(tokens.dtype)
        return self.exit(self.layers(tokens + positions))
