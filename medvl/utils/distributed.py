"""Processes of ``torch.distributed``: start and stop, rank and world size, sums, maxima and gathers.

Every function works in a single process too, without ``torch.distributed`` being initialized.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from medvl.utils.checks import error_message
from medvl.utils.ids import hash_id

DRAIN_SECONDS = 0.5
"""How long a process that leaves its group lets the threads of the group finish."""


STORE_SECONDS = 2.0
"""How long a process waits for the store of ``torchrun``."""


_LOST = (
    "Connection closed by peer",
    "Connection refused",
    "Connection reset by peer",
    "Timed out waiting",
    "Broken pipe",
    "remote process exited",
    "timeout caused pair closure",
)
"""What the back ends say when another process does not answer."""


class ProcessLostError(ConnectionError):
    """Another process of the group has ended, or does not answer within the time-out."""


def lost_process(error: BaseException | None) -> ProcessLostError | None:
    """The error that another process was lost, if that is what an error or one of its causes says; else None.

    Example:
        >>> lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
        ProcessLostError('Another process of this run has ended or does not answer, and this one cannot go on.')
        >>> lost_process(RuntimeError("no")) is None
        True
    """
    while error is not None:
        if isinstance(error, ProcessLostError):
            return error
        if _says_lost(error):
            return ProcessLostError(
                "Another process of this run has ended or does not answer, and this one cannot go on."
            )
        error = error.__cause__
    return None


def _says_lost(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    of_store = dist.is_available() and isinstance(error, dist.DistStoreError | dist.DistNetworkError)
    if of_store and "EADDRINUSE" not in str(error):  # two programs with one port are another matter
        return True
    return any(text in str(error) for text in _LOST)


def init_distributed(timeout: timedelta = timedelta(hours=2)) -> None:
    """Join the processes that ``torchrun`` started, each with a GPU of its own where there are GPUs; else do nothing.

    Args:
        timeout: how long a process waits for the others. The default is long because the others wait while the first
            reads its studies and labels their reports.

    Raises:
        ValueError: If a machine has more processes than GPUs.
    """
    if get_world_size() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            expected = f"be at most {gpus}, the number of GPUs of this machine"
            raise ValueError(error_message("--nproc_per_node", expected, f"{local + 1} or more"))
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)


def destroy_distributed() -> None:
    """Leave the group that :func:`init_distributed` joined, once every process has called this."""
    if is_distributed():
        dist.barrier()
        dist.destroy_process_group()
        # Gloo's threads outlive the group while a DistributedDataParallel holds it, and need the interpreter's lock to free
        # the tensors of the last collectives. If the interpreter ends first, the process aborts, with all its work done.
        time.sleep(DRAIN_SECONDS)


def is_distributed() -> bool:
    """Whether there is more than one process and their group is initialized."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def get_world_size() -> int:
    """Number of processes; also before :func:`init_distributed`."""
    initialized = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if initialized else int(os.environ.get("WORLD_SIZE", 1))


def get_rank() -> int:
    """Rank of this process, from 0; also before :func:`init_distributed`."""
    if get_world_size() == 1:
        return 0
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else int(os.environ.get("RANK", 0))


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return get_rank() == 0


def is_first_to(do: str) -> bool:
    """Whether this process is the first of its run to ask, so that something is done once, whichever processes are left.

    ``torchrun`` keeps the count, in a store that outlives every process. Without it rank 0 is the first.

    Args:
        do: what is to be done once.

    Example:
        >>> is_first_to("say goodbye")
        True
    """
    if get_world_size() == 1:
        return True
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]  # torch exports it by other means
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=timedelta(seconds=STORE_SECONDS),
            )
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            return int(store.add(f"medvl/{restart}/{hash_id(do)}", 1)) == 1
        except (RuntimeError, LookupError, ValueError):
            pass
    return os.environ.get("RANK", "0") == "0"


def barrier() -> None:
    """Return once every process has called this."""
    if is_distributed():
        dist.barrier()


def all_reduce_sum(value: int, device: torch.device | str = "cpu") -> int:
    """The sum over processes of an integer."""
    return _all_reduce(value, dist.ReduceOp.SUM, device)


def all_reduce_max(value: int, device: torch.device | str = "cpu") -> int:
    """The maximum over processes of an integer."""
    return _all_reduce(value, dist.ReduceOp.MAX, device)


def _all_reduce(value: int, operation: Any, device: torch.device | str) -> int:
    if not is_distributed():
        return value
    reduced = torch.tensor(value, device=device)
    dist.all_reduce(reduced, op=operation)
    return int(reduced)


def all_gather_object(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_gather_with_grad(tensor: Tensor) -> Tensor:
    """Concatenate the rows of every process in the order of their ranks; every process gets the same.

    The gradient of a process's own rows is the sum of the gradients from every process. Where each process computes the
    same loss from the gathered rows, that is ``world_size`` times the gradient of the loss, which
    ``DistributedDataParallel``'s mean over processes turns into the gradient that one process would have had.

    Args:
        tensor: (n, ...); n may differ between processes, the rest may not.

    Returns:
        (sum of n, ...), or the tensor itself in a single process.

    Example:
        >>> all_gather_with_grad(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    return _AllGather.apply(tensor) if is_distributed() else tensor


class _AllGather(torch.autograd.Function):
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
