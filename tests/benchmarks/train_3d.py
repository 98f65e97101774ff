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

import numpy as np
import torch

from medvl.data import SyntheticChestCT
from medvl.evaluation import embed_studies, retrieval
from medvl.losses import ImageTextContrastiveLoss
from medvl.networks import DualEncoder, ImageEncoder, convirt
from medvl.transforms import train_tokenizer

BACKBONES = {
    # Convolutions of 4 voxels a step in place of the first convolution of 7: a fraction of its cost on a CPU.
    "resnet": {"backbone": "resnet10", "width": 0.25, "conv1_t_size": 5, "conv1_t_stride": 4, "no_max_pool": True},
    "vit": {"backbone": "vit_tiny", "patch_size": 16, "num_layers": 4, "hidden_size": 128, "num_heads": 4},
}
EPOCHS = {"resnet": 16, "vit": 48}  # a ViT knows nothing of neighbourhoods at first, and costs a third
MIDDLE, SPREAD = 0.35, 0.35  # of the volumes' gray


def read(data: SyntheticChestCT, split: str) -> tuple[torch.Tensor, list[dict]]:
    """Volumes and what is known of them, without masks."""
    studies = [data[index] for index in range(len(data)) if data.describe(index)["split"] == split]
    return torch.stack([(study["image"] - MIDDLE) / SPREAD for study in studies]), [
        {key: study[key] for key in ("report", "study_id", "patient_id")} for study in studies
    ]


def batches(images: torch.Tensor, studies: list[dict], size: int = 32) -> Iterator[dict]:
    """Batches as a loader's."""
    for start in range(0, len(studies), size):
        part = studies[start : start + size]
        yield {"image": images[start : start + size], **{key: [study[key] for study in part] for key in part[0]}}


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to three voxels along each axis."""
    return torch.roll(images, [random.randint(-3, 3) for _ in range(3)], (2, 3, 4))


def build(backbone: str, size: int, reports: list[str]) -> DualEncoder:
    return convirt(
        "small",
        image_encoder=ImageEncoder(**BACKBONES[backbone], spatial_dims=3, image_size=size),
        embed_dim=128,
        tokenizer=train_tokenizer(reports, 1000),
    )


def train(
    model: DualEncoder, images: torch.Tensor, studies: list[dict], epochs: int, options: argparse.Namespace
) -> None:
    loss_function = ImageTextContrastiveLoss(temperature=0.1, image_weight=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=1e-4)
    steps = epochs * (len(studies) // options.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps, pct_start=0.1)
    model.train()
    for epoch in range(epochs):
        start, values = time.perf_counter(), []
        order = torch.randperm(len(studies))[: steps // epochs * options.batch_size]
        for rows in order.split(options.batch_size):
            text_embeds = model.encode_reports([studies[row]["report"] for row in rows.tolist()])
            loss = loss_function(model.encode_image(shifted(images[rows])), text_embeds)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            values.append(loss.item())
        print(f"epoch {epoch + 1:>2}: loss {np.mean(values):.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, help="16 for the ResNet and 48 for the ViT by default")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = SyntheticChestCT(options.length, options.size, options.seed)
    (images, studies), (test_images, test_studies) = read(data, "train"), read(data, "test")
    print(f"{len(studies)} volumes of {options.size}^3 to train on, {len(test_studies)} to test on", flush=True)
    for backbone in options.backbones:
        torch.manual_seed(options.seed)
        random.seed(options.seed)
        model = build(backbone, options.size, [study["report"] for study in studies])
        before = retrieval(embed_studies(model, batches(test_images, test_studies)))
        train(model, images, studies, options.epochs or EPOCHS[backbone], options)
        after = retrieval(embed_studies(model, batches(test_images, test_studies)))
        for title, result in (("untrained", before), ("trained", after)):
            print(f"{backbone}, {title}\n{result.table()}", flush=True)


if __name__ == "__main__":
    main()
