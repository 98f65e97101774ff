"""Base of the metrics: buffers that are gathered over ranks, even if a rank has no data."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather

from medvl.utils.checks import error_message


class GatheredMetric(CumulativeIterationMetric):
    """MONAI's cumulative metric, correct even if some rank has no case, or no case of one kind.

    In MONAI's own, such a rank does not take part in the gather, and the other ranks wait for it until they time out.
    """

    _synced: bool

    def _sync(self) -> None:
        if self._synced or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            super()._sync()
            return
        own = [torch.stack(buffer) if buffer else None for buffer in self._buffers or []]
        layouts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(layouts, [None if part is None else (part.shape[1:], part.dtype) for part in own])
        known: list[Any] = [next((part for part in parts if part is not None), None) for parts in _columns(layouts)]
        if not known:
            return
        missing = [number for number, layout in enumerate(known) if layout is None]
        if missing:
            received = f"none on any rank for buffers {missing}"
            raise ValueError(error_message(type(self).__name__, "have cases of every kind", received))
        own += [None] * (len(known) - len(own))
        tensors = [
            torch.empty((0, *layout[0]), dtype=layout[1]) if part is None else part
            for part, layout in zip(own, known, strict=True)
        ]
        self._synced_tensors = [evenly_divisible_all_gather(tensor, concat=True) for tensor in tensors]
        self._synced = True


def _columns(layouts: list[list[Any]]) -> list[list[Any]]:
    """The layouts of each buffer on the ranks that have buffers."""
    filled = [rank for rank in layouts if rank]
    return [list(column) for column in zip(*filled, strict=True)]
