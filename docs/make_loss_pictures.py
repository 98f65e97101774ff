"""Draw the target matrices that the pages of docs/losses show: ``python docs/make_loss_pictures.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from medvl.functional import l2_normalize, patch_sentence_plan, patchify, random_visible_patches, semantic_targets
from medvl.functional.batch import ids_and_labels
from medvl.functional.targets import ALL, agreement_blocks, sum_to_one

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"

# Six images of five studies (the second has two views), seven texts (the fourth has two); edema, effusion, nodule.
IMAGE_STUDIES = ["A", "B", "B", "C", "D", "E"]
TEXT_STUDIES = ["A", "B", "C", "D", "D", "F", "G"]
FINDINGS = {
    "A": [1, 0, 0],
    "B": [1, 1, 0],
    "C": [-1, -1, -1],
    "D": [-1, 1, -1],
    "E": [1, 0, 0],
    "F": [1, 1, 0],
    "G": [-1, -1, -1],
}
NAMES = ["edema", "effusion", "nodule"]


def labels(studies: list[str]) -> torch.Tensor:
    return torch.tensor([FINDINGS[study] for study in studies], dtype=torch.float32)


def describe(study: str) -> str:
    present = [name for name, state in zip(NAMES, FINDINGS[study], strict=True) if state > 0]
    return f"{study}: {', '.join(present) or 'none'}"


def heat_map(axis, matrix: torch.Tensor, title: str, rows: list[str], columns: list[str]) -> None:
    largest = max(float(matrix.max()), 1e-9) * 1.25
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=largest)
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row):
            color = "white" if value > 0.55 * largest else "black"
            text = f"{value:.2f}".lstrip("0") if value else "·"
            axis.text(j, i, text, ha="center", va="center", fontsize=9, color=color)
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=9)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.set_title(title, fontsize=11)


def save(name: str, panels: list[tuple[str, torch.Tensor]], rows: list[str], columns: list[str]) -> None:
    size = ((1.7 + 0.36 * len(columns)) * len(panels), 4.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (title, matrix) in zip(axes[0], panels, strict=True):
        heat_map(axis, matrix, title, rows, columns)
    figure.savefig(IMAGES / f"{name}.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    rows = [f"image {describe(s)}" for s in IMAGE_STUDIES]
    columns = [f"text {describe(s)}" for s in TEXT_STUDIES]
    embeds = torch.ones(len(IMAGE_STUDIES), 1), torch.ones(len(TEXT_STUDIES), 1)
    finding_states = labels(IMAGE_STUDIES), labels(TEXT_STUDIES)
    ids, _ = ids_and_labels((IMAGE_STUDIES, TEXT_STUDIES), finding_states, (None, None), embeds)

    by_id = agreement_blocks(ids, None, "exact")(ALL, ALL).float()
    panels = [("rows: image to text", sum_to_one(by_id, 1)), ("columns: text to image", sum_to_one(by_id, 0))]
    save("image_text_contrastive", panels, rows, columns)

    by_row, by_column = semantic_targets(*finding_states)
    sharp = semantic_targets(*finding_states, temperature=0.2)[0]
    panels = [("rows, target temperature 1", by_row), ("columns, 1", by_column), ("rows, 0.2", sharp)]
    save("semantic_matching", panels, rows, columns)

    kinds = ("exact", "overlap", "soft")
    positives = {kind: agreement_blocks(ids, finding_states, kind)(ALL, ALL).float() for kind in kinds}
    panels = [(f'rows, label_agreement="{kind}"', sum_to_one(m, 1)) for kind, m in positives.items()]
    save("image_text_label_contrastive", panels, rows, columns)
    panels = [(f'positives, label_agreement="{kind}"', m) for kind, m in positives.items()]
    save("sigmoid_contrastive", panels, rows, columns)

    generator = torch.Generator().manual_seed(3)
    sentences = l2_normalize(torch.randn(3, 16, generator=generator))
    own = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 2])
    patches = l2_normalize(sentences[own] + 0.25 * torch.randn(9, 16, generator=generator))
    cosine = patches @ sentences.T
    kept = torch.ones(9, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    panels = [("cosine", cosine.clamp_min(0))]
    panels += [
        (f'plan, alignment="{m}"', patch_sentence_plan(cosine, *kept, m)) for m in ("transport", "attention", "max")
    ]
    names = [f"patch {p}" for p in range(9)], [f"sentence {s}" for s in range(3)]
    save("patch_sentence_matching", panels, *names)

    side = torch.linspace(-1, 1, 64)
    image = (torch.exp(-6 * ((side - 0.3) ** 2 + (side[:, None] + 0.1) ** 2)) + 0.3 * (side[:, None] + 1)).reshape(
        1, 1, 64, 64
    )
    visible = random_visible_patches(1, 64, 0.5, torch.Generator().manual_seed(0))[1]
    pixels = patchify(image, 8)
    target = (pixels - pixels.mean(2, keepdim=True)) / pixels.std(2, keepdim=True, correction=0)
    pictures = {
        "image": pixels,
        "what the network sees": pixels.where(visible.unsqueeze(2), torch.nan),
        "target (hidden patches, normalized)": target.where(~visible.unsqueeze(2), torch.nan),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
    for axis, (title, values) in zip(axes, pictures.items(), strict=True):
        axis.imshow(values.reshape(8, 8, 8, 8).permute(0, 2, 1, 3).reshape(64, 64), cmap="gray")
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.savefig(IMAGES / "masked_patch.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
