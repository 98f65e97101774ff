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
    epoch_of,
    load_checkpoint,
    remove_old,
    save_checkpoint,
)
from medvl.utils.checks import check_integer, error_message
from medvl.utils.distributed import is_rank_zero

logger = logging.getLogger(__name__)

PATTERN = "epoch-*.pt"


class RunCheckpoint:
    """Writes a trainer's state after each epoch and restores it from the newest file that is whole.

    Files are written atomically: a process that is killed at any moment leaves the old file or the new one. (MONAI's
    ``CheckpointSaver`` writes in place.) Each has a checksum, by which any damage is noticed, and is read with
    ``weights_only=True``. With several processes the first writes, and all read.

    Args:
        folder: where the files ``epoch-0007.pt`` go; made when the first is written.
        objects: what to save, by name: objects with ``state_dict`` and ``load_state_dict``; those that are None are left out.
            The trainer that the handler is attached to, and its gradient scaler where it has one, are added as
            ``trainer`` and ``scaler``. An object with ``check_state`` is asked whether it can be restored to a state.
        keep: how many of the newest files are kept, at least 1.

    Raises:
        ValueError: If ``keep`` is below 1.
    """

    def __init__(self, folder: str | Path, objects: Mapping[str, Any], keep: int = 2) -> None:
        check_integer(keep, "keep", minimum=1)
        self.folder, self.keep = Path(folder), keep
        self.objects = {name: value for name, value in objects.items() if value is not None}
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        self.objects["trainer"] = self._engine = engine
        if getattr(engine, "scaler", None) is not None:
            self.objects["scaler"] = engine.scaler
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the epoch's state.

        Raises:
            ValueError: If a weight of a network is not finite.
            DiskFullError: If there is no space left.
        """
        if not is_rank_zero():
            return
        epoch = engine.state.epoch
        states = {name: value.state_dict() for name, value in self.objects.items()}
        for name, value in self.objects.items():
            if isinstance(value, nn.Module):
                check_finite_weights(states[name], f"after epoch {epoch}")
        save_checkpoint(states, self.folder / f"epoch-{epoch:04d}.pt")
        remove_old(self.folder.glob(PATTERN), self.keep, epoch)

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, or None; those that are damaged are named in a warning."""
        return self._newest("cpu")[0]

    def _newest(self, map_location: Any) -> tuple[Path | None, dict[str, Any]]:
        damaged = []
        found: Path | None = None
        states: dict[str, Any] = {}
        for path in sorted(self.folder.glob(PATTERN), key=epoch_of, reverse=True):
            try:
                states = load_checkpoint(path, map_location)
                for name, value in self.objects.items():
                    if name in states and hasattr(value, "check_state"):
                        value.check_state(states[name])
            except (ValueError, OSError) as error:
                damaged.append(f"epoch {epoch_of(path)} ({error})".replace(".)", ")"))
                continue
            found = path
            break
        if damaged and is_rank_zero():
            goes = f"falls back to epoch {epoch_of(found)}" if found else "starts from the beginning"
            logger.warning("The run cannot be resumed after %s and %s.", ", nor after ".join(damaged), goes)
        return found, states if found else {}

    def restore(self, map_location: Any = "cpu") -> Path | None:
        """Load the newest whole checkpoint into the objects; the trainer keeps its own ``max_epochs``.

        ignite restarts a run that has no epoch left: call ``run`` only if ``state.epoch`` is below ``max_epochs``.

        Returns:
            The file that was read; None where there is none.

        Raises:
            ValueError: If the file holds other objects than these.
        """
        path, states = self._newest(map_location)
        if path is None:
            return None
        if set(states) != set(self.objects):
            raise ValueError(
                error_message(str(path), f"hold {', '.join(sorted(self.objects))}", ", ".join(sorted(states)))
            )
        if self._engine is not None:
            states["trainer"]["max_epochs"] = self._engine.state.max_epochs  # a resumed run may be longer
        for name, value in self.objects.items():
            value.load_state_dict(states[name])
        return path
