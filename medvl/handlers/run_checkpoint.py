"""Checkpoints of a training run, written atomically."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from medvl.handlers.checkpoint_file import (
    check_finite_weights,
    describe_position,
    load_checkpoint,
    position_of,
    remove_old,
    save_checkpoint,
)
from medvl.utils.checks import check_integer, error_message
from medvl.utils.distributed import all_gather_object, is_rank_zero
from medvl.utils.errors import plain_reason
from medvl.utils.sharding import is_sharded, load_whole_state, whole_state

logger = logging.getLogger(__name__)

PATTERN = "epoch-*.pt"
PROCESSES, SCALER = "processes", "scaler"
"""Keys of a file beside the names of the objects."""


class RunCheckpoint:
    """Writes a trainer's state after each epoch, and within epochs, and restores it from the newest file that is whole.

    Files are written atomically: a process that is killed at any moment leaves the old file or the new one. (MONAI's
    ``CheckpointSaver`` writes in place.) Each has a checksum, by which any damage is noticed, and is read with
    ``weights_only=True``. With several processes the first writes, and all read.

    At the end of an epoch, the state is that of the objects. Within an epoch it is also that of ``parts`` in every process:
    where the loader is, the random numbers, the sums of the log.

    Args:
        folder: where the files ``epoch-0007.pt`` and ``epoch-0007-step-000120.pt`` go, which is 120 steps after it; made
            when the first is written.
        objects: what to save, by name: objects with ``state_dict`` and ``load_state_dict``; those that are None are left out.
            The trainer that the handler is attached to, and its gradient scaler where it has one, are added as
            ``trainer`` and ``scaler``. An object with ``check_state`` is asked whether it can be restored to a state.
        keep: how many of the newest files are kept, at least 1.
        interval: number of steps of an epoch, at least 1, after each of which a file is written too; None for the ends of
            epochs only. It must be a multiple of the trainer's ``accumulation_steps``.

    Attributes:
        parts: dictionary of objects with ``state_dict``, and with ``load_state_dicts``, which takes the states of all processes
            in the order of their ranks; there may be other processes than there are now.

    Raises:
        TypeError: If ``keep`` or ``interval`` is not an integer.
        ValueError: If ``keep`` or ``interval`` is below 1.
    """

    def __init__(
        self, folder: str | Path, objects: Mapping[str, Any], keep: int = 2, interval: int | None = None
    ) -> None:
        check_integer(keep, "keep", minimum=1)
        if interval is not None:
            check_integer(interval, "interval", minimum=1)
        self.folder, self.keep, self.interval = Path(folder), keep, interval
        self.objects = {name: value for name, value in objects.items() if value is not None}
        self.parts: dict[str, Any] = {}
        self._engine: Engine | None = None
        self._scaler: Mapping[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer.

        When the trainer starts, it raises ValueError if gradients are accumulated over steps of which ``interval`` is not a
        multiple.
        """
        self.objects["trainer"] = self._engine = engine
        engine.add_event_handler(Events.STARTED, self._check_interval)
        engine.add_event_handler(Events.STARTED, self._restore_scaler)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(event_filter=lambda engine, _: self.is_due(engine)), self.save_within_epoch
        )

    def _check_interval(self, engine: Engine) -> None:
        """Raise for an interval that ends amid accumulated gradients; MONAI's trainers know ``accumulation_steps`` only now."""
        accumulated = getattr(engine, "accumulation_steps", 1)
        if self.interval is not None and self.interval % accumulated:
            expected = f"be a multiple of accumulation_steps={accumulated}"
            raise ValueError(error_message("interval", expected, self.interval))

    def is_due(self, engine: Engine) -> bool:
        """Whether the state is saved after the current step, before the end of the epoch."""
        length, step = engine.state.epoch_length, steps_of_epoch(engine)
        return self.interval is not None and step % self.interval == 0 and bool(length) and step < length

    def __call__(self, engine: Engine) -> None:
        """Write the state at the end of an epoch.

        Raises:
            ValueError: If a weight of a network is not finite.
            DiskFullError: If there is no space left.
        """
        epoch = engine.state.epoch
        self._save(self.folder / f"epoch-{epoch:04d}.pt", f"after epoch {epoch}")

    def save_within_epoch(self, engine: Engine) -> None:
        """Write the state after a step of an epoch.

        Raises:
            ValueError: If a weight of a network is not finite.
            DiskFullError: If there is no space left.
        """
        epoch, step = engine.state.epoch, steps_of_epoch(engine)
        parts = all_gather_object({name: part.state_dict() for name, part in self.parts.items()})
        path = self.folder / f"epoch-{epoch - 1:04d}-step-{step:06d}.pt"
        self._save(path, f"after step {step} of epoch {epoch}", {PROCESSES: parts})

    def _save(self, path: Path, when: str, more: Mapping[str, Any] | None = None) -> None:
        if any(map(is_sharded, self.objects.values())):  # every process has a part of them
            states = {name: whole_state(value.state_dict()) for name, value in self.objects.items()}
        elif is_rank_zero():
            states = {name: value.state_dict() for name, value in self.objects.items()}
        if not is_rank_zero():
            return
        states |= dict(more or {})
        for name, value in self.objects.items():
            if isinstance(value, nn.Module):
                check_finite_weights(states[name], when)
        scaler = getattr(self._engine, "scaler", None)  # the trainer makes it when it runs
        if scaler is not None:
            states[SCALER] = scaler.state_dict()
        save_checkpoint(states, path)
        remove_old(self.folder.glob(PATTERN), self.keep, *position_of(path))

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, or None; those that are damaged are named in a warning."""
        return self._newest("cpu")[0]

    def _newest(self, map_location: Any) -> tuple[Path | None, dict[str, Any]]:
        damaged = []
        found: Path | None = None
        states: dict[str, Any] = {}
        for path in sorted(self.folder.glob(PATTERN), key=position_of, reverse=True):
            try:
                states = load_checkpoint(path, map_location)
                for name, value in self.objects.items():
                    if name in states and hasattr(value, "check_state"):
                        value.check_state(states[name])
            except (ValueError, OSError) as error:
                damaged.append(f"{describe_position(path)} ({error})".replace(".)", ")"))
                continue
            found = path
            break
        if damaged and is_rank_zero():
            goes = f"falls back to {describe_position(found)}" if found else "starts from the beginning"
            logger.warning("The run cannot be resumed after %s and %s.", ", nor after ".join(damaged), goes)
        return found, states if found else {}

    def restore(self, map_location: Any = "cpu") -> Path | None:
        """Load the newest whole checkpoint into the objects; the trainer keeps its own ``max_epochs``.

        ignite restarts a run that has no epoch left: call ``run`` only if ``state.epoch`` is below ``max_epochs``.

        Returns:
            The file that was read; None where there is none.

        Raises:
            ValueError: If the file holds other objects than these, or a state that one of them cannot be restored to, or is of
                epochs with another number of steps.
        """
        path, states = self._newest(map_location)
        if path is None:
            return None
        parts, self._scaler = states.pop(PROCESSES, None), states.pop(SCALER, None)
        if set(states) != set(self.objects):
            raise ValueError(
                error_message(str(path), f"hold {', '.join(sorted(self.objects))}", ", ".join(sorted(states)))
            )
        try:
            if self._engine is not None:
                length, before = self._engine.state.epoch_length, states["trainer"]["epoch_length"]
                if None not in (length, before) and length != before:
                    raise ValueError(error_message(str(path), f"have epochs of {length} steps, as this run", before))
                states["trainer"]["max_epochs"] = self._engine.state.max_epochs  # a resumed run may be longer
        except (LookupError, TypeError) as error:
            raise ValueError(_not_of_this_run(path, "trainer", error)) from error
        for name, value in self.objects.items():
            try:
                load_whole_state(value, states[name])
            except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
                raise ValueError(_not_of_this_run(path, name, error)) from error
        if parts is not None:
            for name, part in self.parts.items():
                part.load_state_dicts([of_process[name] for of_process in parts])
        return path

    def _restore_scaler(self, engine: Engine) -> None:
        """Load the gradient scaler's state into that which the trainer has made by now."""
        scaler, self._scaler, state = getattr(engine, "scaler", None), None, self._scaler
        if scaler is not None and state:
            scaler.load_state_dict(state)


def _not_of_this_run(path: Path, name: str, error: Exception) -> str:
    return f"{path} cannot be restored: its {name} is not one of this run ({plain_reason(error)})."


def steps_of_epoch(engine: Engine) -> int:
    """The number of the current step in its epoch, from 1 on."""
    length = engine.state.epoch_length
    return (engine.state.iteration - 1) % length + 1 if length else engine.state.iteration
