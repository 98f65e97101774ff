"""What a recipe's training step costs beside loops without a library around them, and how long it waits for data.

    python tests/benchmarks/bench_recipes.py [--quick] [--recipes convirt mlip]

Three questions, each answered within one process, the contestants taking turns, by medians over single steps from the end of
one to the end of the next (validation and checkpoints come between epochs and do not count). The first two go by CPU time of
all threads, which other programs on the machine hardly lengthen; the third by the clock:

1. The recipe's own trainer, handlers included, against a bare PyTorch loop over the same network, loss, optimizer and batches.
2. The same encoders (a ViT and a BERT of Hugging Face) in our trainer and in Hugging Face's ``VisionTextDualEncoderModel``,
   trained by a bare loop with its own loss.
3. The share of a step that the trainer waits for its loader, which reads, augments and tokenises in one worker process.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch.nn.utils import clip_grad_norm_
from transformers import BertConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel, ViTConfig

from medvl.workflows import RecipeWorkflow, recipe_names

VIT = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768, "patch_size": 16}
BERT = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}


class Batches(list):
    """Batches in memory that stand in for a loader."""

    def set_epoch(self, epoch: int) -> None:
        """Nothing depends on the epoch here."""


class Recipe:
    """A recipe's parts as its configuration makes them, on the synthetic set."""

    def __init__(self, recipe: str, folder: Path, size: int, batch: int, studies: int, **overrides: Any) -> None:
        workflow = RecipeWorkflow(recipe)
        settings = {"image_size": size, "batch_size": batch, "synthetic_length": studies, "epochs": 10**6}
        fixed = {"data": "synthetic", "output": str(folder / recipe), "device": "cpu", "progress": False}
        workflow.parser.update({**settings, **fixed, "val_interval": 10**6, **overrides})
        self.parts: Callable[[str], Any] = workflow.parser.get_parsed_content
        self.trainer = self.parts("train#trainer")
        self.clock: Callable[[], float] = time.process_time
        self.ends: list[float] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.ends.append(self.clock()))

    def feed(self, batches: Batches) -> None:
        """Lets the trainer draw from batches in memory."""
        for handler in self.parts("train#handlers")[-1].handlers:
            if hasattr(handler, "loader"):
                handler.loader = batches
        self.trainer.state.epoch_length = len(batches)

    def epoch(self) -> list[float]:
        """Times of the steps of one more epoch."""
        self.ends.clear()
        self.trainer.state.max_epochs = self.trainer.state.epoch + 1
        self.trainer.run()
        return [after - before for before, after in pairwise(self.ends)]


def bare_recipe(recipe: Recipe, batches: Batches) -> Callable[[], list[float]]:
    """An epoch of a bare loop over a copy of the recipe's network."""
    network, loss, prepare = copy.deepcopy(recipe.parts("network")), recipe.parts("loss"), recipe.parts("prepare_batch")
    given = recipe.parts("optimizer")
    options = {name: given.defaults[name] for name in ("lr", "weight_decay", "fused")}
    optimizer = type(given)(network.parameters(), **options)
    network.train()

    def epoch() -> list[float]:
        ends = []
        for batch in batches:
            image, targets, _, tokens = prepare(batch)
            optimizer.zero_grad()
            value = loss(network(image, **tokens), targets)
            value.backward()
            clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            ends.append(time.process_time())
        return [after - before for before, after in pairwise(ends)]

    return epoch


def bare_hugging_face(batches: Batches, size: int, vocabulary: int, embed_dim: int) -> Callable[[], list[float]]:
    """An epoch of a bare loop over Hugging Face's dual encoder, with its own loss."""
    vision, text = ViTConfig(**VIT, image_size=size, num_channels=1), BertConfig(**BERT, vocab_size=vocabulary)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=embed_dim)
    network = VisionTextDualEncoderModel(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-6, fused=True)  # as the recipe's

    def epoch() -> list[float]:
        ends = []
        for batch in batches:
            optimizer.zero_grad()
            output = network(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                pixel_values=batch["image"],
                return_loss=True,
            )
            output.loss.backward()
            clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            ends.append(time.process_time())
        return [after - before for before, after in pairwise(ends)]

    return epoch


def in_turns(contestants: dict[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[float]]:
    """Steps of each, in turns and in changing order; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, epoch in list(contestants.items())[:: 1 if turn % 2 else -1]:
            steps = epoch()
            times[name] += steps if turn else []
    return times


def report(title: str, times: dict[str, list[float]]) -> None:
    """Medians, and the ratio of the first to the second."""
    first, second = (statistics.median(values) for values in times.values())
    spans = "; ".join(f"{name} {1000 * statistics.median(values):.1f} ms of CPU" for name, values in times.items())
    print(f"{title}: {spans}; ratio {first / second:.3f} ({len(next(iter(times.values())))} steps each)", flush=True)


def waiting(recipe: Recipe, epochs: int) -> float:
    """Share of the time between steps that the trainer waits for a batch; the first step of an epoch does not count."""
    waited, started = [], [0.0]
    trainer, recipe.clock = recipe.trainer, time.perf_counter
    trainer.add_event_handler(Events.GET_BATCH_STARTED, lambda _: started.__setitem__(0, time.perf_counter()))
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, lambda _: waited.append(time.perf_counter() - started[0]))
    shares = []
    for epoch in range(epochs + 1):
        waited.clear()
        steps = recipe.epoch()
        if epoch:  # the first fills the cache of decoded images
            shares.append(sum(waited[1 : len(steps) + 1]) / sum(steps))
    return statistics.median(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and few: does it run, not what it costs")
    parser.add_argument("--recipes", nargs="+", default=recipe_names(), choices=recipe_names())
    options = parser.parse_args()
    rounds, steps, size, batch = (1, 3, 32, 4) if options.quick else (5, 6, 128, 32)
    studies = 2 * steps * batch
    print(f"{size} pixels, batch {batch}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for recipe in options.recipes:
            made = Recipe(recipe, folder, size, batch, studies)
            batches = Batches([b for b, _ in zip(made.parts("train#dataloader"), range(steps), strict=False)])
            bare = bare_recipe(made, batches)
            made.feed(batches)
            report(f"1. {recipe}", in_turns({"recipe": made.epoch, "bare loop": bare}, rounds))
        encoders = {
            "network_def#image_encoder": {
                "_target_": "medvl.networks.ImageEncoder",
                "backbone": {"model_type": "vit", **VIT, "image_size": size, "num_channels": 1},
                "image_size": size,
            },
            "network_def#text_encoder": {"model_type": "bert", **BERT, "vocab_size": 2000},
            "vocab_size": 2000,
        }
        made = Recipe("convirt", folder / "encoders", size, batch, studies, **encoders)
        batches = Batches([b for b, _ in zip(made.parts("train#dataloader"), range(steps), strict=False)])
        made.feed(batches)
        rival = bare_hugging_face(batches, size, 2000, 128)
        report("2. same encoders", in_turns({"convirt": made.epoch, "Hugging Face": rival}, rounds))
        torch.set_num_threads(1)
        for recipe in options.recipes:
            made = Recipe(recipe, folder / "waiting", size, batch, studies, num_workers=1)
            print(f"3. {recipe}: waits for data {100 * waiting(made, rounds):.1f} % of a step, one worker", flush=True)


if __name__ == "__main__":
    main()
