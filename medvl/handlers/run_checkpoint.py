"""Checkpoints of a training run, written atomically."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medvl.utils.checks import check_integer, error_message
from medvl.utils.distributed import is_rank_zero
from medvl.utils.io import atomic_write

PATTERN = "epoch-*.pt"


def save_atomic(state: Mapping[str, Any], path: Path) -> None:
    """``torch.save`` to a file that is written completely or not at all; the folder is created."""
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


class RunCheckpoint:
    """Writes a trainer's state after each epoch and restores it from the newest file that can be read.

    Files are written atomically: a process that is killed at any moment leaves the old file or the new one. (MONAI's
    ``CheckpointSaver`` writes in place.) They are read with ``weights_only=True``. With several processes the first writes,
    and all read.

    Args:
        folder: where the files ``epoch-0007.pt`` go; made when the first is written.
        objects: what to save, by name: objects with ``state_dict`` and ``load_state_dict``; those that are None are left out.
            The trainer that the handler is attached to, and its gradient scaler where it has one, are added as
            ``trainer`` and ``scaler``.
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
        if not is_rank_zero():
            return
        states = {name: value.state_dict() for name, value in self.objects.items()}
        save_atomic(states, self.folder / f"epoch-{engine.state.epoch:04d}.pt")
        for old in sorted(self.folder.glob(PATTERN))[: -self.keep]:
            old.unlink()

    def newest(self) -> Path | None:
        """The newest checkpoint that can be read, or None."""
        for path in sorted(self.folder.glob(PATTERN), reverse=True):
            try:
                torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
                continue
            return path
        return None

    def restore(self, map_location: Any = None) -> Path | None:
        """Load the newest readable checkpoint into the objects; the trainer keeps its own ``max_epochs``.

        ignite restarts a run that has no epoch left: call ``run`` only if ``state.epoch`` is below ``max_epochs``.

        Returns:
            The file that was read; None where there is none.

        Raises:
            ValueError: If the file holds other objects than these.
        """
        path = self.newest()
        if path is None:
            return None
        states = torch.load(path, map_location=map_location, weights_only=True)
        if set(states) != set(self.objects):
            raise ValueError(
                error_message(str(path), f"hold {', '.join(sorted(self.objects))}", ", ".join(sorted(states)))
            )
        if self._engine is not None:
            states["trainer"]["max_epochs"] = self._engine.state.max_epochs  # a resumed run may be longer
        for name, value in self.objects.items():
            value.load_state_dict(states[name])
        return path
