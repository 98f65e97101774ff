"""Image encoders: a backbone's feature map as one embedding per image and one per patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import nn


class ResNetBackbone(ResNet):
    """MONAI's ResNet up to its last feature map, (N, C, h, w[, d]).

    Args:
        name: "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152" or "resnet200".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: factor on the number of channels of every stage (MONAI's ``widen_factor``).
    """

    def __init__(self, name: str, spatial_dims: int = 2, in_channels: int = 1, width: float = 1.0) -> None:
        block, layers, shortcut_type, bias_downsample, _ = resnet_params[name]
        super().__init__(
            block=block,
            layers=layers,
            block_inplanes=get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type=shortcut_type,
            widen_factor=width,
            feed_forward=False,
            bias_downsample=bool(bias_downsample),
        )
        self.out_features = self.in_planes

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.maxpool(self.act(self.bn1(self.conv1(image))))
        return self.layer4(self.layer3(self.layer2(self.layer1(features))))


def build_backbone(name: str, spatial_dims: int, in_channels: int, **options: Any) -> nn.Module:
    """The backbone called ``name``; the names are those of :class:`ImageEncoder`."""
    if name not in resnet_params:
        raise ValueError(f"backbone must be one of {', '.join(resnet_params)} or a torch module, received {name!r}.")
    return ResNetBackbone(name, spatial_dims, in_channels, **options)


class ImageEncoder(nn.Module):
    """Global and patch embeddings of images, 2D or 3D.

    The patches are the cells of the backbone's last feature map; the global embedding is their mean.

    Args:
        backbone: the name of a MONAI network ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
            "resnet200"), built with random weights; or a module that maps (N, ``in_channels``, H, W[, D]) to a feature map
            (N, C, h, w[, d]), in which case ``out_features`` is needed.
        spatial_dims: 2 for (N, C, H, W), 3 for (N, C, H, W, D).
        in_channels: channels of the image, 1 for radiographs and CT.
        image_size: side in pixels of the square or cubic images that the encoder is meant for; evaluation resizes to it.
        out_features: channels C of a given module's feature map.
        **options: passed to a named backbone, as ``width=0.5`` for the ResNets.

    Raises:
        ValueError: an unknown name; ``spatial_dims`` other than 2 and 3; a module without ``out_features``.

    Example:
        >>> encoder = ImageEncoder("resnet10", image_size=64, width=0.25)
        >>> output = encoder(torch.zeros(2, 1, 64, 64))
        >>> output["embed"].shape, output["patches"].shape, output["grid"]
        (torch.Size([2, 128]), torch.Size([2, 4, 128]), (2, 2))
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        spatial_dims: int = 2,
        in_channels: int = 1,
        image_size: int = 224,
        out_features: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, received {spatial_dims!r}.")
        self.backbone: nn.Module
        if isinstance(backbone, nn.Module):
            if out_features is None:
                raise ValueError("out_features, the channels of the feature map, is needed where backbone is a module.")
            self.backbone, self.out_features = backbone, out_features
        else:
            self.backbone = build_backbone(backbone, spatial_dims, in_channels, **options)
            self.out_features = int(self.backbone.out_features)
        self.spatial_dims, self.in_channels, self.image_size = spatial_dims, in_channels, image_size
        self._config = None if isinstance(backbone, nn.Module) else {"backbone": backbone, **options}

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

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        """Encodes a batch.

        Args:
            image: (N, ``in_channels``, H, W[, D]), values in [0, 1].

        Returns:
            ``embed`` (N, C); ``patches`` (N, P, C) in row-major order of the grid; ``grid`` (h, w[, d]) with P = h * w [* d].

        Raises:
            ValueError: where ``image`` has another number of dimensions or channels.
        """
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            axes = "H, W" if self.spatial_dims == 2 else "H, W, D"
            raise ValueError(
                f"image must have the shape (N, {self.in_channels}, {axes}), received {tuple(image.shape)}."
            )
        features = self.backbone(image)
        patches = features.flatten(2).transpose(1, 2)  # (N, P, C)
        return {"embed": patches.mean(1), "patches": patches, "grid": tuple(features.shape[2:])}
