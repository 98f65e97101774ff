"""The metrics of a training run, one line of JSON per epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medvl.handlers.step_info import step_output
from medvl.utils.checksums import read_listed_lines, write_listed_lines
from medvl.utils.distributed import get_rank, get_world_size, is_distributed, is_rank_zero


class MetricsLog:
    """Appends a line to a JSON-lines file after each epoch: mean loss and terms, validation metrics, learning rate, seconds.

    The keys are ``epoch``, ``iteration``, ``loss``, every term that the loss keeps in ``terms``, every metric of
    ``evaluator`` with the prefix ``val_``, ``lr`` (the greatest of the optimizer's groups), ``logit_scale`` where the network
    gives one, ``seconds``. A value that is not finite is null. An epoch that was not validated has no ``val_`` keys. Attach it
    after the validation handler, so that the metrics are those of the same epoch. Lines of epochs that a resumed run does
    again are dropped when it starts. Of several processes the first writes the mean over all. ``SHA256SUMS`` beside the file
    has its checksum.

    Args:
        path: the file; its folder is made.
        evaluator: the validation engine whose ``state.metrics`` are written, or None.
    """

    def __init__(self, path: str | Path, evaluator: Engine | None = None) -> None:
        self.path, self.evaluator = Path(path), evaluator
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._started = 0.0
        self._resumed: Mapping[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self.drop_later_lines)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_line)

    def drop_later_lines(self, engine: Engine) -> None:
        """Drop the lines of the epochs that a resumed run repeats."""
        if not is_rank_zero():
            return
        kept = [line for line in read_metrics(self.path) if line["epoch"] <= engine.state.epoch]
        write_listed_lines(self.path, kept)

    def start_epoch(self, engine: Engine) -> None:
        """Reset the sums, or go on with those of an epoch that is resumed."""
        state, self._resumed = self._resumed or {"sums": {}, "steps": 0, "seconds": 0.0}, None
        self._sums, self._steps = dict(state["sums"]), state["steps"]
        self._started = time.perf_counter() - state["seconds"]

    def state_dict(self) -> dict[str, Any]:
        """The sums of the current epoch so far."""
        return {"sums": dict(self._sums), "steps": self._steps, "seconds": time.perf_counter() - self._started}

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Let the next epoch go on with the sums of its first steps.

        Args:
            states: what :meth:`state_dict` returned in each process; their mean, where there were other processes than now.
        """
        if len(states) == get_world_size():
            self._resumed = states[get_rank()]
        else:
            sums = {name: sum(state["sums"][name] for state in states) / len(states) for name in states[0]["sums"]}
            self._resumed = {**states[0], "sums": sums}

    def add_step(self, engine: Engine) -> None:
        """Add one step's loss and terms, without synchronizing with the device."""
        values = {"loss": step_output(engine)["loss"]}
        values.update(getattr(engine.loss_function, "terms", {}))
        for name, value in values.items():
            value = torch.as_tensor(value).detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def write_line(self, engine: Engine) -> None:
        """Append the epoch's line."""
        line: dict[str, Any] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        line.update((name, _mean_over_processes(value / self._steps)) for name, value in self._sums.items())
        if not is_rank_zero():
            return
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            line.update((f"val_{name}", float(value)) for name, value in self.evaluator.state.metrics.items())
        line["lr"] = max(group["lr"] for group in engine.optimizer.param_groups)
        output = step_output(engine)["pred"]
        if isinstance(output, dict) and "logit_scale" in output:
            line["logit_scale"] = float(output["logit_scale"].detach())
        line["seconds"] = round(time.perf_counter() - self._started, 3)
        # The whole file anew: a process that is killed while it appends would leave half a line.
        write_listed_lines(self.path, [*read_metrics(self.path), line])


def _mean_over_processes(value: torch.Tensor) -> float:
    if not is_distributed():
        return float(value)
    total = value.clone()
    torch.distributed.all_reduce(total)
    return float(total) / get_world_size()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first; empty if the file is missing.

    Raises:
        ValueError: If a line is damaged, with its number, or the file is not as it was written.
    """
    return [] if not Path(path).is_file() else read_listed_lines(path, _is_whole)


def _is_whole(line: Mapping[str, Any]) -> bool:
    """Whether a line has an epoch, and every value is a finite number or null."""
    numbers = [value for value in line.values() if value is not None]
    return type(line.get("epoch")) is int and all(
        type(value) in (int, float) and abs(value) <= sys.float_info.max for value in numbers
    )
