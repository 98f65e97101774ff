"""Stops a run whose loss is not finite, before the weights are updated."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from medvl.handlers.step_info import describe_step


class FiniteLoss:
    """Stops a trainer at the first loss that is NaN or infinite; the error names epoch, iteration and the batch's studies.

    It acts before the backward pass, so that the weights and the last checkpoint stay finite.

    Args:
        id_key: key of the study ids in the batch.
        max_ids: how many ids the message names.
    """

    def __init__(self, id_key: str = "study_id", max_ids: int = 16) -> None:
        self.id_key, self.max_ids = id_key, max_ids

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = engine.state.output["loss"]
        if not torch.isfinite(loss).all():
            raise ValueError(f"the loss is {loss.item()} {describe_step(engine, self.id_key, self.max_ids)}")
