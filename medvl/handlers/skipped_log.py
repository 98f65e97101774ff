"""A log of the studies that a run skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medvl.utils.checksums import read_listed_lines, write_listed_lines
from medvl.utils.distributed import all_gather_object, is_distributed, is_rank_zero
from medvl.utils.errors import StudyError

KEYS = ("study_id", "key", "reason")


class SkippedLog:
    """Writes every study that could not be used to a JSON-lines file, after each epoch: ``study_id``, ``key``, ``reason``.

    With several processes the first writes what all of them skipped. ``SHA256SUMS`` beside the file
    has its checksum. A resumed run keeps the lines of what was skipped before.

    Args:
        path: the file.
        errors: what was skipped before training, when the table was read.
        loaders: loaders, whose ``skipped`` grows while they run (:class:`~medvl.data.StudyLoader`).
    """

    def __init__(self, path: str | Path, errors: Iterable[StudyError] = (), loaders: Sequence[Any] = ()) -> None:
        self.path, self.errors, self.loaders = Path(path), list(errors), list(loaders)
        self._before: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Read what a resumed run had skipped, and write what was skipped before training."""
        resumed = engine.state.epoch > 0 and self.path.is_file()
        self._before = read_listed_lines(self.path, *KEYS) if resumed and is_rank_zero() else []
        self(engine)

    def __call__(self, engine: Engine) -> None:
        found = [error for loader in self.loaders for error in loader.skipped.values()]
        if is_distributed():
            found = list({error.study_id: error for part in all_gather_object(found) for error in part}.values())
        if not is_rank_zero():
            return
        lines = [{"study_id": e.study_id, "key": e.key, "reason": e.reason} for e in [*self.errors, *found]]
        met = {(line["study_id"], line["key"]) for line in lines}
        lines += [line for line in self._before if (line["study_id"], line["key"]) not in met]
        write_listed_lines(self.path, lines)
