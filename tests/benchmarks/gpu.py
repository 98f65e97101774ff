"""A check of a GPU in one command: what medvl does there, as one JSON file and a table.

    python tests/benchmarks/gpu.py --minutes 8 --output gpu.json

Needs torch, transformers, MONAI, ignite, nibabel, pydicom and pandas, and no network. Without a GPU it runs in small form on
the CPU. The parts run in this order until the time is over; what is left out, or fails, is named in the results. It ends with 1
if a part failed:

losses            plain and tiled losses against open_clip's formula: seconds and peak MiB
alignment         patches against sentences, and the usual loop over texts
training          a step of each recipe in bfloat16, with and without ``torch.compile``: images a second, the share of the
                  device's measured matrix throughput, and what bounds it
gradient_caching  memory and time by chunk
zero_shot         10,000 images, 14 classes of 20 prompts
tests             the tests marked ``gpu``, where pytest is installed
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from medvl.utils import extras

# Of the packages that medvl asks for, those that are missing here are not needed here.
extras.EXTRAS["monai"] = tuple(module for module in extras.EXTRAS["monai"] if find_spec(module) is not None)

from bench_losses import loop_over_texts  # noqa: E402
from peak_bytes import measure_peak  # noqa: E402
from training_steps import RECIPES, Recipe, describe_device, measure_step  # noqa: E402

from medvl.engines import GradientCaching  # noqa: E402
from medvl.inferers import ZeroShotInferer  # noqa: E402
from medvl.losses import ImageTextContrastiveLoss, PatchSentenceMatchingLoss, SemanticMatchingLoss  # noqa: E402

Row = dict[str, Any]
WIDTH, FINDINGS = 512, 14
NO_TESTS = 5  # pytest's exit code where it selects none
TINY = {
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    },
    "embed_dim": 16,
}  # fmt: skip


class Check:
    """The parts of the check on one device.

    Args:
        device: "cuda" or "cpu".
        small: whether sizes are small.
    """

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small = device, small
        self.amp = {"amp": True, "amp_kwargs": {"dtype": torch.bfloat16}} if device == "cuda" else {}
        self.throughput = 0.0

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], repeats: int = 3) -> float:
        """Median time of a call, after one that warms up."""
        times = []
        for number in range(repeats + 1):
            self.synchronize()
            start = time.perf_counter()
            call()
            self.synchronize()
            if number:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def measure(self, call: Callable[[], object], repeats: int = 3) -> Row:
        """Seconds and peak MiB of a call."""
        seconds = self.seconds(call, repeats)
        with measure_peak(self.device) as counted:
            call()
        return {"seconds": seconds, "peak_mib": counted.peak / 2**20}

    def matrix_throughput(self) -> Iterator[Row]:
        """Products of large square matrices: the throughput that others are compared with."""
        size, dtype = (512, torch.float32) if self.small else (8192, torch.bfloat16)
        a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        self.throughput = 2 * size**3 / self.seconds(lambda: a @ b, 10)
        yield {"what": f"{size} x {size} {str(dtype).removeprefix('torch.')}", "teraflops": self.throughput / 1e12}

    def losses(self) -> Iterator[Row]:
        """Forward and backward of the losses of a large batch."""
        for number in (256, 512) if self.small else (8192, 32768, 262144):
            tile: int | str = 64 if self.small else "auto"
            labels = [(torch.rand(number, FINDINGS, device=self.device) < 0.1).float() for _ in range(2)]
            kinds: dict[str, Callable[..., Tensor]] = {
                "open_clip's formula": open_clip_loss,
                "pairs, plain": ImageTextContrastiveLoss(),
                "pairs, tiled": ImageTextContrastiveLoss(tile_size=tile),
                "labels, plain": lambda v, t, a=labels: SemanticMatchingLoss()(v, t, *a),
                "labels, tiled": lambda v, t, a=labels, s=tile: SemanticMatchingLoss(tile_size=s)(v, t, *a),
            }
            for name, loss in kinds.items():
                if number > 100_000 and "tiled" not in name:
                    continue  # a matrix of 256 GiB
                tensors = [random_unit(number, WIDTH, device=self.device).requires_grad_() for _ in range(2)]
                found = self.guard(lambda t=tensors, f=loss: backward(f, t), 1 if number > 100_000 else 3)
                yield {"what": name, "n": number, **found}

    def alignment(self) -> Iterator[Row]:
        """Patches against sentences, all pairs of N images and texts."""
        number, patches, sentences = (6, 16, 4) if self.small else (64, 196, 8)
        shapes = [(number, patches, 256), (number, sentences, 256)]
        for alignment in ("transport", "attention", "max"):
            for name, loss in (
                ("loop over texts", loop_over_texts(alignment, unrolled=False)),
                ("PatchSentenceMatchingLoss", PatchSentenceMatchingLoss(alignment=alignment)),
            ):
                tensors = [random_unit(*shape, device=self.device).requires_grad_() for shape in shapes]
                found = self.guard(lambda t=tensors, f=loss: backward(f, t), 1 if self.small else 3)
                yield {"what": f"{alignment}, {name}", "n": number, **found}

    def recipe(self, name: str) -> Recipe:
        """A recipe's base preset, in small form its small one with tiny towers."""
        return Recipe(name, "small" if self.small else "base", self.device, *((32, TINY) if self.small else ()))

    def training(self) -> Iterator[Row]:
        """A step of every recipe."""
        images = 4 if self.small else 64
        for name in RECIPES:
            for compiled in (False,) if self.small else (False, True):
                recipe = self.recipe(name)
                batch = recipe.batch(images)
                with FlopCounterMode(display=False) as flops:
                    recipe.trainer([batch], **self.amp).run()
                if compiled:
                    recipe.network.compile()
                try:
                    found = measure_step(recipe, batch, repeats=1 if self.small else 10, **self.amp)
                except torch.OutOfMemoryError:
                    yield {"what": name, "compiled": compiled, "n": images, "error": "out of memory"}
                    continue
                share = flops.get_total_flops() / found.seconds / self.throughput
                yield {
                    "what": name, "compiled": compiled, "n": images, "seconds": found.seconds,
                    "images_per_second": images / found.seconds, "peak_mib": found.peak / 2**20,
                    "share_of_matrix_throughput": share, "bound_by": self.bound(recipe, batch, share),
                }  # fmt: skip

    def bound(self, recipe: Recipe, batch: dict[str, Any], share: float) -> str:
        """What a step waits for: the host where the device is idle for a fifth of it, products, or memory."""
        if self.device != "cuda":
            return "processor"
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            start = time.perf_counter()
            recipe.trainer([batch], **self.amp).run()
            self.synchronize()
            wall = time.perf_counter() - start
        busy = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
        if busy < 0.8 * wall:
            return f"host (the device is busy {busy / wall:.0%} of the step)"
        return "matrix products" if share > 0.4 else "memory of the device"

    def gradient_caching(self) -> Iterator[Row]:
        """A large batch by chunk, beside the plain step of a chunk and of the batch."""
        batch, chunks = (16, (4,)) if self.small else (2048, (64, 256))
        for name in ("medclip",) if self.small else ("medclip", "mlip"):
            recipe = self.recipe(name)
            for loss in recipe.loss.losses:
                if "tile_size" in getattr(loss, "options", {}):
                    loss.options["tile_size"] = "auto"
            for images, chunk in [*((chunk, None) for chunk in chunks), (batch, None), *((batch, c) for c in chunks)]:
                update = None if chunk is None else GradientCaching(chunk)
                row = {"what": name, "n": images, "chunk": chunk or "plain"}
                try:
                    found = measure_step(recipe, recipe.batch(images), update, 1, **self.amp)
                    outputs = found.outputs / 2**20
                    yield {**row, "seconds": found.seconds, "peak_mib": found.peak / 2**20, "outputs_mib": outputs}
                except torch.OutOfMemoryError:
                    yield {**row, "error": "out of memory"}

    def zero_shot(self) -> Iterator[Row]:
        """Scores of many images from their embeddings, prompts encoded once."""
        images, prompts = (100, 4) if self.small else (10_000, 20)
        names = {f"class {k}": [f"prompt {p} of {k}" for p in range(prompts)] for k in range(FINDINGS)}

        class Network(torch.nn.Module):
            def encode_text(self, texts: list[str]) -> Tensor:
                return random_unit(len(texts), WIDTH, device=embeds.device)

        embeds = random_unit(images, WIDTH, device=self.device)
        bare = random_unit(FINDINGS * prompts, WIDTH, device=self.device)
        inferer, network = ZeroShotInferer(names), Network()
        with torch.inference_mode():
            yield {"what": "bare product", "n": images, **self.measure(lambda: embeds @ bare.T)}
            yield {"what": "ZeroShotInferer", "n": images, **self.measure(lambda: inferer.classify(embeds, network))}

    def tests(self) -> Iterator[Row]:
        """The tests that need a GPU."""
        if find_spec("pytest") is None:
            yield {"what": "pytest -m gpu", "error": "pytest is not installed"}
            return
        # In one process, and without the plugins that the tests' own options name.
        options = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
        line = [sys.executable, "-m", "pytest", "-q", *options, "-m", "gpu", "tests/engines"]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        yield {"what": "pytest -m gpu", "exit_code": done.returncode, "result": last}

    def guard(self, call: Callable[[], object], repeats: int) -> Row:
        """A measurement, or that the memory does not suffice."""
        try:
            return self.measure(call, repeats)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return {"error": "out of memory"}


PARTS = ("matrix_throughput", "losses", "alignment", "training", "gradient_caching", "zero_shot", "tests")


def open_clip_loss(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Cross entropy of all pairs in both directions, as open_clip's ClipLoss in one process computes it."""
    logits = 10.0 * image_embeds @ text_embeds.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def random_unit(*shape: int, device: torch.device | str) -> Tensor:
    """Random unit vectors."""
    return F.normalize(torch.randn(*shape, device=device), dim=-1)


def backward(loss: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    """Forward and backward; the gradients are dropped."""
    loss(*tensors).backward()
    for tensor in tensors:
        tensor.grad = None


def run_parts(check: Check, names: list[str], deadline: float) -> dict[str, list[Row]]:
    """The rows of every part until the deadline; a part that fails says why."""
    results: dict[str, list[Row]] = {}
    for name in names:
        rows = results[name] = []
        if time.monotonic() > deadline:
            rows.append({"error": "no time was left"})
            continue
        try:
            for row in getattr(check, name)():
                rows.append(row)
                print(f"{name:<18}{format_row(row)}", flush=True)
                if time.monotonic() > deadline:
                    rows.append({"error": "no time was left for the rest"})
                    break
        except Exception as error:  # the other parts still count
            traceback.print_exc()
            rows.append({"failed": f"{type(error).__name__}: {error}"})
    return results


def format_row(row: Row) -> str:
    """A row as one line."""
    values = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()}
    return "  ".join(value if key == "what" else f"{key} {value}" for key, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no new measurement begins after so many")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file with the results")
    parser.add_argument("--small", action="store_true", help="small sizes on a GPU too")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check = Check(device, small=options.small or device == "cpu")
    torch.manual_seed(0)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(device),
        "small": check.small,
    }
    print(*about.values(), sep=", ")
    # Shares of the throughput need it.
    names = [name for name in PARTS if name in options.parts or name == "matrix_throughput"]
    results = run_parts(check, names, deadline)
    options.output.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    failed = [name for name, rows in results.items() if any(map(has_failed, rows))]
    print(f"{options.output}{': failed: ' + ', '.join(failed) if failed else ''}")
    sys.exit(bool(failed))


def has_failed(row: Row) -> bool:
    """Whether a part broke or a test failed; too little memory or time is a result."""
    return "failed" in row or row.get("exit_code", 0) not in (0, NO_TESTS)


if __name__ == "__main__":
    main()
