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
        self._ids: list[str] = []
        self._scores: list[list[float]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_batch)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Reset the rows."""
        self._ids, self._scores = [], []

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
        self._ids += map(str, ids)
        self._scores += scores.tolist()  # type: ignore[attr-defined]

    def write(self, engine: Engine) -> None:
        """Write the file."""
        write_scores(self.path, self.names, self._ids, self._scores, self.digits)


def write_scores(
    path: str | Path, names: Sequence[str], ids: Sequence[str], scores: Sequence[Sequence[float]], digits: int = 6
) -> None:
    """Write a CSV file with a row for each study and a column for each name, whole or not at all.

    Args:
        path: the file; its folder is made.
        names: K names.
        ids: N study ids.
        scores: N rows of K numbers.
        digits: number of digits after the decimal point.
    """
    rows = [[name, *(f"{value:.{digits}f}" for value in row)] for name, row in zip(ids, scores, strict=True)]
    with atomic_write(path, newline="") as file:
        CsvWriter(file).write_rows([["study_id", *names], *rows])
