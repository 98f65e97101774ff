"""Image encoders: one embedding per image and one per patch, from any backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medvl.networks.encoders.backbones import (
    NAMES,
    HuggingFaceBackbone,
    PatchFeatures,
    build_backbone,
    is_hugging_face,
)
from medvl.utils.tensors import as_plain


class ImageEncoder(nn.Module):
    """Global and patch embeddings of images, 2D or 3D.

    Convolutional networks and Swin give the cells of their last feature map as patches, and their mean as the global
    embedding. A ViT gives its patch tokens, and their mean or a class token (``pooling``). A Hugging Face model's global
    embedding is what it pools itself, or its class token. The ViTs, MONAI's and Hugging Face's, take ``visible_indices``.

    ======================================================== ======= ================================================
    ``backbone``                                             2D, 3D  some options, all of MONAI's are taken
    ======================================================== ======= ================================================
    resnet10, 18, 34, 50, 101, 152, 200                      both    ``width``, ``norm``, ``no_max_pool``
    densenet121, 169, 201, 264                               both    ``growth_rate``, ``init_features``, ``dropout_prob``
    efficientnet-b0 ... -b8                                  both    ``norm``
    vit_tiny, vit_small, vit_base (= vit), vit_large         both    ``patch_size``, ``pooling``, ``hidden_size``,
                                                                     ``num_layers``, ``pos_embed_type``
    swin_tiny (= swin), swin_small, swin_base                both    ``patch_size``, ``window_size``, ``embed_dim``,
                                                                     ``depths``, ``num_heads``, ``drop_path_rate``
    a Hugging Face vision model, its configuration, a folder 2D
    ======================================================== ======= ================================================

    Args:
        backbone: a name of the table, built with random weights; a Hugging Face vision model, its configuration (object,
            or dictionary with ``model_type``; random weights) or a local folder (its weights); or a torch module that maps
            (N, ``in_channels``, H, W[, D]) to a feature map (N, C, h, w[, d]), in which case ``out_features`` is needed.
        spatial_dims: 2 for (N, C, H, W), 3 for (N, C, H, W, D).
        in_channels: channels of the image, 1 for radiographs and CT. A single channel is repeated over the channels of a
            Hugging Face model that has more.
        image_size: side in pixels of the square or cubic images that the encoder is meant for; evaluation resizes to it.
            A ViT takes no other. By default a Hugging Face model's own, else 224.
        out_features: channels C of a given module's feature map.
        **options: passed to a named backbone.

    Attributes:
        out_features (int): width C of the embeddings.
        supports_masking (bool): whether :meth:`forward` takes ``visible_indices``.
        patch_size (tuple[int, ...] | None): sides in pixels of a ViT's patches; None for other backbones.

    Raises:
        ValueError: an unknown name; ``spatial_dims`` other than 2 and 3, or 3 with a Hugging Face model; a module without
            ``out_features``; sizes that do not fit each other, such as an image size that the patch size does not divide.

    Example:
        >>> encoder = ImageEncoder("resnet10", image_size=64, width=0.25)
        >>> output = encoder(torch.zeros(2, 1, 64, 64))
        >>> output["embed"].shape, output["patches"].shape, output["grid"]
        (torch.Size([2, 128]), torch.Size([2, 4, 128]), (2, 2))
        >>> vit = ImageEncoder("vit", image_size=32, patch_size=8, hidden_size=64, num_layers=2)
        >>> output = vit(torch.zeros(2, 1, 32, 32), visible_indices=torch.tensor([[0, 5, 9], [3, 2, 1]]))
        >>> output["patches"].shape, output["grid"]
        (torch.Size([2, 3, 64]), (4, 4))
    """

    def __init__(
        self,
        backbone: Any = "resnet50",
        spatial_dims: int = 2,
        in_channels: int = 1,
        image_size: int | None = None,
        out_features: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
        for name, number in (("in_channels", in_channels), ("image_size", image_size)):
            if number is not None and not (isinstance(number, int) and number > 0):
                raise ValueError(f"{name} must be one number of at least 1, got {number!r}.")
        self.backbone: nn.Module
        self._config: dict[str, Any] | None = None
        named = isinstance(backbone, str) and backbone in NAMES
        if options and not named:
            raise ValueError(f"options {', '.join(options)} belong to a named backbone, got {_kind(backbone)}.")
        if named:
            self.backbone = build_backbone(backbone, spatial_dims, in_channels, image_size or 224, **options)
            self._config = {"backbone": backbone, **options}
        elif is_hugging_face(backbone):
            if spatial_dims != 2:
                raise ValueError(f"spatial_dims must be 2 with a Hugging Face model, got {spatial_dims}.")
            self.backbone = HuggingFaceBackbone(backbone, in_channels, image_size)
            self._config = {"backbone": self.backbone.to_config()}
            image_size = self.backbone.image_size
        elif isinstance(backbone, nn.Module):
            if out_features is None:
                raise ValueError("out_features, the channels of the feature map, is needed where backbone is a module.")
            self.backbone, self.out_features = backbone, out_features
        else:
            raise ValueError(
                f"backbone must be one of {', '.join(NAMES)}, a Hugging Face vision model, its configuration or local "
                f"folder, or a torch module, got {backbone!r}."
            )
        if self._config is not None:
            self.out_features = int(self.backbone.out_features)
        self.spatial_dims, self.in_channels, self.image_size = spatial_dims, in_channels, image_size or 224
        self.supports_masking: bool = getattr(self.backbone, "supports_masking", False)
        self.patch_size: tuple[int, ...] | None = self.backbone.patch_size if self.supports_masking else None

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder anew, as plain values for JSON.

        Raises:
            ValueError: where the backbone was given as a module, which plain values cannot describe.
        """
        if self._config is None:
            raise ValueError(
                f"the image encoder's backbone was given as a {type(self.backbone).__name__} module and has no "
                "configuration; save its state_dict, or build the encoder from a backbone's name."
            )
        return {
            **self._config,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "image_size": self.image_size,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageEncoder:
        """The encoder that :meth:`to_config` describes, with random weights."""
        return cls(**config)

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> dict[str, Any]:
        """Encodes a batch.

        Args:
            image: (N, ``in_channels``, H, W[, D]), values in [0, 1], or normalized as the backbone's weights want it.
            visible_indices: (N, P') indices of the patches to encode, in any order, where the backbone is a ViT. The others are
                dropped before its blocks, so that a step costs what its visible patches cost; the kept ones keep their
                positions.

        Returns:
            ``embed`` (N, C); ``patches`` (N, P, C) in row-major order of the grid, or (N, P', C) in the order of
            ``visible_indices``; ``grid`` (h, w[, d]), of the whole image.

        Raises:
            ValueError: where ``image`` has another number of dimensions or channels, whole numbers, or a size that the
                backbone cannot take; where it is one image, so small that batch norm is left with one value a channel to
                train on; where ``visible_indices`` has another shape than (N, P'), a patch that the image does not have (on an
                accelerator, where looking would stall it, torch's own error), or a backbone that is no ViT.
        """
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            axes = "H, W" if self.spatial_dims == 2 else "H, W, D"
            raise ValueError(f"image must have the shape (N, {self.in_channels}, {axes}), got {tuple(image.shape)}.")
        if not image.is_floating_point():
            raise ValueError(f"image must hold floating point values, got {image.dtype}.")
        image = as_plain(image)
        if visible_indices is not None:
            visible_indices = as_plain(visible_indices)
            self._check_visible(visible_indices, image)
        try:
            features = self.backbone(image) if visible_indices is None else self.backbone(image, visible_indices.long())
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"image must hold more or larger images to train a backbone with batch norm, which is left with one value of "
                f"each channel, got {len(image)} of {tuple(image.shape[2:])} pixels."
            ) from error
        if isinstance(features, torch.Tensor):
            if features.ndim != image.ndim or features.shape[1] != self.out_features:
                axes = "h, w" if self.spatial_dims == 2 else "h, w, d"
                raise ValueError(
                    f"backbone must give a feature map (N, {self.out_features}, {axes}), gave {tuple(features.shape)}."
                )
            features = PatchFeatures.of_map(features)
        return features._asdict()

    def _check_visible(self, visible_indices: torch.Tensor, image: torch.Tensor) -> None:
        if self.patch_size is None:
            raise ValueError(f"visible_indices needs a ViT backbone, got one of type {type(self.backbone).__name__}.")
        shape_fits = visible_indices.ndim == 2 and len(visible_indices) == len(image) and visible_indices.shape[1] > 0
        if not shape_fits or visible_indices.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"visible_indices must hold integer patch indices of shape ({len(image)}, P'), "
                f"got {visible_indices.dtype} of shape {tuple(visible_indices.shape)}."
            )
        if visible_indices.device.type == "cpu" and not torch.compiler.is_compiling():
            patches = math.prod(side // patch for side, patch in zip(image.shape[2:], self.patch_size, strict=True))
            low, high = (int(index) for index in visible_indices.aminmax())
            if low < 0 or high >= patches:
                raise ValueError(
                    f"visible_indices must hold indices from 0 to {patches - 1} for images of {tuple(image.shape[2:])} pixels, "
                    f"got {low if low < 0 else high}."
                )


def _kind(backbone: Any) -> str:
    return repr(backbone) if isinstance(backbone, str) else f"a {type(backbone).__name__}"
