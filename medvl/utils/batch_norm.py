"""Running statistics of batch norm where one step passes a network more than once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def tracked_norms(network: nn.Module) -> dict[str, _NormBase]:
    """The layers in training mode that keep running statistics, by name: batch norm, and instance norm that was told to."""
    modules = network.named_modules()
    return {name: m for name, m in modules if isinstance(m, _NormBase) and m.training and m.running_mean is not None}


@contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """A block in which forward passes in training mode leave the running statistics and the count of batches alone.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> with kept_statistics(norm):
        ...     _ = norm(torch.tensor([[3.0], [5.0]]))
        >>> norm.running_mean.item(), norm.num_batches_tracked.item()
        (0.0, 0)
    """
    norms = list(tracked_norms(network).values())
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, value in zip(norms, momenta, counts, before, strict=True):
            norm.momentum = momentum
            if count is not None and value is not None:
                count.copy_(value)


class ChunkedStatistics:
    """Updates the running statistics once for several chunks of a batch: by the weighted mean of the chunks' updates.

    With r the running statistics before the batch, m the momentum and s_c the mean or variance of chunk c, of weight w_c,
    they become (1 - m) r + m sum_c w_c s_c, and the count of batches rises as by one pass.

    Args:
        network: its layers that are in training mode now are followed.

    Example:
        >>> norm = nn.BatchNorm1d(1, momentum=0.5)
        >>> statistics = ChunkedStatistics(norm)
        >>> for value in (2.0, 6.0):
        ...     with statistics.chunk(weight=0.5):
        ...         _ = norm(torch.tensor([[value - 1], [value + 1]]))
        >>> statistics.finish()
        >>> norm.running_mean.item(), norm.num_batches_tracked.item()
        (2.0, 1)
    """

    def __init__(self, network: nn.Module) -> None:
        norms = tracked_norms(network).values()
        found = [(norm.running_mean, norm.running_var) for norm in norms]
        self._values: list[Tensor] = [value for pair in found for value in pair if value is not None]
        self._counts: list[Tensor] = [n.num_batches_tracked for n in norms if n.num_batches_tracked is not None]
        self._before = [value.clone() for value in (*self._values, *self._counts)]
        self._sums = [torch.zeros_like(value) for value in self._values]
        self._largest = [count.clone() for count in self._counts]

    @contextmanager
    def chunk(self, weight: float) -> Iterator[None]:
        """A block with the pass of one chunk, which starts from the statistics before the batch.

        Args:
            weight: of the chunk's statistics; the weights of a batch's chunks sum to 1.
        """
        for value, before in zip((*self._values, *self._counts), self._before, strict=True):
            value.copy_(before)
        yield
        for total, value in zip(self._sums, self._values, strict=True):
            total.add_(value, alpha=weight)
        for largest, count in zip(self._largest, self._counts, strict=True):
            torch.maximum(largest, count, out=largest)

    def finish(self) -> None:
        """Set the statistics after all chunks."""
        for value, total in zip((*self._values, *self._counts), (*self._sums, *self._largest), strict=True):
            value.copy_(total)
