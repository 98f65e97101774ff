"""CT-ViT, the image encoder of CT-CLIP: attention within slabs of a volume, then along them, and a codebook."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.utils.checks import check_integer, error_message


class CTViTBackbone(nn.Module):
    """CT-ViT as CT-CLIP uses it (Hamamci et al. 2024, https://arxiv.org/abs/2403.17834), up to its quantized tokens.

    A volume of H x W pixels and D slices is divided into slabs of ``slab_size`` slices, and each slab into patches of
    ``patch_size`` pixels. Transformers exchange information between the patches of a slab, and then between the slabs at one
    place. Each token is replaced by the nearest vector of a codebook. The embedding is the mean over slabs of all tokens,
    one after another, (N, h * w * hidden_size): the projection that follows sees where a token is.

    The computation is that of the released code. Its positions along the slabs are those that its convolutions see in the
    order of memory, which is not that of the volume in the second transformer; its keys and values are not normalized.

    Args:
        in_channels: channels of the volume.
        image_size: sides H and W of the volume; a multiple of ``patch_size``. D may be any multiple of ``slab_size``.
        patch_size: side of a patch in pixels.
        slab_size: number of slices of a patch.
        hidden_size: width of the tokens.
        num_heads: number of attention heads.
        head_size: width of a head.
        num_layers: layers of each of the two transformers.
        codebook_size: number of vectors in the codebook.

    Raises:
        ValueError: If a size is out of range.
    """

    supports_masking = False

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 480,
        patch_size: int = 20,
        slab_size: int = 10,
        hidden_size: int = 512,
        num_heads: int = 8,
        head_size: int = 32,
        num_layers: int = 4,
        codebook_size: int = 8192,
    ) -> None:
        super().__init__()
        sizes = {"patch_size": patch_size, "slab_size": slab_size, "hidden_size": hidden_size, "num_heads": num_heads}
        for name, size in {**sizes, "head_size": head_size, "codebook_size": codebook_size}.items():
            check_integer(size, name, minimum=1)
        check_integer(num_layers, "num_layers", minimum=0)
        if image_size % patch_size:
            raise ValueError(error_message("image_size", f"be a multiple of the patch_size {patch_size}", image_size))
        self.side, self.patch_size, self.slab_size = image_size // patch_size, patch_size, slab_size
        self.patch_features, self.out_features = hidden_size, self.side**2 * hidden_size
        pixels = in_channels * slab_size * patch_size**2
        self.patch_embedding = nn.Sequential(
            nn.LayerNorm(pixels), nn.Linear(pixels, hidden_size), nn.LayerNorm(hidden_size)
        )
        self.position_bias = PositionBias(hidden_size, num_heads)
        self.slab_transformer = Transformer(hidden_size, num_heads, head_size, num_layers)
        self.depth_transformer = Transformer(hidden_size, num_heads, head_size, num_layers)
        self.codebook: torch.Tensor
        self.register_buffer("codebook", F.normalize(torch.randn(codebook_size, hidden_size), dim=-1))

    def forward(self, image: torch.Tensor) -> PatchFeatures:
        """Encode volumes (N, C, H, W, D).

        Raises:
            ValueError: If H and W are not ``image_size``, or D is not a multiple of ``slab_size``.
        """
        size = self.side * self.patch_size
        if tuple(image.shape[2:4]) != (size, size) or image.shape[4] % self.slab_size or not image.shape[4]:
            expected = f"have the sides {size}, {size} and a multiple of {self.slab_size}"
            raise ValueError(error_message("image", expected, tuple(image.shape[2:])))
        tokens = self.patch_embedding(self._patches(image))  # (N, T, h * w, C)
        count, slabs, cells, width = tokens.shape
        shape = (count, slabs, self.side, self.side)
        tokens = self.slab_transformer(tokens.flatten(0, 1), shape, self.position_bias(self.side))
        tokens = tokens.reshape(count, slabs, cells, width).transpose(1, 2).reshape(-1, slabs, width)
        tokens = self.depth_transformer(tokens, shape).reshape(count, cells, slabs, width)
        tokens = self._quantize(tokens)
        patches = tokens.reshape(count, cells * slabs, width)  # in the order of (h, w, T)
        return PatchFeatures(tokens.mean(2).flatten(1), patches, (self.side, self.side, slabs))

    def _patches(self, image: torch.Tensor) -> torch.Tensor:
        """The pixels (N, T, h * w, pixels) of the patches, in the order of channels, slices, rows and columns."""
        side, slab, patch = self.side, self.slab_size, self.patch_size
        count, channels, _, _, depth = image.shape
        cut = image.reshape(count, channels, side, patch, side, patch, depth // slab, slab)
        return cut.permute(0, 6, 2, 4, 1, 7, 3, 5).reshape(count, depth // slab, side**2, -1)

    def _quantize(self, tokens: torch.Tensor) -> torch.Tensor:
        """The vectors of the codebook with the largest cosine similarity; the gradient passes as if nothing was replaced."""
        similarity = F.normalize(tokens.float(), dim=-1) @ F.normalize(self.codebook.float(), dim=-1).T
        nearest = self.codebook[similarity.argmax(-1)].to(tokens.dtype)
        return tokens + (nearest - tokens).detach() if self.training else nearest


class PositionBias(nn.Module):
    """A bias of the attention between two patches of a slab, from how far apart they are (Liu et al. 2022, Swin v2)."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(2, hidden_size),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden_size, hidden_size),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden_size, num_heads),
        )

    def forward(self, side: int) -> torch.Tensor:
        """The bias (heads, P, P) for a grid of ``side`` x ``side`` patches."""
        weight = next(self.network.parameters())
        axis = torch.arange(side, device=weight.device, dtype=weight.dtype)
        cells = torch.cartesian_prod(axis, axis)  # (P, 2)
        distance = cells.unsqueeze(1) - cells.unsqueeze(0)
        distance = distance.sign() * distance.abs().add(1).log()
        return self.network(distance).permute(2, 0, 1)


class Transformer(nn.Module):
    """Layers of a depthwise convolution over the volume, attention and a gated linear unit, and a layer norm."""

    def __init__(self, hidden_size: int, num_heads: int, head_size: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(hidden_size, num_heads, head_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, tokens: torch.Tensor, shape: tuple[int, ...], bias: torch.Tensor | None = None) -> torch.Tensor:
        for layer in self.layers:
            tokens = layer(tokens, shape, bias)
        return self.norm(tokens)


class Layer(nn.Module):
    """One layer of the two transformers."""

    def __init__(self, hidden_size: int, num_heads: int, head_size: int) -> None:
        super().__init__()
        self.num_heads, inner, gated = num_heads, num_heads * head_size, int(hidden_size * 8 / 3)
        self.position = nn.Conv3d(hidden_size, hidden_size, 3, groups=hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, inner, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * inner, bias=False)
        self.query_scale, self.key_scale = (nn.Parameter(torch.ones(head_size)) for _ in range(2))
        self.output = nn.Linear(inner, hidden_size, bias=False)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Linear(hidden_size, 2 * gated, bias=False)
        self.mlp_output = nn.Linear(gated, hidden_size, bias=False)

    def forward(self, tokens: torch.Tensor, shape: tuple[int, ...], bias: torch.Tensor | None) -> torch.Tensor:
        """Sequences (B, L, C) of a volume of ``shape`` (N, T, h, w), with a bias (heads, L, L) of their attention."""
        volume = tokens.reshape(*shape, -1).permute(0, 4, 1, 2, 3)
        volume = self.position(F.pad(volume, (1, 1, 1, 1, 2, 0)))  # no slab sees a later one
        tokens = tokens + volume.permute(0, 2, 3, 4, 1).reshape(tokens.shape)
        tokens = tokens + self._attend(tokens, bias)
        value, gate = self.gate(self.mlp_norm(tokens)).chunk(2, dim=-1)
        return tokens + self.mlp_output(F.gelu(gate) * value)

    def _attend(self, tokens: torch.Tensor, bias: Any) -> torch.Tensor:
        parts = self.query(self.norm(tokens)), *self.key_value(tokens).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        query, key = F.normalize(query, dim=-1) * self.query_scale, F.normalize(key, dim=-1) * self.key_scale
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=8.0)
        return self.output(mixed.transpose(1, 2).flatten(2))
