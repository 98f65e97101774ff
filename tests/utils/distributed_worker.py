"""Run by ``torchrun`` from test_distributed.py."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from medvl.utils import distributed


def main() -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    before = (distributed.is_distributed(), distributed.get_rank(), distributed.get_world_size())
    assert before == (False, rank, world)
    distributed.init_distributed(timedelta(minutes=14))
    distributed.init_distributed()  # a second call does nothing
    assert dist.get_backend() == "gloo"
    assert distributed.is_distributed()
    assert (distributed.get_rank(), distributed.get_world_size()) == (rank, world)
    assert distributed.is_rank_zero() == (rank == 0)
    assert distributed.all_reduce_sum(rank + 1) == world * (world + 1) // 2
    assert distributed.all_reduce_max(-rank) == 0
    assert distributed.all_gather_object({"rank": rank}) == [{"rank": r} for r in range(world)]
    distributed.barrier()

    # Ragged: rank r has r rows, so that the first has none.
    own = torch.full((rank, 2), float(rank), requires_grad=True)
    rows = distributed.all_gather_with_grad(own)
    assert rows.tolist() == [[float(r)] * 2 for r in range(world) for _ in range(r)]
    weights = torch.arange(rows.numel(), dtype=torch.float32).reshape(rows.shape)
    (rows * weights * (rank + 1)).sum().backward()
    start = sum(range(rank))
    expected = weights[start : start + rank] * sum(r + 1 for r in range(world))
    assert torch.equal(own.grad, expected)

    distributed.destroy_distributed()
    assert not distributed.is_distributed()
    sys.stdout.write(f"rank {rank} done\n")


if __name__ == "__main__":
    main()
