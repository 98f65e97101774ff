"""Whether the aligner's maps point at what a sentence speaks of, after short training without a single box or mask.

    python tests/benchmarks/pointing_game.py

Trains a dual encoder on synthetic radiographs and their reports (patch-sentence matching and a global contrastive loss),
then plays the pointing game on test patients: is the center of the highest patch of a finding's map inside its mask? Chance
is the mask's share of the picture. The same model untrained is shown beside it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.utils.data import DataLoader

from medvl.data import SyntheticChestXRay
from medvl.evaluation.protocols.grounding import pointing_game_on_grid
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, PatchSentenceMatchingLoss
from medvl.networks import DualEncoder, ImageEncoder, PatchSentenceAligner, mlip
from medvl.text import extract_sections, load_prompt_templates
from medvl.transforms import train_tokenizer


def body(report: str) -> str:
    """Findings and impression of a report, or all of it."""
    sections = extract_sections(report)
    parts = [report[slice(*sections[name])].strip() for name in ("findings", "impression") if name in sections]
    return "\n".join(parts) or report


def build(options: argparse.Namespace, texts: list[str]) -> DualEncoder:
    torch.manual_seed(options.seed)
    vision = ImageEncoder("resnet10", image_size=options.size, width=0.5, no_max_pool=True)
    return mlip(
        "small",
        image_encoder=vision,
        embed_dim=128,
        tokenizer=train_tokenizer(texts, 2000),
        patch_decoder=None,
        semantic_integrity=None,
    )


def train(model: DualEncoder, images: torch.Tensor, texts: list[str], options: argparse.Namespace) -> None:
    loss_function = CombinedLoss(
        {
            "local": PatchSentenceMatchingLoss(alignment=options.alignment, temperature=0.1),
            "global": ImageTextContrastiveLoss(temperature=0.1),
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps = options.epochs * (len(images) // options.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    loader = DataLoader(range(len(images)), options.batch_size, shuffle=True, drop_last=True)
    model.train()
    for epoch in range(options.epochs):
        start, values = time.perf_counter(), []
        for rows in loader:
            output = model(images[rows], **model.tokenize([texts[row] for row in rows.tolist()]))
            output.pop("logit_scale")
            loss = loss_function(output, {})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            values.append(loss.item())
        print(f"epoch {epoch + 1:>2}: loss {np.mean(values):.3f}, {time.perf_counter() - start:.0f} s", flush=True)


@torch.inference_mode()
def hits(model: DualEncoder, studies: list[dict], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hits and mask areas (studies, findings); NaN where a study does not have the finding."""
    model.eval()
    templates, aligner = load_prompt_templates("chexpert14"), PatchSentenceAligner("transport")
    phrases = [[f"{templates.present(name, 1)[0]}"] for name in names]
    sentences = torch.stack([model.encode_sentences(phrase)[0][0, 0] for phrase in phrases])
    masks = torch.stack([study["mask"] for study in studies]).bool()
    maps = []
    for start in range(0, len(studies), 64):
        patches, grid = model.encode_patches(torch.stack([study["image"] for study in studies[start : start + 64]]))
        # One sentence at a time: no sentence takes another's patches.
        single = [aligner(patches, sentence[None, None], grid)["maps"] for sentence in sentences]
        maps.append(torch.cat(single, dim=1))
    areas = masks.flatten(2).double().mean(2)
    found = pointing_game_on_grid(torch.cat(maps), masks)
    return found.numpy(), areas.masked_fill(areas == 0, torch.nan).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=2400)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--alignment", default="attention")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = SyntheticChestXRay(options.length, options.size, options.seed)
    studies = [data[index] for index in range(len(data))]
    training = [study for study in studies if study["split"] == "train"]
    testing = [study for study in studies if study["split"] == "test"]
    texts = [body(study["report"]) for study in training]
    model, names = build(options, texts), list(data.drawable)
    before, _ = hits(model, testing, names)
    train(model, torch.stack([study["image"] for study in training]), texts, options)
    after, areas = hits(model, testing, names)
    print(f"\n{'finding':<18} {'cases':>5} {'chance':>7} {'untrained':>9} {'trained':>8} {'ratio':>6}")
    for column, name in enumerate(names):
        chance, old, new = (np.nanmean(values[:, column]) for values in (areas, before, after))
        cases = int((~np.isnan(after[:, column])).sum())
        print(f"{name:<18} {cases:>5} {chance:>7.3f} {old:>9.3f} {new:>8.3f} {new / chance:>6.1f}")
    chance, old, new = (np.nanmean(np.nanmean(values, axis=0)) for values in (areas, before, after))
    print(f"{'mean':<18} {len(testing):>5} {chance:>7.3f} {old:>9.3f} {new:>8.3f} {new / chance:>6.1f}")


if __name__ == "__main__":
    main()
