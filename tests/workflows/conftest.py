"""Fixtures of the bundles' tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import pytest

from medvl.handlers import FiniteLoss


class Killed(BaseException):
    """What no handler and no workflow catches, so that nothing is tidied up or written on the way out."""


@pytest.fixture
def killed_at() -> Callable[[int], AbstractContextManager]:
    """A block in which training ends abruptly, in the middle of a step, at a number of iterations."""

    @contextmanager
    def block(iteration: int):
        def kill(self, engine):
            if engine.state.iteration == iteration:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FiniteLoss, "__call__", kill)
            try:
                yield
            except Killed:
                return
        pytest.fail(f"the training ended before iteration {iteration}")

    return block
