"""Memory and time of training steps by batch and chunk: one command, one table.

    python tests/benchmarks/bench_gradient_caching.py            # minutes
    python tests/benchmarks/bench_gradient_caching.py --quick    # less than a minute on a CPU, tiny networks

The plain step of each batch beside the cached ones (``cached_chunk``), with random images and tokens. Memory is the peak of
tensors beside the weights, their gradients and the optimizer's state: on a CPU counted exactly, on a GPU the allocator's. Time
on a CPU is that of all threads, which other programs hardly lengthen. The last column is (peak - outputs and their gradients)
/ peak of a plain step with a batch of one chunk: 1 is what gradient caching can reach; the losses themselves are of the whole
batch, so that small networks with large batches have more.
"""

from __future__ import annotations

import argparse
import sys

import torch
from training_steps import RECIPES, Recipe, describe_device, measure_step

from medvl.engines import GradientCaching

HEADER = (
    "| recipe | batch | chunk | peak MiB | outputs MiB | seconds | images/s | of the plain time | of a chunk's memory |"
)
TINY = {
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    },
    "embed_dim": 16,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two recipes with tiny networks, a batch of 16")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=None)
    parser.add_argument("--batches", type=int, nargs="+", help="images in a step")
    parser.add_argument("--chunks", type=int, nargs="+", help="images in a chunk")
    parser.add_argument("--preset", choices=("small", "base"), help="small on a CPU, base on a GPU")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--tile-size", type=int, help="texts in a tile of the losses; without, they are not tiled")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    large = device == "cuda" and not options.quick
    batches = options.batches or ([512, 2048, 4096] if large else [16] if options.quick else [64, 256])
    chunks = options.chunks or ([64, 256] if large else [4] if options.quick else [16, 64])
    repeats = options.repeats or (1 if options.quick else 3)
    preset = options.preset or ("base" if large else "small")
    image_size = options.image_size or (32 if options.quick else None)
    print(
        f"{describe_device(device)}, preset {preset}, {'bf16' if device == 'cuda' else 'float32'}, median of {repeats}"
    )
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|")
    for name in options.recipes or (RECIPES[2:4] if options.quick else RECIPES):
        recipe = Recipe(name, preset, device, image_size, TINY if options.quick else None)
        set_tile_size(recipe, options.tile_size)
        amp = {"amp": True, "amp_kwargs": {"dtype": torch.bfloat16}} if device == "cuda" else {}
        for row in rows(recipe, batches, chunks, repeats, amp):
            print(row, flush=True)


def set_tile_size(recipe: Recipe, tile_size: int | None) -> None:
    """Let the losses walk their matrices in tiles."""
    for loss in recipe.loss.losses:
        if "tile_size" in getattr(loss, "options", {}):
            loss.options["tile_size"] = tile_size


def rows(recipe: Recipe, batches: list[int], chunks: list[int], repeats: int, options: dict[str, object]) -> list[str]:
    """The lines of one recipe."""
    alone = {chunk: measure(recipe, chunk, None, 0, options) for chunk in chunks}
    lines = []
    for batch in batches:
        plain = measure(recipe, batch, None, repeats, options)
        for chunk in [None, *chunks]:
            if chunk is not None and chunk >= batch:
                continue
            found = plain if chunk is None else measure(recipe, batch, chunk, repeats, options)
            cells = [recipe.name, batch, chunk or "plain"]
            if found is None:
                cells += ["out of memory", "", "", "", "", ""]
            else:
                cells += [f"{found.peak / 2**20:.1f}", f"{found.outputs / 2**20:.1f}", f"{found.seconds:.2f}"]
                cells += [f"{batch / found.seconds:.1f}", f"{found.seconds / plain.seconds:.2f}" if plain else ""]
                of_chunk = alone.get(chunk)
                cells.append(f"{(found.peak - found.outputs) / of_chunk.peak:.3f}" if of_chunk else "")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def measure(recipe: Recipe, batch: int, chunk: int | None, repeats: int, options: dict[str, object]):
    """One step, None where it runs out of memory."""
    update = None if chunk is None else GradientCaching(chunk)
    try:
        return measure_step(recipe, recipe.batch(batch), update, max(repeats, 1), **options)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


if __name__ == "__main__":
    sys.exit(main())
