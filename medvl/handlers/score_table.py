"""Scores of studies as a table on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from medvl.handlers.metrics import prediction_and_batch
from medvl.utils.checks import error_message
from medvl.utils.csv_files import CsvWriter
from medvl.utils.io import atomic_write


class ScoreTable:
    """Writes an evaluator's scores to a CSV file, one row per study, atomically when its run is complete.

    The engine's prediction is (N, K) and its batch has ``study_id``, as with :class:`~medvl.inferers.ZeroShotInferer` and
    :class:`~medvl.engines.PrepareBatchImageText`; use ``decollate=False``. (MONAI's ``ClassificationSaver`` writes no
    column names and expects file names where there are studies.)

    Args:
        path: the file; its folder is made.
        names: names of the K columns.
        digits: number of digits after the decimal point.
    """

    def __init__(self, path: str | Path, names: Sequence[str], digits: int = 6) -> None:
        self.path, self.names, self.digits = Path(path), list(names), digits
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_batch)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Reset the rows."""
        self._rows = []

    def add_batch(self, engine: Engine) -> None:
        """Add one batch's rows.

        Raises:
            ValueError: If the prediction does not have a score for every study and name.
        """
        scores, batch = prediction_and_batch(engine.state.output)
        ids, shape = batch["study_id"], tuple(getattr(scores, "shape", ()))
        if shape != (len(ids), len(self.names)):
            raise ValueError(
                error_message("scores", f"have shape ({len(ids)}, {len(self.names)}), studies and names", shape)
            )
        for study_id, row in zip(ids, scores.tolist(), strict=True):  # type: ignore[attr-defined]
            self._rows.append([str(study_id), *(f"{value:.{self.digits}f}" for value in row)])

    def write(self, engine: Engine) -> None:
        """Write the file."""
        with atomic_write(self.path, newline="") as file:
            CsvWriter(file).write_rows([["study_id", *self.names], *self._rows])
