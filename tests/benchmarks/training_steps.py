"""Training steps of the recipes on random batches of any size: the network, loss and trainer, without data."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from peak_bytes import measure_peak

from medvl import bundles

FOLDER = Path(bundles.__file__).parent
RECIPES = ("convirt", "medclip", "umcl", "mlip", "medvl")
FINDINGS = 14


@dataclass
class Recipe:
    """A recipe's network and loss as it configures them, on a device.

    Args:
        name: of the recipe.
        preset: "small", "base" or "paper".
        image_size: side of the images in pixels; 224 for the presets base and paper, 128 for small.
        device: where it trains.
        settings: further settings of the recipe.
    """

    name: str
    preset: str
    device: str
    image_size: int | None = None
    settings: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.image_size = self.image_size or (128 if self.preset == "small" else 224)
        text = (FOLDER / f"{self.name}.yaml").read_text()
        layers = [*yaml.safe_load(text)["layers"], self.name]
        self.parser = ConfigParser(ConfigParser.load_config_files([str(FOLDER / f"{layer}.yaml") for layer in layers]))
        known = {"tokenizer": None, "preset": self.preset, "image_size": self.image_size, "gather": False}
        if self.name == "umcl":
            known["network_def#num_prompt_tokens"] = 8
        for key, value in {**known, **(self.settings or {})}.items():
            self.parser[key] = value
        torch.manual_seed(0)
        self.network = self.parser.get_parsed_content("network_def").to(self.device)
        self.loss = self.parser.get_parsed_content("loss")
        self.prepare_batch = self.parser.get_parsed_content("prepare_batch")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5, fused=True)

    def batch(self, images: int) -> dict[str, Any]:
        """A random batch: images, as many texts as the recipe has for each, ids and finding states."""
        draw = torch.Generator().manual_seed(images)
        texts_each = self.parser.get("texts_per_study", 1)
        owners = [i for i in range(images) for _ in range(texts_each)]
        owners += [images + i for i in range(images * self.parser.get("prompts_per_study", 0))]
        if self.name == "medclip":
            owners = list(range(images, 2 * images))
        length = self.parser["max_length"]
        lengths = torch.randint(length // 4, length // 2 + 1, (len(owners), 1), generator=draw)
        place = torch.arange(int(lengths.max()))
        batch = {
            "image": torch.rand(images, 1, self.image_size, self.image_size, generator=draw),
            "input_ids": torch.randint(1000, (len(owners), len(place)), generator=draw).where(place < lengths, 0),
            "attention_mask": (place < lengths).long(),
            "sentence_ids": torch.where((place > 0) & (place < lengths - 1), 0, -1),
            "image_ids": torch.arange(images),
            "text_ids": torch.tensor(owners),
            "label": torch.randint(-1, 2, (images, FINDINGS), generator=draw).float(),
            "text_label": torch.randint(-1, 2, (len(owners), FINDINGS), generator=draw).float(),
        }
        if self.name == "mlip":
            patches = (self.image_size // self.network.image_encoder.patch_size[0]) ** 2
            visible = round(patches * (1 - self.parser["mask_ratio"]))
            batch["visible_indices"] = torch.rand(images, patches, generator=draw).argsort(1)[:, :visible]
        return batch

    def trainer(self, batches: list[dict[str, Any]], iteration_update: Any = None, **options: Any) -> SupervisedTrainer:
        """MONAI's trainer with the recipe's parts, over the batches once."""
        return SupervisedTrainer(
            device=self.device,
            max_epochs=1,
            train_data_loader=batches,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=self.loss,
            prepare_batch=self.prepare_batch,
            iteration_update=iteration_update,
            decollate=False,
            **{"optim_set_to_none": False, **options},
        )


@dataclass(frozen=True)
class Measured:
    """What a step takes: median seconds, and peak bytes beside the weights, their gradients and the optimizer's state.

    Seconds are those of the clock on a GPU, and on a CPU those of all threads, which other programs hardly lengthen.
    """

    seconds: float
    peak: int
    outputs: int


def measure_step(
    recipe: Recipe, batch: dict[str, Any], iteration_update: Any = None, repeats: int = 3, **options: Any
) -> Measured:
    """Memory of one step, after one that makes what stays, and the median time of others.

    Args:
        recipe: what trains.
        batch: of :meth:`Recipe.batch`.
        iteration_update: a step in place of the trainer's own.
        repeats: timed steps.
        options: of the trainer, such as ``amp``.

    Returns:
        Its ``outputs`` are the bytes of the network's outputs for the batch, and of their gradients.
    """
    recipe.trainer([recipe.batch(2)], None, **options).run()
    trainer = recipe.trainer([batch], iteration_update, **options)
    with measure_peak(recipe.device) as counted:
        trainer.run()
    kept = trainer.state.output["pred"].values()
    outputs = sum(value.nbytes * (2 if value.is_floating_point() else 1) for value in kept)
    del trainer, kept
    on_cpu = torch.device(recipe.device).type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = []
    for _ in range(repeats):
        start = clock()
        recipe.trainer([batch], iteration_update, **options).run()
        if not on_cpu:
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return Measured(statistics.median(seconds), counted.peak, outputs)


def describe_device(device: str) -> str:
    """The device and the versions that a measurement depends on."""
    kind = torch.cuda.get_device_name() if device == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {kind}"
