"""What MONAI's trainer with the recipe's handlers costs over a bare PyTorch loop of the same modules and batches.

    python tests/benchmarks/bench_trainer.py [--quick]

Both train the same network on the same batches, in turns within one process; the figures are over single steps, taken from
the end of one step to the end of the next, so that whatever a library does between steps counts.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.optimizers import WarmupCosineSchedule
from torch.nn.utils import clip_grad_norm_

from medvl.engines import PrepareBatchImageText
from medvl.handlers import FiniteLoss, GradientClipping, MetricsLog, ProgressBar
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import convirt


def make_batches(count: int, size: int, batch: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(batch, 1, size, size, generator=generator),
            "input_ids": torch.randint(5, 1000, (batch, 24), generator=generator),
            "attention_mask": torch.ones(batch, 24, dtype=torch.long),
            "image_ids": torch.arange(batch),
            "text_ids": torch.arange(batch),
            "study_id": [str(i) for i in range(batch)],
        }
        for _ in range(count)
    ]


def parts(network: torch.nn.Module, steps: int):
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    return (
        optimizer,
        WarmupCosineSchedule(optimizer, 0, steps),
        CombinedLoss({"contrastive": ImageTextContrastiveLoss()}),
    )


def bare(network: torch.nn.Module, batches: list[dict]) -> list[float]:
    """Times at which the steps of a loop with no library around it end."""
    optimizer, scheduler, loss_function = parts(network, len(batches))
    network.train()
    ends = []
    for batch in batches:
        optimizer.zero_grad()
        output = network(batch["image"], input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        loss = loss_function(output, batch)
        loss.backward()
        clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        ends.append(time.perf_counter())
    return ends


def trainer(network: torch.nn.Module, batches: list[dict], folder: Path) -> list[float]:
    """Times at which the steps of the recipe's trainer end."""
    optimizer, scheduler, loss_function = parts(network, len(batches))
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=loss_function,
        prepare_batch=PrepareBatchImageText(),
        train_handlers=[
            FiniteLoss(),
            GradientClipping(1.0),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            MetricsLog(folder / "metrics.jsonl"),
            ProgressBar(),
        ],
        decollate=False,
    )
    ends: list[float] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: ends.append(time.perf_counter()))
    engine.run()
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds: does it run, not what it costs")
    options = parser.parse_args()
    rounds, steps, size, batch = (2, 3, 64, 8) if options.quick else (15, 10, 128, 32)
    torch.manual_seed(0)
    network = convirt("small", image_size=size, embed_dim=128)
    batches = make_batches(steps, size, batch)
    bare(copy.deepcopy(network), batches)  # warm-up
    times: dict[str, list[float]] = {"bare loop": [], "SupervisedTrainer": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            runs = [
                ("bare loop", lambda: bare(copy.deepcopy(network), batches)),
                ("SupervisedTrainer", lambda: trainer(copy.deepcopy(network), batches, Path(folder))),
            ]
            for name, run in runs if turn % 2 else reversed(runs):
                times[name] += [after - before for before, after in pairwise(run())]
    print(
        f"ConVIRT small, {size} pixels, batch {batch}, {torch.get_num_threads()} threads, {len(times['bare loop'])} steps each"
    )
    for name, values in times.items():
        low, middle, high = (1000 * value for value in statistics.quantiles(values, n=4))
        print(f"{name:<18} median {middle:8.2f} ms a step, quartiles {low:.2f} to {high:.2f}")
    middle, low = (
        statistics.quantiles(times["SupervisedTrainer"], n=4)[i] / statistics.quantiles(times["bare loop"], n=4)[i]
        for i in (1, 0)
    )
    print(f"ratio of medians   {middle:.3f}, of lower quartiles {low:.3f}")


if __name__ == "__main__":
    main()
