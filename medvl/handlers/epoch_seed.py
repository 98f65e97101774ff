"""Every epoch from a seed of its own, so that a resumed run repeats an unbroken one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from medvl.utils.distributed import get_rank


class EpochSeed:
    """Seeds torch and the data loader from (seed, epoch) at the start of each epoch, torch in each process differently.

    What an epoch draws (order, augmentation, dropout) then depends on nothing that happened before it, and a run resumed
    at an epoch's end is bit-identical to one that was never stopped (on the CPU).

    Args:
        loader: the training loader, with ``set_epoch`` (:class:`~medvl.data.StudyLoader`).
        seed: the run's seed, at least 0.
    """

    def __init__(self, loader: Any, seed: int = 0) -> None:
        self.loader, self.seed = loader, seed

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        rank = get_rank()  # no two processes drop the same units
        entropy = [self.seed, epoch, rank] if rank else [self.seed, epoch]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.loader.set_epoch(epoch)
        engine.set_data(self.loader)
