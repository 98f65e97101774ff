"""Small models under the names, and with the arithmetic, of the public code whose weights are read."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def randomized(module: nn.Module) -> nn.Module:
    """Every weight random, so that one in the wrong place shows; running statistics too."""
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                value.normal_(std=0.2)
                if "running_var" in name or "norm" in name or "bn" in name or name.endswith(".1.weight"):
                    value.abs_().add_(0.5)
    return module.eval()


def conv(dims):
    return nn.Conv2d if dims == 2 else nn.Conv3d


def norm(dims):
    return nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d


class Block(nn.Module):
    """A basic block or a bottleneck of torchvision's ResNet; MedicalNet's is the same with dilations."""

    def __init__(self, inputs, planes, stride, dilation, basic, shortcut, dims):
        super().__init__()
        outputs = planes if basic else 4 * planes
        near = {"padding": dilation, "dilation": dilation, "bias": False}
        if basic:
            kernels = [(inputs, planes, 3, {**near, "stride": stride}), (planes, planes, 3, near)]
        else:
            kernels = [(inputs, planes, 1, {"bias": False}), (planes, planes, 3, {**near, "stride": stride})]
            kernels.append((planes, outputs, 1, {"bias": False}))
        self.count, self.stride, self.outputs, self.pads = len(kernels), stride, outputs, False
        for number, (before, after, side, options) in enumerate(kernels, 1):
            setattr(self, f"conv{number}", conv(dims)(before, after, side, **options))
            setattr(self, f"bn{number}", norm(dims)(after))
        if stride != 1 or inputs != outputs:
            if shortcut == "B":
                self.downsample = nn.Sequential(conv(dims)(inputs, outputs, 1, stride, bias=False), norm(dims)(outputs))
            else:
                self.pads = True

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.count else y
        if self.pads:
            x = x[(slice(None), slice(None), *[slice(None, None, self.stride)] * (x.ndim - 2))]
            x = torch.cat([x, x.new_zeros(len(x), self.outputs - x.shape[1], *x.shape[2:])], 1)
        elif hasattr(self, "downsample"):
            x = self.downsample(x)
        return torch.relu(x + y)


class ResNet(nn.Module):
    """torchvision's ResNet; with ``dims=3`` MedicalNet's, whose last two stages are dilated."""

    def __init__(self, layers, basic, width=8, channels=3, dims=2, shortcut="B", classes=5):
        super().__init__()
        self.conv1, self.bn1 = conv(dims)(channels, width, 7, 2, 3, bias=False), norm(dims)(width)
        inputs = width
        strides, dilations = ((1, 2, 2, 2), (1, 1, 1, 1)) if dims == 2 else ((1, 2, 1, 1), (1, 1, 2, 4))
        for stage, blocks in enumerate(layers):
            made = []
            for block in range(blocks):
                stride = strides[stage] if block == 0 else 1
                made.append(Block(inputs, width * 2**stage, stride, dilations[stage], basic, shortcut, dims))
                inputs = made[-1].outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        if classes:
            self.fc = nn.Linear(inputs, classes)

    def features(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if x.ndim == 4 else F.max_pool3d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """torchvision's DenseNet, and TorchXRayVision's with one channel."""

    def __init__(self, blocks=(2, 1, 2), channels=3, classes=5, growth=4, width=8):
        super().__init__()
        parts = {"conv0": nn.Conv2d(channels, width, 7, 2, 3, bias=False), "norm0": nn.BatchNorm2d(width)}
        parts |= {"relu0": nn.ReLU(), "pool0": nn.MaxPool2d(3, 2, 1)}
        for number, layers in enumerate(blocks, 1):
            block = {f"denselayer{i + 1}": DenseLayer(width + i * growth, growth) for i in range(layers)}
            parts[f"denseblock{number}"] = nn.Sequential()
            for name, layer in block.items():
                parts[f"denseblock{number}"].add_module(name, layer)
            width += layers * growth
            if number < len(blocks):
                transition = nn.Sequential()
                transition.add_module("norm", nn.BatchNorm2d(width))
                transition.add_module("relu", nn.ReLU())
                transition.add_module("conv", nn.Conv2d(width, width // 2, 1, bias=False))
                transition.add_module("pool", nn.AvgPool2d(2, 2))
                parts[f"transition{number}"] = transition
                width //= 2
        parts["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential()
        for name, part in parts.items():
            self.features.add_module(name, part)
        self.classifier = nn.Linear(width, classes)

    def embed(self, x):
        return torch.relu(self.features(x)).mean((2, 3))


class Attention(nn.Module):
    """Attention under the names of timm ("qkv", "proj") or of torch ("in_proj_weight", "out_proj")."""

    def __init__(self, width, heads, torch_names):
        super().__init__()
        self.heads, self.torch_names = heads, torch_names
        if torch_names:
            self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
            self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
            self.out_proj = nn.Linear(width, width)
        else:
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, length, width = x.shape
        joint = F.linear(x, self.in_proj_weight, self.in_proj_bias) if self.torch_names else self.qkv(x)
        parts = [part.reshape(n, length, self.heads, -1).transpose(1, 2) for part in joint.chunk(3, -1)]
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(n, length, width)
        return (self.out_proj if self.torch_names else self.proj)(mixed)


class ViTBlock(nn.Module):
    def __init__(self, width, heads, torch_names):
        super().__init__()
        norms, attention = (("ln_1", "ln_2"), "self_attention") if torch_names else (("norm1", "norm2"), "attn")
        self.names = *norms, attention
        for name in norms:
            setattr(self, name, nn.LayerNorm(width, eps=1e-6))
        setattr(self, attention, Attention(width, heads, torch_names))
        if torch_names:
            self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Identity(), nn.Linear(24, width))
        else:
            self.mlp = nn.Module()
            self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x):
        first, second, attention = (getattr(self, name) for name in self.names)
        x = x + attention(first(x))
        y = second(x)
        return x + (self.mlp(y) if isinstance(self.mlp, nn.Sequential) else self.mlp.fc2(F.gelu(self.mlp.fc1(y))))


class TimmViT(nn.Module):
    """timm's ViT, with its class token as the embedding."""

    def __init__(self, width=16, heads=1, size=32, patch=8, channels=3, depth=2):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(*(ViTBlock(width, heads, False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))


class TorchvisionViT(nn.Module):
    """torchvision's ViT."""

    def __init__(self, width=16, heads=1, size=32, patch=8, depth=2):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.encoder.layers = nn.Sequential()
        for number in range(depth):
            self.encoder.layers.add_module(f"encoder_layer_{number}", ViTBlock(width, heads, True))
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, 5))

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).mT
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.encoder.pos_embedding
        return self.encoder.ln(self.encoder.layers(x))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = self.norm(self.dwconv(x).movedim(1, -1))
        return x + (self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))).movedim(-1, 1)


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXt(nn.Module):
    """Facebook's ConvNeXt."""

    def __init__(self, depths=(1, 2, 1, 1), widths=(8, 12, 16, 24)):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelsFirstNorm(widths[0], eps=1e-6))
        self.downsample_layers, self.stages = nn.ModuleList([stem]), nn.ModuleList()
        for before, after in pairwise(widths):
            merging = nn.Sequential(ChannelsFirstNorm(before, eps=1e-6), nn.Conv2d(before, after, 2, 2))
            self.downsample_layers.append(merging)
        for depth, width in zip(depths, widths, strict=True):
            self.stages.append(nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth))))
        self.norm, self.head = nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], 5)

    def embed(self, x):
        for merging, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(merging(x))
        return self.norm(x.mean((2, 3)))
