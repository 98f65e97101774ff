"""Whether dual encoders of volumes learn: a ResNet and a ViT on synthetic chest CT of 64 x 64 x 64 voxels.

    python tests/benchmarks/train_3d.py

Trains ConVIRT's loss on volumes and their reports, a report being the mean of its sentences, then retrieves each test volume's
report among those of all test volumes, before and after training.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from medvl.data import SyntheticChestCT
from medvl.evaluation import embed_studies, retrieval
from medvl.functional import random_visible_patches
from medvl.losses import ImageTextContrastiveLoss
from medvl.networks import DualEncoder, ImageEncoder, MaskedDualEncoder, convirt
from medvl.transforms import train_tokenizer

BACKBONES = {
    # Convolutions of 4 voxels a step in place of the first convolution of 7: a fraction of its cost on a CPU.
    "resnet": {"backbone": "resnet10", "width": 0.25, "conv1_t_size": 5, "conv1_t_stride": 4, "no_max_pool": True},
    "vit": {"backbone": "vit_tiny", "patch_size": 16, "num_layers": 4, "hidden_size": 128, "num_heads": 4},
}
# A ViT knows nothing of neighbourhoods at first: it looks at many volumes often, which hidden patches make cheaper and fresh.
TRAINING = {"resnet": {"epochs": 6, "rate": 1e-3, "hidden": 0.0}, "vit": {"epochs": 32, "rate": 5e-4, "hidden": 0.5}}
MIDDLE, SPREAD = 0.35, 0.35  # of the volumes' gray


class Volumes:
    """Volumes of one split in half precision, which saves memory, and what is known of them, without masks."""

    def __init__(self, data: SyntheticChestCT, split: str) -> None:
        indices = [index for index in range(len(data)) if data.get_metadata(index)["split"] == split]
        self.voxels = torch.empty(len(indices), 1, *[data.size] * 3, dtype=torch.float16)
        self.studies = []
        for place, index in enumerate(indices):
            study = data[index]
            self.voxels[place] = (study["image"] - MIDDLE) / SPREAD
            self.studies.append({key: study[key] for key in ("report", "study_id", "patient_id")})

    def __len__(self) -> int:
        return len(self.studies)

    def batches(self, size: int = 32, shuffle: bool = False) -> Iterator[dict[str, Any]]:
        """Batches as a loader's; where shuffled, only whole ones."""
        order = torch.randperm(len(self)) if shuffle else torch.arange(len(self))
        for rows in order[: len(self) // size * size if shuffle else None].split(size):
            part = [self.studies[row] for row in rows.tolist()]
            yield {"image": self.voxels[rows].float(), **{key: [study[key] for study in part] for key in part[0]}}


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to three voxels along each axis."""
    return torch.roll(images, [random.randint(-3, 3) for _ in range(3)], (2, 3, 4))


def build(backbone: str, size: int, reports: list[str]) -> DualEncoder:
    model = convirt(
        "small",
        image_encoder=ImageEncoder(**BACKBONES[backbone], spatial_dims=3, image_size=size),
        embed_dim=128,
        tokenizer=train_tokenizer(reports, 1000),
    )
    if not TRAINING[backbone]["hidden"]:
        return model
    parts = model.image_encoder, model.text_encoder
    with torch.random.fork_rng():
        masked = MaskedDualEncoder(*parts, text_processor=model.text_processor, **model.options)
    masked.load_state_dict(model.state_dict())
    return masked


def train(model: DualEncoder, volumes: Volumes, epochs: int, rate: float, hidden: float, batch_size: int) -> None:
    loss_function = ImageTextContrastiveLoss(temperature=0.1, image_weight=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4, fused=True)
    steps = epochs * (len(volumes) // batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    patches = (model.image_size // 16) ** 3 if hidden else 0  # of 16 voxels a side
    model.train()
    for epoch in range(epochs):
        start, values = time.perf_counter(), []
        for batch in volumes.batches(batch_size, shuffle=True):
            masks = {"visible_indices": random_visible_patches(batch_size, patches, hidden)[0]} if hidden else {}
            image_embeds = model(shifted(batch["image"]), **masks)["image_embeds"]
            loss = loss_function(image_embeds, model.encode_reports(batch["report"]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            values.append(loss.item())
        print(f"epoch {epoch + 1:>2}: loss {np.mean(values):.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--length", type=int, default=6000, help="volumes of all splits; 6,000 need 3 GB of memory")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, help="in place of each backbone's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = SyntheticChestCT(options.length, options.size, options.seed)
    volumes, unseen = Volumes(data, "train"), Volumes(data, options.split)
    print(
        f"{len(volumes)} volumes of {options.size}^3 to train on, {len(unseen)} of {options.split} to retrieve",
        flush=True,
    )
    for backbone in options.backbones:
        torch.manual_seed(options.seed)
        random.seed(options.seed)
        settings = {**TRAINING[backbone], **({"epochs": options.epochs} if options.epochs else {})}
        model = build(backbone, options.size, [study["report"] for study in volumes.studies])
        untrained = retrieval(embed_studies(model, unseen.batches()))
        train(model, volumes, **settings, batch_size=options.batch_size)
        trained = retrieval(embed_studies(model, unseen.batches()))
        for title, result in (("untrained", untrained), ("trained", trained)):
            print(f"{backbone}, {title}\n{result.table()}", flush=True)


if __name__ == "__main__":
    main()
