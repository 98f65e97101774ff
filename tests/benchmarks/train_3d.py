"""Whether dual encoders of volumes learn: a ResNet and a ViT on synthetic chest CT of 64 x 64 x 64 voxels.

    python tests/benchmarks/train_3d.py --backbone resnet
    python tests/benchmarks/train_3d.py --backbone vit

Trains ConVIRT's loss on one random sentence of each report, then retrieves each test volume's report among those of all test
volumes, before and after training.
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
from medvl.networks.nets.strings import telling_sentences
from medvl.transforms import train_tokenizer

BACKBONES = {
    "resnet": {"backbone": "resnet10", "width": 0.25},
    "vit": {"backbone": "vit_tiny", "patch_size": 8, "num_layers": 4, "hidden_size": 128, "num_heads": 4},
}


def batches(studies: list[dict], size: int = 32) -> Iterator[dict]:
    """Batches as a loader's."""
    for start in range(0, len(studies), size):
        part = studies[start : start + size]
        yield {
            "image": torch.stack([study["image"] for study in part]),
            **{key: [study[key] for study in part] for key in ("report", "study_id", "patient_id")},
        }


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to three voxels along each axis."""
    return torch.roll(images, [random.randint(-3, 3) for _ in range(3)], (2, 3, 4))


def train(model: DualEncoder, studies: list[dict], options: argparse.Namespace) -> None:
    loss_function = ImageTextContrastiveLoss(temperature=0.1, image_weight=0.75)
    images = torch.stack([study["image"] for study in studies])
    sentences = [telling_sentences(study["report"]) for study in studies]
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=1e-4)
    steps = options.epochs * (len(studies) // options.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps, pct_start=0.1)
    model.train()
    for epoch in range(options.epochs):
        start, values = time.perf_counter(), []
        order = torch.randperm(len(studies))[: steps // options.epochs * options.batch_size]
        for rows in order.split(options.batch_size):
            tokens = model.tokenize([random.choice(sentences[row]) for row in rows.tolist()])
            output = model(shifted(images[rows]), tokens["input_ids"], tokens["attention_mask"])
            loss = loss_function(output["image_embeds"], output["text_embeds"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            values.append(loss.item())
        print(f"epoch {epoch + 1:>2}: loss {np.mean(values):.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet")
    parser.add_argument("--length", type=int, default=600)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    data = SyntheticChestCT(options.length, options.size, options.seed)
    studies = [data[index] for index in range(len(data))]
    training = [study for study in studies if study["split"] == "train"]
    testing = [study for study in studies if study["split"] == "test"]
    model = convirt(
        "small",
        spatial_dims=3,
        image_size=options.size,
        image_encoder=ImageEncoder(**BACKBONES[options.backbone], spatial_dims=3, image_size=options.size),
        embed_dim=128,
        tokenizer=train_tokenizer([study["report"] for study in training], 1000),
    )
    before = retrieval(embed_studies(model, batches(testing)))
    train(model, training, options)
    after = retrieval(embed_studies(model, batches(testing)))
    print(f"\n{options.backbone}: {len(training)} volumes of {options.size}^3 to train on, {len(testing)} to test on")
    for title, result in (("untrained", before), ("trained", after)):
        print(f"{title}\n{result.table()}")


if __name__ == "__main__":
    main()
