"""Gradient clipping by norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from medvl.handlers.step_info import describe_step
from medvl.utils.checks import check_positive


class GradientClipping:
    """Clips the gradients of a ``SupervisedTrainer``'s network by their norm before the optimizer's step.

    Under mixed precision the gradients are unscaled first. Where the trainer accumulates them over several iterations, their
    sum is clipped. A norm that is NaN or infinite raises an error that names the batch's studies, unless a gradient scaler
    skips such steps.

    Args:
        max_norm: the maximum 2-norm of all gradients together, above 0.

    Raises:
        ValueError: If ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        if max_norm != math.inf:  # which measures the norm and clips nothing
            check_positive(max_norm, "max_norm")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        length = engine.state.epoch_length or math.inf
        done = (engine.state.iteration - 1) % length + 1
        if done % getattr(engine, "accumulation_steps", 1) and done < length:
            return
        scaled = engine.amp and engine.scaler is not None
        if scaled:
            engine.scaler.unscale_(engine.optimizer)
        norm = clip_gradients(engine.network.parameters(), self.max_norm)
        if not scaled and not torch.isfinite(norm):
            raise ValueError(f"the norm of the gradient is {norm.item()} {describe_step(engine)}")


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_``, for parameters some of which are divided over processes too.

    Args:
        parameters: with or without a gradient.
        max_norm: maximum of their norm.

    Returns:
        The norm before.
    """
    parameters = [value for value in parameters if value.grad is not None]
    divided = [value for value in parameters if hasattr(value, "full_tensor")]
    if not divided:
        return clip_grad_norm_(parameters, max_norm)
    whole = [value for value in parameters if not hasattr(value, "full_tensor")]
    norms = [get_total_norm([value.grad for value in some if value.grad is not None]) for some in (divided, whole)]
    total = torch.stack([norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]).norm()
    for some in (divided, whole):
        clip_grads_with_norm_(some, max_norm, total)
    return total
