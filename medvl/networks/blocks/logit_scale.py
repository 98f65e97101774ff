"""The inverse temperature of a contrastive model."""

from __future__ import annotations

import math

import torch
from torch import nn

from medvl.utils.checks import error_message


class LogitScale(nn.Module):
    """The factor 1 / tau that turns cosine similarities into logits; its logarithm is what is learned.

    The scale is clipped at ``maximum``, as in CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020). At the maximum
    the parameter still gets a gradient, so that the scale can decrease again. The parameter stays float32 under autocast.

    Args:
        temperature: initial tau, above 0 and such that 1 / tau is at most ``maximum``.
        learnable: whether tau is a parameter (MedCLIP, CLIP) or fixed (ConVIRT).
        maximum: maximum of the scale, 100 in all published models.

    Raises:
        ValueError: If ``temperature`` is not above 0, or 1 / ``temperature`` is above ``maximum``.

    Example:
        >>> round(LogitScale(0.1)().item(), 4)
        10.0
        >>> list(LogitScale(0.1, learnable=False).parameters())
        []
    """

    log_scale: torch.Tensor

    def __init__(self, temperature: float = 0.07, learnable: bool = True, maximum: float = 100.0) -> None:
        super().__init__()
        if not temperature > 0 or 1 / temperature > maximum * (1 + 1e-6):
            expected = f"be at least 1 / {maximum:g}, for the maximum of the scale"
            raise ValueError(error_message("temperature", expected, temperature))
        log_scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.log_maximum = math.log(maximum)

    def forward(self) -> torch.Tensor:
        """The scale, a float32 scalar in (0, ``maximum``]."""
        excess = torch.relu(self.log_scale.detach().float() - self.log_maximum)
        return torch.exp(self.log_scale.float() - excess)
