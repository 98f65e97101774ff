"""Seeds every epoch, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from medvl.utils.distributed import get_rank


class EpochSeed:
    """Seeds torch and the data loader from (seed, epoch) at the start of each epoch, torch in each process differently.

    Order, augmentation and dropout of an epoch then do not depend on the epochs before it, and a run that is resumed at the
    end of an epoch is bit-identical to an uninterrupted one (on the CPU).

    Args:
        loader: the training loader, with ``set_epoch`` (:class:`~medvl.data.StudyLoader`).
        seed: the run's seed, at least 0.
    """

    def __init__(self, loader: Any, seed: int = 0) -> None:
        self.loader, self.seed = loader, seed

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        rank = get_rank()  # processes must not share their dropout masks
        entropy = [self.seed, epoch, rank] if rank else [self.seed, epoch]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.loader.set_epoch(epoch)
        engine.set_data(self.loader)
