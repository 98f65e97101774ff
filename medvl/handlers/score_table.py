"""Scores of studies as a table on disk."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from medvl.handlers.metrics import prediction_and_batch


class ScoreTable:
    """Writes an evaluator's scores to a CSV file, a row for each study, when its run is complete; whole or not at all.

    The engine's prediction is (N, K) and its batch has ``study_id``, as with :class:`~medvl.inferers.ZeroShotInferer` and
    :class:`~medvl.engines.PrepareBatchImageText`; use ``decollate=False``. (MONAI's ``ClassificationSaver`` writes no names
    of columns and asks for file names where there are studies.)

    Args:
        path: the file; its folder is made.
        names: names of the K columns.
        digits: after the decimal point.
    """

    def __init__(self, path: str | Path, names: Sequence[str], digits: int = 6) -> None:
        self.path, self.names, self.digits = Path(path), list(names), digits
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_batch)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forgets the rows of the run before."""
        self._rows = []

    def add_batch(self, engine: Engine) -> None:
        """Adds one batch's rows.

        Raises:
            ValueError: where the prediction has not a score for every study and name.
        """
        scores, batch = prediction_and_batch(engine.state.output)
        ids, shape = batch["study_id"], tuple(getattr(scores, "shape", ()))
        if shape != (len(ids), len(self.names)):
            raise ValueError(
                f"scores must have shape ({len(ids)}, {len(self.names)}), studies and names; received {shape}"
            )
        for study_id, row in zip(ids, scores.tolist(), strict=True):  # type: ignore[attr-defined]
            self._rows.append([str(study_id), *(f"{value:.{self.digits}f}" for value in row)])

    def write(self, engine: Engine) -> None:
        """Writes the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([["study_id", *self.names], *self._rows])
        os.replace(partial, self.path)
