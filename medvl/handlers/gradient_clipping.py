"""Gradient clipping by norm."""

from __future__ import annotations

import math

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch.nn.utils import clip_grad_norm_

from medvl.handlers.step import where


class GradientClipping:
    """Scales the gradients of a ``SupervisedTrainer``'s network down to a greatest norm before the optimizer's step.

    Right under mixed precision too: the gradients are unscaled first. Where the trainer accumulates them over several
    iterations, their sum is clipped. A norm that is NaN or infinite stops the run, naming the batch's studies, where no
    gradient scaler is there to leave such a step out: it would spoil the weights.

    Args:
        max_norm: the greatest 2-norm of all gradients together, greater than 0.

    Raises:
        ValueError: where ``max_norm`` is not positive.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be greater than 0, received {max_norm}.")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        length = engine.state.epoch_length or math.inf
        done = (engine.state.iteration - 1) % length + 1
        if done % getattr(engine, "accumulation_steps", 1) and done < length:
            return
        scaled = engine.amp and engine.scaler is not None
        if scaled:
            engine.scaler.unscale_(engine.optimizer)
        norm = clip_grad_norm_(engine.network.parameters(), self.max_norm)
        if not scaled and not torch.isfinite(norm):
            raise ValueError(f"the norm of the gradient is {norm.item()} {where(engine)}")
