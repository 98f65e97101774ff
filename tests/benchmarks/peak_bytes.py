"""Peak memory of tensors: counted exactly on a CPU, as the allocator's maximum on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Within the block, the bytes of all tensors that operations made and that are still alive, and their maximum.

    Tensors from before the block do not count, nor do buffers inside an operation. The count depends on the program alone.

    Example:
        >>> with PeakBytes() as counted:
        ...     total = (torch.zeros(1000) + torch.ones(1000)).sum()
        >>> counted.peak, counted.now  # three vectors; a sum of 4 bytes
        (12000, 4)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = {
            value.untyped_storage().data_ptr() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value, before)
        return result

    def _add(self, value: Tensor, before: set[int]) -> None:
        storage = value.untyped_storage()
        place = storage.data_ptr()
        if not place or place in before or place in self._known:  # a view, or the result of an operation in place
            return
        size = storage.nbytes()
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, place, size)

    def _remove(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


class PeakAllocated:
    """The same for a GPU: the maximum of its allocator within the block, above what was allocated before."""

    def __init__(self, device: torch.device | str = "cuda") -> None:
        self._device = device
        self.peak = 0

    def __enter__(self) -> PeakAllocated:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.synchronize(self._device)
        self.peak = torch.cuda.max_memory_allocated(self._device) - self._before


def measure_peak(device: torch.device | str) -> PeakBytes | PeakAllocated:
    """A block whose attribute ``peak`` is the bytes that tensors took at most."""
    return PeakBytes() if torch.device(device).type == "cpu" else PeakAllocated(device)
