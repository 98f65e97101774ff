"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medvl.utils.distributed import get_rank

PATTERN = "epoch-*.pt"


def save_whole(state: Mapping[str, Any], path: Path) -> None:
    """Saves what torch can save, whole or not at all; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class RunCheckpoint:
    """Writes a trainer's state after each epoch and restores it from the newest file that is whole.

    A file is written under another name and then renamed, which is atomic: a process killed at any moment leaves the old
    file or the new one, never half of one. (MONAI's ``CheckpointSaver`` writes in place.) Files are read with
    ``weights_only=True``. Of several processes the first writes, and all read.

    Args:
        folder: where the files ``epoch-0007.pt`` go; made when the first is written.
        objects: what to save, by name; everything with ``state_dict`` and ``load_state_dict``; those that are None are left
            out. The trainer that the handler is attached to, and its gradient scaler where it has one, are added as
            ``trainer`` and ``scaler``.
        keep: how many of the newest files stay, at least 1.

    Raises:
        ValueError: where ``keep`` is below 1.
    """

    def __init__(self, folder: str | Path, objects: Mapping[str, Any], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, received {keep}.")
        self.folder, self.keep = Path(folder), keep
        self.objects = {name: value for name, value in objects.items() if value is not None}
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        self.objects["trainer"] = self._engine = engine
        if getattr(engine, "scaler", None) is not None:
            self.objects["scaler"] = engine.scaler
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if get_rank():
            return
        states = {name: value.state_dict() for name, value in self.objects.items()}
        save_whole(states, self.folder / f"epoch-{engine.state.epoch:04d}.pt")
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
        """Loads the newest whole checkpoint into the objects; the trainer keeps its own ``max_epochs``.

        ignite begins a run anew that has no epoch left: call ``run`` only where ``state.epoch`` is below ``max_epochs``.

        Returns:
            The file that was read; None where there is none.

        Raises:
            ValueError: where the file holds other objects than these.
        """
        path = self.newest()
        if path is None:
            return None
        states = torch.load(path, map_location=map_location, weights_only=True)
        if set(states) != set(self.objects):
            raise ValueError(f"{path} holds {', '.join(sorted(states))}, expected {', '.join(sorted(self.objects))}.")
        if self._engine is not None:
            states["trainer"]["max_epochs"] = self._engine.state.max_epochs  # how far to go is said anew
        for name, value in self.objects.items():
            value.load_state_dict(states[name])
        return path
