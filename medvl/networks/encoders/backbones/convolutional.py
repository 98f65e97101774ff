"""MONAI's convolutional networks up to their last feature map, in 2D and 3D."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.efficientnet import EfficientNetBN, efficientnet_params
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import nn

from medvl.functional.masking import gather_patches
from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.utils.checks import check_integer, check_option, error_message

RESNETS = tuple(resnet_params)
# Layers of each dense block, from table 1 of the paper.
DENSENETS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
    "densenet264": (6, 12, 64, 48),
}
EFFICIENTNETS = tuple(efficientnet_params)
OUTPUT_STRIDES = (4, 8, 16, 32)


class ResNetBackbone(ResNet):
    """MONAI's ResNet up to its last feature map, (N, C, h, w[, d]), at 1/``output_stride`` of the resolution.

    Patches are the cells of this map. Masked patches are black in the image, and their features are dropped; other than in a
    transformer, this saves no time, and the visible patches see that they are missing.

    Args:
        name: "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152" or "resnet200".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        width: factor on the number of channels of every stage (MONAI's ``widen_factor``).
        output_stride: side in pixels of a cell of the last feature map: a power of 2 of at least 4, at most 32. Stages keep the
            resolution once it is reached, so that a smaller stride gives finer maps of the same weights. Below 32 the image is
            moved by half a cell, so that each cell is centered on its own pixels and a map of the cells lies where it points.
            A stem of a smaller stride (``no_max_pool``, ``conv1_t_stride``) ends below 32.
        dilated: whether the 3 x 3 kernels of a stage that keeps the resolution are dilated by the factor that it does not
            reduce it by, so that they see as much of the image as with an output stride of 32, as MedicalNet's do (Chen et al.
            2019, https://arxiv.org/abs/1904.00625). The image is then not moved.
        patch_stage: stage, 1 to 4, whose cells are the patches; the embedding is the mean of the last one. 3 in GLoRIA (Huang
            et al. 2021) and MGCA (Wang et al. 2022, https://arxiv.org/abs/2210.06044), whose patches are narrower than the
            embedding. Below 4 there is no masking.
        input_size: side in pixels to which the network resizes its images (linearly, with aligned corners), 299 in GLoRIA and
            MGCA; None for no resizing. With it there is no masking.
        **options: of MONAI's ``ResNet``, such as ``norm`` or ``no_max_pool``.
    """

    def __init__(
        self,
        name: str,
        spatial_dims: int = 2,
        in_channels: int = 1,
        width: float = 1.0,
        output_stride: int = 32,
        dilated: bool = False,
        patch_stage: int = 4,
        input_size: int | None = None,
        **options: Any,
    ) -> None:
        check_option(patch_stage, "patch_stage", (1, 2, 3, 4))
        if input_size is not None:
            check_integer(input_size, "input_size", minimum=1)
        check_option(output_stride, "output_stride", OUTPUT_STRIDES)
        block, layers, shortcut_type, bias_downsample, _ = resnet_params[name]
        defaults = {
            "conv1_t_stride": 2,
            "shortcut_type": shortcut_type,
            "bias_downsample": bool(bias_downsample),
        }
        self._norm = options.get("norm", "batch")
        stem = options.get("conv1_t_stride", 2)
        self._stride = (stem if isinstance(stem, int) else max(stem)) * (1 if options.get("no_max_pool") else 2)
        if self._stride > output_stride:
            expected = f"be at least {self._stride}, the stride of the first layers"
            raise ValueError(error_message("output_stride", expected, output_stride))
        self._output_stride, self._dilated, self._dilation = output_stride, dilated, 1
        super().__init__(
            block=block,
            layers=layers,
            block_inplanes=get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            widen_factor=width,
            feed_forward=False,
            **{**defaults, **options},
        )
        self.out_features = self.in_planes
        self.patch_stage, self.input_size = patch_stage, input_size
        self.patch_features = self.out_features // 2 ** (4 - patch_stage)
        self.supports_masking = patch_stage == 4 and input_size is None
        self.patch_size = (self._stride,) * spatial_dims

    def _make_layer(self, *args: Any, **options: Any) -> nn.Sequential:
        # MONAI's method ignores ``norm`` for its blocks.
        usual = options.pop("stride", 1)
        stride = usual if self._stride < self._output_stride else 1
        self._stride *= stride
        self._dilation *= usual // stride
        layer = super()._make_layer(*args, **{"norm": self._norm, **options, "stride": stride})
        if self._dilated and self._dilation > 1:
            for convolution in layer.modules():
                if max(getattr(convolution, "kernel_size", (1,))) > 1:
                    convolution.dilation = convolution.padding = (self._dilation,) * len(convolution.kernel_size)
        return layer

    def _downsample_basic_block(self, x: torch.Tensor, planes: int, stride: int, spatial_dims: int = 3) -> torch.Tensor:
        # MONAI's method detaches the shortcut, so that it has no gradient in resnet18 and resnet34.
        x = x[(slice(None), slice(None), *(slice(None, None, stride),) * spatial_dims)]
        return F.pad(x, (*(0, 0) * spatial_dims, 0, planes - x.shape[1]))

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> torch.Tensor | PatchFeatures:
        if visible_indices is not None:
            return self._forward_visible(image, visible_indices)
        if self.input_size is not None:
            mode = "bilinear" if image.ndim == 4 else "trilinear"
            image = F.interpolate(image, (self.input_size,) * (image.ndim - 2), mode=mode, align_corners=True)
        features = self.act(self.bn1(self.conv1(self._center_cells(image))))
        if not self.no_max_pool:
            features = self.maxpool(features)
        stages = [self.layer1, self.layer2, self.layer3, self.layer4]
        for stage in stages[: self.patch_stage]:
            features = stage(features)
        if self.patch_stage == len(stages):
            return features
        cells = PatchFeatures.from_feature_map(features)
        for stage in stages[self.patch_stage :]:
            features = stage(features)
        return cells._replace(embed=features.flatten(2).mean(2))

    def _center_cells(self, image: torch.Tensor) -> torch.Tensor:
        """The image moved by half a cell, to the left and to the top, where ``output_stride`` asks for finer maps than usual.

        A convolution with a stride centers its cell i on pixel i * stride, the first pixel of the cell. Moved, the cell is
        centered on its own pixels. The freed rows and columns are copies of the last ones.
        """
        if self._output_stride >= max(OUTPUT_STRIDES) or self._dilated:
            return image
        for axis, side in enumerate(self.patch_size, start=2):
            first = min(side // 2, image.shape[axis] - 1)
            rest = image.narrow(axis, first, image.shape[axis] - first)
            image = torch.cat([rest, image.narrow(axis, -1, 1).expand_as(image.narrow(axis, 0, first))], axis)
        return image

    def _forward_visible(self, image: torch.Tensor, visible_indices: torch.Tensor) -> PatchFeatures:
        """Features of the visible cells of an image whose other cells are black."""
        if any(size % side for size, side in zip(image.shape[2:], self.patch_size, strict=True)):
            expected = (
                f"have sides that are multiples of {self.patch_size[0]}, the cells of the feature map, to be masked"
            )
            raise ValueError(error_message("image", expected, tuple(image.shape[2:])))
        grid = tuple(size // side for size, side in zip(image.shape[2:], self.patch_size, strict=True))
        visible = image.new_zeros(len(image), prod(grid)).scatter(1, visible_indices, 1.0).unflatten(1, (1, *grid))
        for axis, side in enumerate(self.patch_size, start=2):
            visible = visible.repeat_interleave(side, axis)
        whole = PatchFeatures.from_feature_map(self.forward(image * visible))  # type: ignore[arg-type]
        patches = gather_patches(whole.patches, visible_indices)
        return PatchFeatures(patches.mean(1), patches, whole.grid)


class DenseNetBackbone(DenseNet):
    """MONAI's DenseNet up to its last feature map, at 1/32 of the resolution (rounded down between the blocks).

    Args:
        name: "densenet121", "densenet169", "densenet201" or "densenet264".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        **options: of MONAI's ``DenseNet``: ``init_features``, ``growth_rate``, ``block_config``, ``dropout_prob``, ``norm`` ...
    """

    def __init__(self, name: str, spatial_dims: int = 2, in_channels: int = 1, **options: Any) -> None:
        options = {"block_config": DENSENETS[name], **options}
        super().__init__(spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1, **options)
        self.out_features = self.class_layers.out.in_features
        self.smallest = 2 ** (len(options["block_config"]) + 1) - 3  # the size that the strides reduce to one cell
        self.activation = self.class_layers.relu
        del self.class_layers

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if min(image.shape[2:]) < self.smallest:
            raise ValueError(
                error_message(
                    "image", f"have sides of at least {self.smallest} pixels for this DenseNet", tuple(image.shape[2:])
                )
            )
        return self.activation(self.features(image))


class SamePadding(nn.Module):
    """Pads so that the next convolution returns ceil(size / stride) cells along each axis, for every size.

    MONAI's EfficientNet fixes its padding for one image size, and fails on small or odd ones.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.kernel: tuple[int, ...] = convolution.kernel_size
        self.stride: tuple[int, ...] = convolution.stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding = [total // 2, total - total // 2, *padding]  # F.pad counts from the last axis
        return F.pad(x, padding) if any(padding) else x


class EfficientNetBackbone(EfficientNetBN):
    """MONAI's EfficientNet up to its last feature map, at 1/32 of the resolution (rounded up).

    Args:
        name: "efficientnet-b0" to "efficientnet-b8", or "efficientnet-l2".
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        **options: of MONAI's ``EfficientNetBN``: ``norm``.
    """

    def __init__(self, name: str, spatial_dims: int = 2, in_channels: int = 1, **options: Any) -> None:
        super().__init__(name, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels, **options)
        self.out_features = self._fc.in_features
        del self._fc, self._dropout, self._avg_pooling
        for module in list(self.modules()):
            for name, convolution in list(module.named_children()):
                if hasattr(module, f"{name}_padding") and hasattr(convolution, "kernel_size"):
                    setattr(module, f"{name}_padding", SamePadding(convolution))
            if hasattr(module, "_swish"):
                module._swish = nn.SiLU()  # the same function; MONAI's autograd function cannot be exported

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self._swish(self._bn0(self._conv_stem(self._conv_stem_padding(image))))
        return self._swish(self._bn1(self._conv_head(self._conv_head_padding(self._blocks(features)))))
