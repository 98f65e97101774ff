"""The studies that a run left out, on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medvl.utils.distributed import get_rank, is_distributed
from medvl.utils.errors import StudyError


class SkippedLog:
    """Writes every study that could not be used to a JSON-lines file, after each epoch: ``study_id``, ``key``, ``reason``.

    Of several processes the first writes what all have skipped.

    Args:
        path: the file.
        errors: what was skipped before training, when the table was read.
        loaders: the loaders whose ``skipped`` grows while they run (:class:`~medvl.data.StudyLoader`).
    """

    def __init__(self, path: str | Path, errors: Iterable[StudyError] = (), loaders: Sequence[Any] = ()) -> None:
        self.path, self.errors, self.loaders = Path(path), list(errors), list(loaders)

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        found = [error for loader in self.loaders for error in loader.skipped.values()]
        if is_distributed():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, found)
            found = list({error.study_id: error for part in parts for error in part}.values())
        if get_rank():
            return
        lines = [{"study_id": e.study_id, "key": e.key, "reason": e.reason} for e in [*self.errors, *found]]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
