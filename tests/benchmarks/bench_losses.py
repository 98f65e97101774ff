"""Time and memory of the losses, side by side: one command, one table.

    python tests/benchmarks/bench_losses.py            # minutes
    python tests/benchmarks/bench_losses.py --quick    # less than a minute, smaller batches

Forward and backward, embeddings of D = 512 and K = 14 labels. Every line runs in a process of its own. Memory on the CPU
is the increase of the process's peak resident set (VmHWM) after a warm-up on a batch of 4 and creation of the inputs;
it includes everything that the loss adds, and the gradients of its inputs. On a GPU it is the allocator's peak above
the memory of the inputs. Time is the median of the repeats; CPU time is that of all threads, which other programs on the
machine do not increase. Ratios are to the first line of the same block.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from medvl.functional import l2_normalize
from medvl.losses import ImageTextContrastiveLoss, PatchSentenceMatchingLoss, SemanticMatchingLoss

D, K, PATCHES, SENTENCES, LOCAL_D = 512, 14, 196, 8, 256
WARM_UP = 4


def loop_over_texts(alignment: str, unrolled: bool = True) -> Callable[..., torch.Tensor]:
    """The usual way: one text at a time against all images, with the same alignment."""

    def plan(similarity: torch.Tensor) -> torch.Tensor:
        epsilon, tolerance = 0.05, 1e-6
        scores = (similarity - 1) / epsilon
        images, patches, sentences = scores.shape
        f, g = scores.new_zeros(images, patches), scores.new_zeros(images, sentences)
        for iteration in range(2000):
            f = -(scores + g[:, None]).logsumexp(2) - torch.tensor(float(patches)).log()
            columns = (scores + f[:, :, None]).logsumexp(1)
            if iteration % 10 == 9 and ((columns + g).exp() * sentences - 1).abs().max() < tolerance:
                break
            g = -columns - torch.tensor(float(sentences)).log()
        return (scores + f[:, :, None] + g[:, None]).exp()

    def score(patches: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        similarity = patches @ sentences.T
        if alignment == "attention":
            return ((similarity / 0.1).softmax(1) * similarity).sum(1).mean(1)
        if alignment == "max":
            return (similarity.amax(2).mean(1) + similarity.amax(1).mean(1)) / 2
        with torch.set_grad_enabled(unrolled):
            transport = plan(similarity)
        return (transport * similarity).sum((1, 2))

    def loss(patch_embeds: torch.Tensor, sentence_embeds: torch.Tensor) -> torch.Tensor:
        patches, sentences = l2_normalize(patch_embeds), l2_normalize(sentence_embeds)
        logits = torch.stack([score(patches, text) for text in sentences], dim=1) / 0.1
        pairs = torch.arange(len(logits), device=logits.device)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2

    return loss


LOSSES: dict[str, Callable[..., Callable[..., torch.Tensor]]] = {
    "pairs": lambda tile: ImageTextContrastiveLoss(tile_size=tile),
    "semantic": lambda tile: SemanticMatchingLoss(tile_size=tile),
    "transport": lambda tile: PatchSentenceMatchingLoss(alignment="transport", tile_size=tile),
    "attention": lambda tile: PatchSentenceMatchingLoss(alignment="attention", tile_size=tile),
    "max": lambda tile: PatchSentenceMatchingLoss(alignment="max", tile_size=tile),
    "loop transport": lambda tile: loop_over_texts("transport"),
    "loop transport, plan constant": lambda tile: loop_over_texts("transport", unrolled=False),
    "loop attention": lambda tile: loop_over_texts("attention"),
    "loop max": lambda tile: loop_over_texts("max"),
}


def inputs(loss: str, labels: str, n: int, device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    if loss in ("pairs", "semantic"):
        shapes = [(n, D), (n, D)]
    else:
        shapes = [(n, PATCHES, LOCAL_D), (n, SENTENCES, LOCAL_D)]
    tensors = [torch.randn(*shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    if loss == "semantic":
        draws = [torch.rand(n, K, generator=generator) for _ in range(2)]
        # Findings are rare, and few combinations of them are common; probabilities are all different.
        tensors += [(draw < 0.1).float().to(device) if labels == "findings" else draw.to(device) for draw in draws]
    return tensors


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def measure(loss: str, tile: int | str | None, labels: str, n: int, device: str, repeats: int) -> dict[str, float]:
    function = LOSSES[loss](tile)

    def step(tensors: list[torch.Tensor]) -> tuple[float, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        function(*tensors).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        for tensor in tensors:
            tensor.grad = None
        return seconds, cpu_seconds

    step(inputs(loss, labels, WARM_UP, device))
    tensors = inputs(loss, labels, n, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = peak_bytes(device)
    first = step(tensors)
    memory = peak_bytes(device) - before
    wall, cpu = zip(*([step(tensors) for _ in range(repeats)] or [first]), strict=True)
    return {"seconds": statistics.median(wall), "cpu": statistics.median(cpu), "bytes": memory}


def measure_apart(**case: object) -> dict[str, float] | None:
    """In a process of its own, so that one case's memory is not another's; None where it ran out of memory."""
    command = [sys.executable, os.path.abspath(__file__), "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "out of memory" in done.stderr.lower() or "can't allocate" in done.stderr or done.returncode == -9:
            return None
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def blocks(quick: bool, device: str) -> list[tuple[str, list[dict[str, object]]]]:
    large, local, repeats = (1024, 16, 1) if quick else (8192, 64, 3)
    if device == "cuda":
        repeats = 10
    common = {"labels": "findings", "device": device, "repeats": repeats}
    tile = 256 if quick else "auto"

    def lines(loss: str, n: int, tiles: list[int | str | None], **more: object) -> list[dict[str, object]]:
        return [{**common, "loss": loss, "n": n, "tile": t, **more} for t in tiles]

    result = [
        (f"semantic matching, labels of 14 findings, N = {large}", lines("semantic", large, [None, tile])),
        (f"semantic matching, all labels different, N = {large}",
         lines("semantic", large, [None, tile], labels="probabilities")),
        (f"pairs by id, N = {large}", lines("pairs", large, [None, tile])),
        ("semantic matching, N = 256", lines("semantic", 256, [None, "auto"], repeats=5 if quick else 50)),
    ]  # fmt: skip
    sizes = (512, 1024, 2048) if quick else (4096, 8192, 16384, 32768)
    result.append(
        ("semantic matching, growth with N",
         [line for n in sizes for line in lines("semantic", n, [tile], repeats=0 if n > 8192 else 1)])
    )  # fmt: skip
    if device == "cuda" and not quick:
        result.append(("pairs by id, N = 32768", lines("pairs", 32768, [None, "auto"])))
        result.append(("semantic matching, N = 262144", lines("semantic", 262144, ["auto"], repeats=1)))
    for alignment, loops in (
        ("transport", ["loop transport", "loop transport, plan constant"]),
        ("attention", ["loop attention"]),
        ("max", ["loop max"]),
    ):
        rows = [line for name in [*loops, alignment] for line in lines(name, local, [None])]
        result.append((f"patch-sentence alignment by {alignment}, N = M = {local}, 196 patches, 8 sentences", rows))
    local_large = 48 if quick else 512
    result.append(
        (f"patch-sentence alignment by transport in tiles, N = M = {local_large}",
         lines("transport", local_large, [8 if quick else "auto"], repeats=0))
    )  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller batches, less than a minute")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, devices {devices}\n")
    print("| what | loss | tile | N | device | seconds | ratio | CPU seconds | ratio | MB added | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for device in devices:
        for title, lines in blocks(arguments.quick, device):
            first = None
            for line in lines:
                found = measure_apart(**line)
                cells = [title, line["loss"], line["tile"], line["n"], device]
                if found is None:
                    print("|", " | ".join(map(str, [*cells, "out of memory", "", "", "", "", ""])), "|", flush=True)
                    continue
                first = first or found
                cells += [
                    f"{found['seconds']:.3f}",
                    f"{found['seconds'] / first['seconds']:.2f}",
                    f"{found['cpu']:.3f}",
                    f"{found['cpu'] / first['cpu']:.2f}",
                    f"{found['bytes'] / 1e6:.0f}",
                    f"{found['bytes'] / first['bytes']:.3f}" if first["bytes"] else "",
                ]
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
