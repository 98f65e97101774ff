"""The second of two processes that each see a part of the cases: python distributed_worker.py STORE OUT."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch

from medvl.metrics import GroundingMetric, RetrievalMetric, ZeroShotMetric

NUMBER = 23


def figures(parts):
    """The metrics after the cases of some slices, batch by batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(NUMBER, 6, generator=generator)
    texts = images + torch.randn(NUMBER, 6, generator=generator)
    labels = (torch.rand(NUMBER, 3, generator=generator) < 0.4).float()
    scores = labels + torch.randn(NUMBER, 3, generator=generator)
    labels[torch.rand(NUMBER, 3, generator=generator) < 0.2] = torch.nan
    maps, masks = torch.rand(NUMBER, 1, 3, 3, generator=generator), torch.eye(3).expand(NUMBER, 1, 3, 3)
    ids = torch.arange(NUMBER) % 11
    pairs, by_ids, zero_shot, grounding = (
        RetrievalMetric("mean_rank"),
        RetrievalMetric("mean_rank"),
        ZeroShotMetric(),
        GroundingMetric(),
    )
    for rows in parts:
        pairs(images[rows], texts[rows])
        by_ids(images[rows], texts[rows], image_ids=ids[rows], text_ids=ids[rows])
        zero_shot(scores[rows], labels[rows])
        grounding(maps[rows], masks[rows])
    return [metric.aggregate().item() for metric in (pairs, by_ids, zero_shot, grounding)]


def gathered(rank, store):
    """The metrics over both processes, of which this one has a part of the cases."""
    options = {"rank": rank, "world_size": 2, "timeout": timedelta(minutes=4)}
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", **options)
    try:
        # 15 cases in batches of 4 on one rank and 8 on the other: unequal ranks and a short last batch.
        first, last = (0, 15) if rank == 0 else (15, NUMBER)
        return figures([slice(start, min(start + 4, last)) for start in range(first, last, 4)])
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(gathered(1, sys.argv[1])))
