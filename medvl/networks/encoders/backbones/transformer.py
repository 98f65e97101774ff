"""MONAI's ViT and Swin transformers, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.vit import ViT
from torch import nn

from medvl.functional.masking import gather_patches, patchify
from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.utils.checks import check_option, error_message

# Width and depth; a head has 64 channels and the MLP is four times as wide, as in the paper's table.
VITS = {
    "vit": {"hidden_size": 768, "num_layers": 12},
    "vit_tiny": {"hidden_size": 192, "num_layers": 12},
    "vit_small": {"hidden_size": 384, "num_layers": 12},
    "vit_base": {"hidden_size": 768, "num_layers": 12},
    "vit_large": {"hidden_size": 1024, "num_layers": 24},
}
SWINS: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "swin_tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "swin_small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "swin_base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
VIT_POOLINGS = ("mean", "cls")


def _each_axis(name: str, value: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    sides = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(sides) != spatial_dims or min(sides) < 1:
        raise ValueError(
            error_message(name, f"be a number of at least 1, or {spatial_dims} of them, one for each axis", value)
        )
    return sides


class ViTBackbone(ViT):
    """MONAI's Vision Transformer, whose blocks compute only the visible patches.

    Args:
        name: "vit_tiny", "vit_small", "vit_base" (or "vit") or "vit_large".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        image_size: side of the images, fixed by the position table; a multiple of ``patch_size``.
        patch_size: side of a patch, one number or one for each axis.
        pooling: the embedding, "mean" of the visible patches or a learned "cls" token.
        layer_norm_eps: epsilon of the layer norms: MONAI's 1e-5; timm's and torchvision's weights need 1e-6.
        **options: of MONAI's ``ViT``: ``hidden_size``, ``num_layers``, ``num_heads`` (by default one for each 64 channels),
            ``mlp_dim`` (by default 4 x ``hidden_size``), ``pos_embed_type``, ``dropout_rate``, ``qkv_bias`` ...
    """

    supports_masking = True

    def __init__(
        self,
        name: str,
        spatial_dims: int = 2,
        in_channels: int = 1,
        image_size: int = 224,
        patch_size: int | Sequence[int] = 16,
        pooling: str = "mean",
        layer_norm_eps: float = 1e-5,
        **options: Any,
    ) -> None:
        check_option(pooling, "pooling", VIT_POOLINGS)
        sides = _each_axis("patch_size", patch_size, spatial_dims)
        if any(image_size % side for side in sides):
            raise ValueError(error_message("image_size", f"be a multiple of patch_size {patch_size}", image_size))
        options = {**VITS[name], **options}
        width = options["hidden_size"]
        options = {"num_heads": max(width // 64, 1), "mlp_dim": 4 * width, **options}
        if width % options["num_heads"]:
            raise ValueError(error_message("hidden_size", f"be a multiple of num_heads {options['num_heads']}", width))
        if options.get("pos_embed_type") == "sincos" and width % (2 * spatial_dims):
            raise ValueError(
                error_message(
                    "hidden_size",
                    f"be a multiple of {2 * spatial_dims}, a sine and a cosine for each axis, where pos_embed_type is 'sincos'",
                    width,
                )
            )
        super().__init__(
            in_channels=in_channels,
            img_size=(image_size,) * spatial_dims,
            patch_size=sides,
            spatial_dims=spatial_dims,
            classification=pooling == "cls",
            **options,
        )
        self.patch_size, self.image_size, self.out_features = sides, image_size, width
        if pooling == "cls":
            del self.classification_head
        learned = options.get("pos_embed_type", "learnable") == "learnable"
        self.patch_embedding.position_embeddings.requires_grad_(learned)
        for block in self.blocks:
            block.norm_cross_attn = nn.Identity()  # created by MONAI, though there is no cross attention
            # Fused attention gives the same values; with dropout, MONAI's would drop weights in evaluation too.
            block.attn.use_flash_attention = not (options.get("dropout_rate") or options.get("save_attn"))
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = layer_norm_eps

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> PatchFeatures:
        if any(side != self.image_size for side in image.shape[2:]):
            raise ValueError(
                error_message(
                    "image",
                    f"have sides of {self.image_size} pixels, as the ViT's position table has",
                    f"{tuple(image.shape[2:])}; build the encoder with image_size=",
                )
            )
        grid = tuple(self.image_size // side for side in self.patch_size)
        tokens = (
            self.patch_embedding(image) if visible_indices is None else self._embed_visible(image, visible_indices)
        )  # (N, P', C)
        prefix = hasattr(self, "cls_token")
        if prefix:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return (
            PatchFeatures(tokens[:, 0], tokens[:, 1:], grid) if prefix else PatchFeatures(tokens.mean(1), tokens, grid)
        )

    def _embed_visible(self, image: torch.Tensor, visible_indices: torch.Tensor) -> torch.Tensor:
        embedding = self.patch_embedding
        pixels = gather_patches(patchify(image, self.patch_size), visible_indices)  # (N, P', pixels), channels last
        if embedding.proj_type == "conv":
            kernel = embedding.patch_embeddings.weight.movedim(1, -1).flatten(1)
            tokens = F.linear(pixels, kernel, embedding.patch_embeddings.bias)
        else:
            tokens = embedding.patch_embeddings[1](pixels)
        return embedding.dropout(tokens + embedding.position_embeddings[0, visible_indices])


class SwinBackbone(SwinTransformer):
    """The Swin transformer of MONAI's SwinUNETR, as Liu et al. 2021 (https://arxiv.org/abs/2103.14030) use it to classify.

    It lacks the merging after the last stage, which only the U-Net needs, and has a last layer norm: "swin_tiny" for 2D images
    has the paper's widths, 768 channels at 1/32 of the resolution. Images are padded to whole patches and windows.

    Args:
        name: "swin_tiny" (or "swin"), "swin_small" or "swin_base".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        patch_size: side of a patch, one number or one for each axis.
        window_size: side of an attention window in patches, one number or one for each axis.
        **options: of MONAI's ``SwinTransformer``: ``embed_dim``, ``depths`` and ``num_heads`` (four stages),
            ``drop_path_rate``, ``use_v2``, ``use_checkpoint`` ...
    """

    def __init__(
        self,
        name: str,
        spatial_dims: int = 2,
        in_channels: int = 1,
        patch_size: int | Sequence[int] = 4,
        window_size: int | Sequence[int] = 7,
        **options: Any,
    ) -> None:
        options = {"patch_norm": True, **SWINS[name], **options}
        for option in ("depths", "num_heads"):
            if len(options[option]) != 4:
                raise ValueError(error_message(option, "have a number for each of 4 stages", len(options[option])))
        for stage, heads in enumerate(options["num_heads"]):
            width = options["embed_dim"] * 2**stage
            if width % heads:
                raise ValueError(
                    error_message(f"num_heads of stage {stage + 1}", f"divide its {width} channels", heads)
                )
        super().__init__(
            in_chans=in_channels,
            patch_size=_each_axis("patch_size", patch_size, spatial_dims),
            window_size=_each_axis("window_size", window_size, spatial_dims),
            spatial_dims=spatial_dims,
            **options,
        )
        self.layers4[0].downsample = None
        self.out_features = self.num_features
        self.norm = nn.LayerNorm(self.out_features)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = super().forward(image, normalize=False)[-1]
        return self.norm(features.movedim(1, -1)).movedim(-1, 1)
