"""The learning rate over a run: up, then down along a cosine."""

from __future__ import annotations

import torch
from monai.optimizers import WarmupCosineSchedule


def warmup_cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.1) -> WarmupCosineSchedule:
    """MONAI's ``WarmupCosineSchedule``, with the warm-up as a share of the run.

    Args:
        optimizer: whose rate it sets.
        steps: of the whole run, at which the rate is 0.
        warmup: share of the steps in which the rate rises from 0, in [0, 1].

    Returns:
        The schedule, to be stepped after each iteration.

    Raises:
        ValueError: for a share outside [0, 1].

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule, rates = warmup_cosine(optimizer, steps=8, warmup=0.5), []
        >>> for _ in range(8):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> [round(rate, 2) for rate in rates]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.85, 0.5, 0.15]
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup must be a share of all steps in [0, 1], received {warmup}.")
    return WarmupCosineSchedule(optimizer, warmup_steps=int(warmup * steps), t_total=steps)
