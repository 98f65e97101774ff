"""Image encoders: an embedding of each image and of each patch, from any backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from medvl.utils.checks import check_option, error_message
from medvl.utils.layers import layer_positions
from medvl.utils.targets import TARGET, Allowed, describe, make
from medvl.utils.tensors import as_plain


class ImageEncoder(nn.Module):
    """Global and patch embeddings of images, 2D or 3D.

    The patches of convolutional networks and of Swin are the cells of the last feature map, and the global embedding is their
    mean. A ViT has its patch tokens, and their mean or a class token (``pooling``). The global embedding of a Hugging Face
    model is its own pooled output, or its class token. The ViTs of MONAI and Hugging Face support
    masking, and the ResNets, whose masked patches are black.

    ======================================================== ======= ================================================
    ``backbone``                                             2D, 3D  some options, besides all of MONAI's
    ======================================================== ======= ================================================
    resnet10, 18, 34, 50, 101, 152, 200                      both    ``width``, ``output_stride``, ``norm``
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
            (N, ``in_channels``, H, W[, D]) to a feature map (N, C, h, w[, d]), which requires ``out_features``. To be saved, a
            module is stated by its class and arguments, ``{"_target_": "package.Class", "argument": value}``.
        spatial_dims: 2 for (N, C, H, W), 3 for (N, C, H, W, D).
        in_channels: channels of the image, 1 for radiographs and CT. A single channel is repeated over the channels of a
            Hugging Face model that has more.
        image_size: side in pixels of the square or cubic images that the encoder is meant for; evaluation resizes to it, and a
            ViT requires it. By default a Hugging Face model's own, else 224.
        out_features: channels C of the feature map, if the backbone is a torch module.
        trusted_packages: packages other than medvl, monai and torch whose code a stated backbone may be.
        **options: options of a named backbone.

    Attributes:
        out_features (int): width C of the embeddings.
        supports_masking (bool): whether :meth:`forward` takes ``visible_indices``.
        patch_size (tuple[int, ...] | None): sides in pixels of a patch, where masking is supported, else None.

    Raises:
        ValueError: If the backbone is unknown or code of a package that is not trusted, ``spatial_dims`` is neither 2 nor 3 or
            is 3 with a Hugging Face model, a torch module comes without ``out_features``, or sizes are inconsistent, such as an
            image size that is not a multiple of the patch size.

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
        trusted_packages: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(backbone, Mapping) and TARGET in backbone:
            backbone = _make_backbone(backbone, trusted_packages)
        check_option(spatial_dims, "spatial_dims", (2, 3))
        for name, number in (("in_channels", in_channels), ("image_size", image_size)):
            if number is not None and not (isinstance(number, int) and number > 0):
                raise ValueError(error_message(name, "be an integer of at least 1", repr(number)))
        is_named = isinstance(backbone, str) and backbone in NAMES
        if options and not is_named:
            expected = f"be named to have the options {', '.join(options)}"
            raise ValueError(error_message("backbone", expected, _description(backbone)))
        self._config: dict[str, Any] | None = None
        network: Any = backbone
        if is_named:
            network = build_backbone(backbone, spatial_dims, in_channels, image_size or 224, **options)
            self._config = {"backbone": backbone, **options}
        elif is_hugging_face(backbone):
            if spatial_dims != 2:
                raise ValueError(error_message("spatial_dims", "be 2 with a Hugging Face model", spatial_dims))
            network = HuggingFaceBackbone(backbone, in_channels, image_size)
            self._config = {"backbone": network.to_config()}
            image_size = network.image_size
        elif not isinstance(backbone, nn.Module):
            expected = (
                f"be one of {', '.join(NAMES)}, a Hugging Face vision model, its configuration or local folder, or a torch "
                "module"
            )
            raise ValueError(error_message("backbone", expected, repr(backbone)))
        elif out_features is None:
            raise ValueError(error_message("out_features", "be given if backbone is a torch module", None))
        else:
            self._config = _stated_config(backbone, out_features)
        self.backbone: nn.Module = network
        own = is_named or is_hugging_face(backbone)
        self.out_features = int(network.out_features if own or out_features is None else out_features)
        self.spatial_dims, self.in_channels, self.image_size = spatial_dims, in_channels, image_size or 224
        self._frozen: list[nn.Module] = []
        self.supports_masking: bool = getattr(network, "supports_masking", False)
        self.patch_size: tuple[int, ...] | None = network.patch_size if self.supports_masking else None

    def freeze(self, layers: int | None = None) -> None:
        """Freeze the first ``layers`` layers and what comes before them, or the whole backbone if None.

        Layers are the stages of a convolutional network or a Swin, and the blocks of a ViT. What is frozen gets no gradient,
        and its batch norm keeps its statistics: it stays in evaluation mode when the encoder is put in training mode. The
        whole backbone, frozen, has no dropout either.

        Args:
            layers: number of layers; 0 freezes what comes before the first, as the embedding of patches.

        Raises:
            ValueError: If the backbone has fewer layers.

        Example:
            >>> encoder = ImageEncoder("resnet10", width=0.125)
            >>> encoder.freeze(2)
            >>> sorted({name.split(".")[0] for name, value in encoder.backbone.named_parameters() if value.requires_grad})
            ['layer3', 'layer4']
        """
        positions, count = layer_positions(list(self.backbone.state_dict()))
        if layers is not None and not 0 <= layers <= count:
            raise ValueError(error_message("layers", f"be between 0 and the backbone's {count}, or None", layers))
        frozen = {name for name, position in positions.items() if layers is None or position < layers}
        for name, value in self.backbone.named_parameters():
            if name in frozen:
                value.requires_grad_(False)
        parts = [self.backbone] if layers is None else []
        for name, part in self.backbone.named_modules() if layers is not None else ():
            own = [*part.named_parameters(name, recurse=False), *part.named_buffers(name, recurse=False)]
            if own and frozen.issuperset(known for known, _ in own if known in positions):
                parts.append(part)
        self._frozen = parts
        self.train(self.training)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Put the encoder in training mode, but for what is frozen."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def to_config(self) -> dict[str, Any]:
        """The arguments that build this encoder, as plain values for JSON.

        Raises:
            ValueError: If the backbone is a torch module of which it is not known what made it.
        """
        if self._config is None:
            expected = (
                "be a name, a Hugging Face model, or a module stated by its class and arguments, as "
                '{"_target_": "package.Class", "argument": value}, to be saved'
            )
            raise ValueError(error_message("backbone", expected, _description(self.backbone)))
        return {
            **self._config,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "image_size": self.image_size,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> ImageEncoder:
        """The encoder that :meth:`to_config` describes, with random weights.

        Args:
            config: the configuration, perhaps from a file that nobody has checked.
            trusted_packages: packages other than medvl, monai and torch whose code it may name; it is imported and run.

        Raises:
            ValueError: If it names code of a package that is not trusted.
        """
        return cls(**{**config, "trusted_packages": trusted_packages})

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> dict[str, Any]:
        """Encode a batch.

        Args:
            image: (N, ``in_channels``, H, W[, D]), values in [0, 1], or normalized as the backbone's weights require.
            visible_indices: (N, P') indices of the patches to encode, in any order, if the backbone supports masking. The
                others are dropped before its blocks, so that the cost is that of the visible patches, which keep their
                positions.

        Returns:
            ``embed`` (N, C); ``patches`` (N, P, C) in row-major order of the grid, or (N, P', C) in the order of
            ``visible_indices``; ``grid`` (h, w[, d]) of the whole image.

        Raises:
            ValueError: If ``image`` has another shape, integer values or a size that the backbone does not support; if it is
                a single image, so small that batch norm has one value per channel in training; if ``visible_indices`` have
                another shape, are out of range (on an accelerator, torch's own error) or the backbone does not support
                masking.
        """
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            axes = "H, W" if self.spatial_dims == 2 else "H, W, D"
            raise ValueError(
                error_message("image", f"have the shape (N, {self.in_channels}, {axes})", tuple(image.shape))
            )
        if not image.is_floating_point():
            raise ValueError(error_message("image", "hold floating point values", image.dtype))
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
                error_message(
                    "image",
                    "hold more or larger images to train a backbone with batch norm, which is left with one value of each "
                    "channel",
                    f"{len(image)} of {tuple(image.shape[2:])} pixels",
                )
            ) from error
        if isinstance(features, torch.Tensor):
            if features.ndim != image.ndim or features.shape[1] != self.out_features:
                axes = "h, w" if self.spatial_dims == 2 else "h, w, d"
                raise ValueError(
                    error_message(
                        "backbone", f"give a feature map (N, {self.out_features}, {axes})", tuple(features.shape)
                    )
                )
            features = PatchFeatures.from_feature_map(features)
        return features._asdict()

    def _check_visible(self, visible_indices: torch.Tensor, image: torch.Tensor) -> None:
        if self.patch_size is None:
            raise ValueError(
                error_message(
                    "visible_indices", "be None for a backbone without masking", f"a {type(self.backbone).__name__}"
                )
            )
        shape_fits = visible_indices.ndim == 2 and len(visible_indices) == len(image) and visible_indices.shape[1] > 0
        if not shape_fits or visible_indices.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                error_message(
                    "visible_indices",
                    f"hold integer patch indices of shape ({len(image)}, P')",
                    f"{visible_indices.dtype} of shape {tuple(visible_indices.shape)}",
                )
            )
        if visible_indices.device.type == "cpu" and not torch.compiler.is_compiling():
            patches = math.prod(side // patch for side, patch in zip(image.shape[2:], self.patch_size, strict=True))
            low, high = (int(index) for index in visible_indices.aminmax())
            if low < 0 or high >= patches:
                raise ValueError(
                    error_message(
                        "visible_indices",
                        f"hold indices from 0 to {patches - 1} for images of {tuple(image.shape[2:])} pixels",
                        low if low < 0 else high,
                    )
                )


_ALLOWED = Allowed(nn.Module, ("medvl.networks", "monai.networks", "torch.nn"))


def _make_backbone(description: Mapping[str, Any], trusted_packages: Sequence[str]) -> nn.Module:
    if description.get("pretrained"):
        expected = "be stated without pretrained weights, which would be downloaded"
        raise ValueError(error_message("backbone", expected, f"pretrained={description['pretrained']!r}"))
    module: nn.Module = make(description, _ALLOWED, trusted_packages)
    return module


def _stated_config(module: nn.Module, out_features: int | None) -> dict[str, Any] | None:
    """The configuration of a module that states what made it; None for others."""
    try:
        stated = describe(module)
    except ValueError:
        return None
    if "pretrained" in stated:  # the weights are saved with the model
        stated["pretrained"] = False
    return {"backbone": stated, "out_features": out_features}


def _description(backbone: Any) -> str:
    return repr(backbone) if isinstance(backbone, str) else f"a {type(backbone).__name__}"
