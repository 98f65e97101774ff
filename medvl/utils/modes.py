"""Networks that stand in evaluation for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def eval_mode(network: Any) -> Iterator[None]:
    """Puts a module in evaluation, and then each of its parts back as it was; anything else is left alone.

    A tower that stays in evaluation while the rest trains does so afterwards too, which ``network.train()`` would undo.
    """
    training = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    if training:
        network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
