"""A loss that is no number stops the run before it spoils the weights."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from medvl.handlers.step import where


class FiniteLoss:
    """Stops a trainer at the first loss that is NaN or infinite, naming epoch, iteration and the batch's studies.

    It acts before the backward pass, so that the weights and the last checkpoint stay good.

    Args:
        id_key: key of the study ids in the batch.
        most: how many ids the message names.
    """

    def __init__(self, id_key: str = "study_id", most: int = 16) -> None:
        self.id_key, self.most = id_key, most

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = engine.state.output["loss"]
        if not torch.isfinite(loss).all():
            raise ValueError(f"the loss is {loss.item()} {where(engine, self.id_key, self.most)}")
