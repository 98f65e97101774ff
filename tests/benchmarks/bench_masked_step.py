"""What a training step of a ViT costs when part of the patches is hidden: one command, one table.

    python tests/benchmarks/bench_masked_step.py            # minutes on a CPU
    python tests/benchmarks/bench_masked_step.py --quick    # less than a minute, fewer repeats and a smaller batch

ViT-B/16 at 224 pixels, float32 and one channel: drawing the visible patches, forward, backward and a fused step of AdamW,
whose cost is the same whatever is hidden, and small from a batch of 8 on. The shares of visible patches take turns in one
run, so that what else the machine does falls on all of them; ratios are of medians. CPU time is that of all threads, which
other programs on the machine hardly lengthen; on a GPU it says nothing.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from medvl.functional import random_visible_patches
from medvl.networks import ImageEncoder

SHARES = (1.0, 0.5, 0.25)
TARGETS = {0.5: 0.50, 0.25: 0.30}


def train_step(
    encoder: ImageEncoder, optimizer: torch.optim.Optimizer, image: torch.Tensor, patches: int, share: float
) -> None:
    visible = None
    if share < 1:
        visible, _ = random_visible_patches(len(image), patches, ratio=1 - share, device=image.device)
    output = encoder(image, visible_indices=visible)
    (output["embed"].square().mean() + output["patches"].square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


def measure(backbone: str, batch: int, repeats: int, device: str) -> dict[float, list[tuple[float, float]]]:
    """Wall and CPU seconds of every step, by share of visible patches."""
    torch.manual_seed(0)
    encoder = ImageEncoder(backbone, image_size=224, patch_size=16).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, fused=True)
    image = torch.rand(batch, 1, 224, 224, device=device)
    seconds: dict[float, list[tuple[float, float]]] = {share: [] for share in SHARES}
    train_step(encoder, optimizer, image, 196, SHARES[-1])  # warms up
    for _ in range(repeats):
        for share in SHARES:
            wall, cpu = time.perf_counter(), time.process_time()
            train_step(encoder, optimizer, image, 196, share)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[share].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batch of 4 and 2 repeats")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--repeats", type=int, help="steps of each share")
    parser.add_argument("--backbone", default="vit_base")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = arguments.batch or (4 if arguments.quick else 64 if device == "cuda" else 16)
    repeats = arguments.repeats or (2 if arguments.quick else 5)
    seconds = measure(arguments.backbone, batch, repeats, device)
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(
        f"{arguments.backbone}, patches of 16, 224 pixels, batch {batch}, {repeats} repeats, torch {torch.__version__}, {where}"
    )
    print("| visible | median s | lowest to highest | of the full step | CPU s | of the full step | at most |")
    print("|---|---|---|---|---|---|---|")
    full = [statistics.median(column) for column in zip(*seconds[1.0], strict=True)]
    for share, steps in seconds.items():
        walls, cpus = zip(*steps, strict=True)
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        print(
            f"| {share:.0%} | {wall:.3f} | {min(walls):.3f} to {max(walls):.3f} | {wall / full[0]:.3f} | "
            f"{cpu:.3f} | {cpu / full[1]:.3f} | {TARGETS.get(share, 1.0):.2f} |"
        )


if __name__ == "__main__":
    main()
