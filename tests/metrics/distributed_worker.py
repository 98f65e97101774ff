"""Two processes that each see a part of the cases: python distributed_worker.py FOLDER."""

from __future__ import annotations

import json
import multiprocessing
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


def gathered(rank, folder):
    """Write the metrics over both processes: each with a part of the cases; then all with the first, none with the second."""
    options = {"rank": rank, "world_size": 2, "timeout": timedelta(minutes=14)}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", **options)
    # 15 cases in batches of 4 on one rank and 8 on the other: unequal ranks and a short last batch.
    first, last = (0, 15) if rank == 0 else (15, NUMBER)
    shared = figures([slice(start, min(start + 4, last)) for start in range(first, last, 4)])
    one_sided = figures([slice(None)] if rank == 0 else [])
    Path(folder, f"{rank}.json").write_text(json.dumps([shared, one_sided]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that the imports are paid for once.
    ranks = [multiprocessing.get_context("fork").Process(target=gathered, args=(rank, sys.argv[1])) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in ranks))
