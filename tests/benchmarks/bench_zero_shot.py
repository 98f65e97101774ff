"""What zero-shot classification costs beside the matrix product that it cannot do without.

    python tests/benchmarks/bench_zero_shot.py

Prints the medians of 10,000 image embeddings of width 512 against 14 classes of 20 prompts, the ratios to the bare product
of images and prompts, and how often a text was encoded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from medvl.inferers import ZeroShotInferer


class Network(nn.Module):
    """Random unit vectors for texts; counts them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        self.texts_encoded = 0

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        self.texts_encoded += len(texts)
        return self.projection(torch.randn(len(texts), self.projection.in_features))


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; the calls take turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = F.normalize(torch.randn(options.images, options.width), dim=1)
    prompts = F.normalize(torch.randn(options.classes * options.prompts, options.width), dim=1)
    names = {f"class {k}": [f"prompt {p} of class {k}" for p in range(options.prompts)] for k in range(options.classes)}
    network = Network(options.width).eval()
    mean, largest = ZeroShotInferer(names), ZeroShotInferer(names, ensemble="max")
    with torch.inference_mode():
        result = medians(
            {
                "bare product of images and prompts": lambda: images @ prompts.T,
                "ZeroShotInferer, mean over prompts": lambda: mean.classify(images, network),
                "ZeroShotInferer, max over prompts": lambda: largest.classify(images, network),
            },
            options.rounds,
        )
    bare = next(iter(result.values()))
    for name, value in result.items():
        print(f"{name:<36} {value:7.1f} ms   {value / bare:5.2f} x")
    calls = options.rounds + 1
    print(f"texts encoded: {network.texts_encoded} for 2 inferers of {len(prompts)} prompts, called {calls} times each")


if __name__ == "__main__":
    main()
