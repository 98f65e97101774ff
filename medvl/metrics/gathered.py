"""Base of the metrics: buffers that are gathered over ranks, even if a rank has no data."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather

from medvl.utils.distributed import all_gather_object, is_distributed


class GatheredMetric(CumulativeIterationMetric):
    """MONAI's cumulative metric, correct even if some rank has no case.

    In MONAI's own, such a rank does not take part in the gather, and the other ranks wait for it until they time out.
    """

    _synced: bool

    def _sync(self) -> None:
        if self._synced or not is_distributed():
            super()._sync()
            return
        own = [torch.stack(buffer) for buffer in self._buffers or []]
        layouts = all_gather_object([(tensor.shape[1:], tensor.dtype) for tensor in own])
        # A rank without a case learns from another one which buffers there are.
        layout = next(filter(None, layouts), None)
        if layout is None:
            return
        tensors = own or [torch.empty((0, *shape), dtype=dtype) for shape, dtype in layout]
        self._synced_tensors = [evenly_divisible_all_gather(tensor, concat=True) for tensor in tensors]
        self._synced = True
