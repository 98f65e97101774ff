"""Evaluation mode of networks for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def eval_mode(network: Any) -> Iterator[None]:
    """Put a module in evaluation mode, and afterwards each of its submodules back in its own mode.

    A frozen encoder in evaluation mode stays so afterwards, which ``network.train()`` would undo. Anything that is not a
    module is left alone.
    """
    training = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    if training:
        network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
