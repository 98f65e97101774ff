"""One training in several processes, as ``torchrun`` starts them: each has its share of the studies, the first writes."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medvl.functional.distributed import is_distributed
from medvl.networks import DualEncoder


def start_processes() -> None:
    """Joins the processes that ``torchrun`` has started, each with a GPU of its own where there are any; else does nothing.

    Raises:
        ValueError: more processes on a machine than it has GPUs.
    """
    if count_processes() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"--nproc_per_node must be at most {gpus}, the GPUs of this machine, received {local + 1} or more."
            )
        torch.cuda.set_device(local)
    # The others wait while the first reads its studies and labels their reports, which a large set takes long for.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=2))


def count_processes() -> int:
    """How many processes train together; also before :func:`start_processes`."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this process is the one that writes and shows; also before :func:`start_processes`."""
    rank = dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))
    return rank == 0 or count_processes() == 1


def wait_for_others() -> None:
    """Returns once every process has come here."""
    if is_distributed():
        dist.barrier()


def stop_processes() -> None:
    """Leaves the group that :func:`start_processes` joined."""
    if is_distributed():
        dist.barrier()
        dist.destroy_process_group()


def in_step(network: DualEncoder) -> nn.Module:
    """A network whose gradients are the mean over all processes: the network itself where there is one.

    Every step uses every weight but those of learned prompt tokens, which stand only beside images without a report.
    """
    if not is_distributed():
        return network
    tokens = network.text_encoder.prompt_embedding is not None
    return DistributedDataParallel(network, find_unused_parameters=tokens)
