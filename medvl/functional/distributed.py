"""Gathering batches from all processes, with gradient and of unequal sizes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether there is more than one process to gather from."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_rank() -> int:
    """This process's number; 0 where there is one."""
    return dist.get_rank() if is_distributed() else 0


def total_rows(count: int, device: torch.device) -> int:
    """The sum over processes of a count."""
    total = torch.tensor(count, device=device)
    if is_distributed():
        dist.all_reduce(total)
    return int(total)


def longest(count: int, device: torch.device) -> int:
    """The largest of all processes' counts."""
    largest = torch.tensor(count, device=device)
    if is_distributed():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def gather_rows(tensor: Tensor) -> Tensor:
    """Rows of every process, one process after the other; the same on each of them.

    The gradient of a process's own rows is the sum of what every process asks of them. Where each process computes the
    same loss from the gathered rows, that is ``world_size`` times the gradient of the loss, which
    ``DistributedDataParallel``'s mean over processes turns into the gradient that one process would have had.

    Args:
        tensor: (n, ...); n may differ between processes, the rest may not.

    Returns:
        (sum of n, ...), or the tensor itself where there is one process.

    Example:
        >>> gather_rows(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    return _GatherRows.apply(tensor) if is_distributed() else tensor


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        size = torch.tensor([len(tensor)], device=tensor.device)
        sizes_by_rank = [torch.empty_like(size) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes_by_rank, size)
        sizes = [int(n) for n in sizes_by_rank]
        # Backends gather equal shapes only: every process sends as many rows as the largest has.
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        start = sum(sizes[: dist.get_rank()])
        ctx.own = slice(start, start + len(tensor))
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own]
