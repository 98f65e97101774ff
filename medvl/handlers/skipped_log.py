"""A log of the studies that a run skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        self._resumed: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Read what a resumed run had skipped, and write what was skipped before training."""
        resumed = engine.state.iteration > 0 and self.path.is_file()
        self._before = read_skipped_lines(self.path) if resumed and is_rank_zero() else []
        self._before += self._resumed
        self(engine)

    def __call__(self, engine: Engine) -> None:
        found = [error for loader in self.loaders for error in loader.skipped.values()]
        if is_distributed():
            found = list({error.study_id: error for part in all_gather_object(found) for error in part}.values())
        if not is_rank_zero():
            return
        lines = _lines([*self.errors, *found])
        met = {(line["study_id"], line["key"]) for line in lines}
        for line in self._before:
            if (line["study_id"], line["key"]) not in met:
                met.add((line["study_id"], line["key"]))
                lines.append(line)
        write_listed_lines(self.path, lines)

    def state_dict(self) -> dict[str, Any]:
        """What this process has skipped so far."""
        return {"skipped": _lines(error for loader in self.loaders for error in loader.skipped.values())}

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a run that is resumed within an epoch had skipped.

        Args:
            states: what :meth:`state_dict` returned in each process.
        """
        self._resumed = [line for state in states for line in state["skipped"]]


def read_skipped_lines(path: str | Path) -> list[dict[str, str]]:
    """The lines of a file of :class:`SkippedLog`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is damaged, with its number, or the file is not as it was written.
    """
    lines = read_listed_lines(path, lambda line: all(isinstance(line.get(key), str) for key in KEYS))
    return [{key: line[key] for key in KEYS} for line in lines]


def _lines(errors: Iterable[StudyError]) -> list[dict[str, Any]]:
    return [{"study_id": error.study_id, "key": error.key, "reason": error.reason} for error in errors]
