"""Stops a run whose weights are not finite at the end of an epoch, before they are validated or saved."""

from __future__ import annotations

from ignite.engine import Engine, Events

from medvl.handlers.checkpoint_file import find_infinite_weight
from medvl.handlers.step_info import describe_step


class FiniteWeights:
    """Stops a trainer at the end of an epoch whose last step made a weight NaN or infinite; the error names step and studies.

    :class:`FiniteLoss` sees such weights only at the next step, which the last one of an epoch does not have before the
    weights are validated and saved. It acts after the last iteration of an epoch, before the handlers of the epoch's end.
    """

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the weights.

        Raises:
            ValueError: If a weight is not finite.
        """
        length = engine.state.epoch_length
        if not length or engine.state.iteration % length:
            return
        name = find_infinite_weight(engine.network.state_dict())
        if name is not None:
            raise ValueError(
                f"The weights are not finite ({name}) after the step {describe_step(engine)} They are not saved; the last "
                "checkpoint is whole. A lower learning_rate or max_grad_norm may help."
            )
