"""The learning rate schedule of the recipes: linear warm-up, then a cosine."""

from __future__ import annotations

import torch
from monai.optimizers import WarmupCosineSchedule

from medvl.utils.checks import check_fraction


def warmup_cosine(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_fraction: float = 0.1
) -> WarmupCosineSchedule:
    """MONAI's ``WarmupCosineSchedule``, with the warm-up as a fraction of the run.

    Args:
        optimizer: its learning rates are scaled.
        total_steps: number of steps of the run, after which the learning rate is 0.
        warmup_fraction: fraction of the steps in which the learning rate rises from 0, in [0, 1].

    Returns:
        The scheduler, to be stepped after each iteration.

    Raises:
        ValueError: If ``warmup_fraction`` is outside [0, 1].

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule, rates = warmup_cosine(optimizer, total_steps=8, warmup_fraction=0.5), []
        >>> for _ in range(8):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> [round(rate, 2) for rate in rates]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.85, 0.5, 0.15]
    """
    check_fraction(warmup_fraction, "warmup_fraction")
    return WarmupCosineSchedule(optimizer, warmup_steps=int(warmup_fraction * total_steps), t_total=total_steps)
