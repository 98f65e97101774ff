"""The weights of the best epoch so far, and early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from medvl.handlers.checkpoint_file import (
    check_finite_weights,
    load_checkpoint,
    remove_old,
    save_checkpoint,
    verify_checkpoint,
)
from medvl.utils.checks import check_integer
from medvl.utils.distributed import is_rank_zero
from medvl.utils.sharding import is_sharded, load_whole_state, whole_state

logger = logging.getLogger(__name__)


class BestCheckpoint:
    """Saves the network's weights of the epoch with the best validation metric, and stops early if ``patience`` is given.

    Attach it after the validation handler and before :class:`RunCheckpoint`, and pass it to that among the ``objects``: the
    best epoch is then part of the run's state, and a resumed run saves and stops exactly as an uninterrupted one. Files are
    written atomically. An epoch whose metric is NaN, or which was not validated, is never the best.

    Args:
        folder: where the file ``best-0007.pt`` goes, numbered by epoch.
        network: whose weights are kept.
        evaluator: the validation engine with the metric in its ``state.metrics``.
        metric: the metric's name.
        lower_is_better: by default for metrics whose name ends in "loss" or "rank".
        patience: stop the trainer after so many epochs without improvement, at least 1; None never stops.

    Raises:
        ValueError: If ``patience`` is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        evaluator: Engine,
        metric: str = "loss",
        lower_is_better: bool | None = None,
        patience: int | None = None,
    ) -> None:
        if patience is not None:
            check_integer(patience, "patience", minimum=1)
        self.folder, self.network, self.evaluator = Path(folder), network, evaluator
        self.metric, self.patience = metric, patience
        self.lower_is_better = metric.endswith(("loss", "rank")) if lower_is_better is None else lower_is_better
        self.epoch, self.value = 0, math.nan  # of the best so far; 0 where there is none

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the epoch's metric with the best so far.

        Raises:
            ValueError: If the validation gave no such metric, or a weight is not finite.
        """
        epoch = engine.state.epoch
        value = self._metric() if self.evaluator.state.epoch == epoch else math.nan
        better = value < self.value if self.lower_is_better else value > self.value
        if better or (not self.epoch and not math.isnan(value)):
            self.epoch, self.value = epoch, value
            self._save()
        elif self.should_stop(epoch):
            logger.info("stopped after epoch %d: no better %s since epoch %d", epoch, self.metric, self.epoch)
            engine.terminate()

    def _metric(self) -> float:
        metrics = self.evaluator.state.metrics
        if self.metric not in metrics:
            raise ValueError(
                f"the best epoch is chosen by the validation metric {self.metric!r}, but validation gave "
                f"{', '.join(map(repr, metrics)) or 'none'}."
            )
        return float(metrics[self.metric])

    def should_stop(self, epoch: int) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        return self.patience is not None and epoch - self.epoch >= self.patience

    def restore_best(self) -> int:
        """Load the best epoch's weights into the network.

        Returns:
            The epoch; 0 if there is no best epoch and the weights are unchanged.

        Raises:
            ValueError: If the file is damaged.
            FileNotFoundError: If it is missing.
        """
        if self.epoch:
            load_whole_state(self.network, load_checkpoint(self._path(self.epoch)))
        return self.epoch

    def state_dict(self) -> dict[str, Any]:
        """The best epoch and its metric."""
        return {"epoch": self.epoch, "value": self.value}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise if the weights that a state refers to cannot be read.

        Raises:
            ValueError: If the file is damaged.
            FileNotFoundError: If it is missing.
        """
        if int(state["epoch"]):
            verify_checkpoint(self._path(int(state["epoch"])))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.epoch, self.value = int(state["epoch"]), float(state["value"])

    def _path(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04d}.pt"

    def _save(self) -> None:
        if not is_rank_zero() and not is_sharded(self.network):
            return
        states = self.network.state_dict()
        if is_sharded(self.network):  # every process has a part of it
            states = whole_state(states)
            if not is_rank_zero():
                return
        check_finite_weights(states, f"after epoch {self.epoch}")
        save_checkpoint(states, self._path(self.epoch))
        # The previous file is kept: until the run's next checkpoint is written, a resumed run regards that epoch as the best.
        remove_old(self.folder.glob("best-*.pt"), 2, self.epoch)
