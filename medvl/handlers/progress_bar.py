"""One progress bar for a whole training run."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm.auto import tqdm

from medvl.handlers.step_info import step_output


class ProgressBar:
    """Shows completed steps, remaining time, the epoch and its running mean loss.

    Args:
        enabled: whether anything is shown.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._bar: Any = None
        self._loss, self._steps = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED, self.stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Open the bar at the current iteration, which is above 0 in a resumed run."""
        self._steps = 0
        total = engine.state.max_epochs * engine.state.epoch_length
        self._bar = tqdm(
            total=total, initial=engine.state.iteration, desc="train", unit="step", disable=not self.enabled
        )

    def step(self, engine: Engine) -> None:
        """Advance the bar."""
        loss = float(torch.as_tensor(step_output(engine)["loss"]).detach())
        first = engine.state.iteration % engine.state.epoch_length == 1 or engine.state.epoch_length == 1
        self._steps = 1 if first else self._steps + 1
        self._loss += (loss - self._loss) / self._steps
        self._bar.set_postfix_str(f"epoch {engine.state.epoch}/{engine.state.max_epochs}, loss {self._loss:.3f}", False)
        self._bar.update()

    def stop(self, engine: Engine) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Close the bar and raise the error again."""
        self.stop(engine)
        raise error
