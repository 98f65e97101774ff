"""The decoder of the segmentation protocol, and its training on cached feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEARNING_RATE = 3e-3
BATCH = 8


class SegmentationDecoder(nn.Module):
    """A small decoder from feature maps to logits of K structures.

    Over several maps it is a U-Net decoder: the coarsest map is upsampled, concatenated with the next finer one and
    convolved, and so on. Over one map (a transformer's grid) it is a two-layer perceptron on each patch. The logits are
    upsampled to the mask's size by linear interpolation.

    Args:
        channels: of the maps, from the finest to the coarsest.
        structures: K.
        width: channels inside.
        spatial_dims: 2 or 3.

    Example:
        >>> decoder = SegmentationDecoder([4, 8], structures=1)
        >>> decoder([torch.zeros(2, 4, 8, 8), torch.zeros(2, 8, 4, 4)], (16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, channels: Sequence[int], structures: int, width: int = 32, spatial_dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.lateral = nn.ModuleList(conv(number, width, 1) for number in channels)
        self.merge = nn.ModuleList(
            nn.Sequential(conv(2 * width, width, 3, padding=1), nn.GroupNorm(min(8, width), width), nn.ReLU())
            for _ in channels[1:]
        )
        self.head = conv(width, structures, 1)
        for place, number in enumerate(channels):
            shape = (1, number, *[1] * spatial_dims)
            self.register_buffer(f"mean_{place}", torch.zeros(shape))
            self.register_buffer(f"scale_{place}", torch.ones(shape))

    def fit_normalization(self, maps: Sequence[Tensor]) -> None:
        """Set each channel's mean and standard deviation to those of these maps (N, C, h, w[, d]), finest first."""
        for place, features in enumerate(maps):
            axes = (0, *range(2, features.ndim))
            getattr(self, f"mean_{place}").copy_(features.mean(axes, keepdim=True))
            deviation = features.std(axes, correction=0, keepdim=True)
            # A channel that is constant on the labeled cases is set to 0.
            getattr(self, f"scale_{place}").copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0))

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Logits (N, K, H, W[, D]) of maps (N, C, h, w[, d]), finest first, at the ``size`` (H, W[, D])."""
        joined: Tensor | None = None
        for place in reversed(range(len(self.lateral))):
            features = (maps[place] - getattr(self, f"mean_{place}")) * getattr(self, f"scale_{place}")
            features = self.lateral[place](features)
            if joined is None:
                joined = F.relu(features)
            else:
                joined = self.merge[place](torch.cat([features, self._upsample(joined, features.shape[2:])], dim=1))
        return self._upsample(self.head(joined), size)

    def predict(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Masks (N, K, H, W[, D]), boolean: where the probability is above one half."""
        device = self.head.weight.device
        with torch.no_grad():
            return self([features.float().to(device) for features in maps], size) > 0

    def _upsample(self, features: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(features, tuple(size), mode=self.mode, align_corners=False)


def fit_decoder(maps: Sequence[Tensor], masks: Tensor, *, width: int, steps: int, seed: int) -> SegmentationDecoder:
    """Train a decoder on the cached maps of n labeled cases, by AdamW with a cosine schedule.

    The loss is :func:`segmentation_loss`.

    Args:
        maps: feature maps (n, C, h, w[, d]), finest first.
        masks: (n, K, H, W[, D]), boolean.
        width: channels of the decoder.
        steps: number of optimizer steps, each on at most eight cases.
        seed: of the initial weights and of the order of cases; the global random state is unchanged.

    Returns:
        The decoder, without gradients.
    """
    maps = [features.float() for features in maps]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = SegmentationDecoder([m.shape[1] for m in maps], masks.shape[1], width, maps[0].ndim - 2)
        decoder.fit_normalization(maps)
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(steps, 1))
        order: list[int] = []
        for _ in range(steps):
            if not order:
                order = torch.randperm(len(masks)).tolist()
            rows, order = order[:BATCH], order[BATCH:]
            target = masks[rows].float()
            logits = decoder([features[rows] for features in maps], masks.shape[2:])
            loss = segmentation_loss(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return decoder.requires_grad_(False).eval()


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross entropy plus one minus the soft Dice of each structure over the batch.

    .. math::
        \mathcal{L} = \operatorname{mean}_{nkx} H(t_{nkx}, p_{nkx})
        + \operatorname{mean}_k \left(1 - \frac{2 \sum_{nx} t_{nkx} p_{nkx}}{\sum_{nx} t_{nkx} + p_{nkx}}\right)

    with the probabilities :math:`p`, the sigmoid of the logits, and the binary cross entropy :math:`H`. The second mean is
    over the structures that have a pixel in the batch; 0 if none has. Half precision is summed in single precision. The soft
    Dice is that of V-Net (Milletari et al., 2016, arXiv:1606.04797), without its squares.

    Args:
        logits: (N, K, H, W[, D]).
        target: masks of the same shape, 0 or 1, of any type.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> segmentation_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # log 2 + 1 - 2 * 2 / (4 + 2)
        tensor(1.0265)
    """
    axes = (0, *range(2, logits.ndim))
    if logits.dtype in (torch.float16, torch.bfloat16):  # float16 ends at 65,504, the pixels of a small batch
        logits = logits.float()
    target = target.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    overlap = (probability * target).sum(axes)
    sizes = target.sum(axes)
    loss = 1 - 2 * overlap / (probability.sum(axes) + sizes).clamp_min(1e-6)
    given = (sizes > 0).float()
    dice = (loss * given).sum() / given.sum().clamp_min(1)
    return entropy + dice
