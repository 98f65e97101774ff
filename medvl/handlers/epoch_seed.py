"""Seeds every epoch, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from medvl.utils.distributed import get_rank, get_world_size


class EpochSeed:
    """Seeds torch and the data loader from (seed, epoch) at the start of each epoch, torch in each process differently.

    Order, augmentation and dropout of an epoch then do not depend on the epochs before it, and a run that is resumed at the
    end of an epoch is bit-identical to an uninterrupted one (on the CPU). A run that is resumed within an epoch goes on with
    the loader's next batch and the random numbers that come next (:meth:`state_dict`).

    Args:
        loader: the training loader, with ``set_epoch``, ``state_dict`` and ``load_state_dict``
            (:class:`~medvl.data.StudyLoader`).
        seed: the run's seed, at least 0.
    """

    def __init__(self, loader: Any, seed: int = 0) -> None:
        self.loader, self.seed = loader, seed
        self._resumed: Mapping[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if self._resumed is not None:
            state, self._resumed = self._resumed, None
            self.loader.load_state_dict(state["loader"])
            if state["random"] is None:  # a number of processes that the epoch did not begin with
                self._seed(epoch, state["loader"]["batches"])
            else:
                _set_random_state(state["random"])
            return  # ignite itself begins with an epoch's remaining steps
        self._seed(epoch)
        self.loader.set_epoch(epoch)
        engine.set_data(self.loader)

    def _seed(self, epoch: int, batch: int = 0) -> None:
        rank = get_rank()  # processes must not share their dropout masks
        entropy = [self.seed, epoch, rank, batch] if batch else [self.seed, epoch, rank] if rank else [self.seed, epoch]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch's loader has got, and the states of torch's random generators."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        return {"loader": self.loader.state_dict(), "random": random}

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Let the next epoch be the rest of one.

        Args:
            states: what :meth:`state_dict` returned in each process. Where there were other processes than now, torch is seeded
                anew.
        """
        if len(states) == get_world_size():
            self._resumed = states[get_rank()]
        else:
            loader = min((state["loader"] for state in states), key=lambda state: (state["epoch"], state["batches"]))
            self._resumed = {"loader": loader, "random": None}


def _set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
