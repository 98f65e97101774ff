"""Draws the pictures of the front page: sentences over an X-ray by a trained run, and hard against semantic targets.

medvl demo --output runs/demo
python docs/make_front_pictures.py runs/demo
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from medvl.data import SyntheticChestXRay
from medvl.functional import semantic_targets
from medvl.workflows import TrainedRun, explain

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

IMAGES = Path(__file__).parent / "images"
SENTENCES = {"Cardiomegaly": "The heart is enlarged.", "Pleural Effusion": "There is a {side} effusion."}
SIZE = 256  # of the drawing; the model sees it at its own size
ORANGE = "#E69F00"  # distinct from blue for every kind of color vision

# Five studies of a batch and the states of edema and effusion; A and D, B and E have the same findings.
STUDIES = {"A": ("effusion", [-1, 1]), "B": ("edema", [1, -1]), "C": ("both", [1, 1])}
STUDIES |= {"D": ("effusion", [-1, 1]), "E": ("edema", [1, -1])}
TEMPERATURE = 0.3


def draw_sentences(run: TrainedRun, path: Path) -> None:
    """The first study of other patients that has all findings of ``SENTENCES``, and each sentence over it."""
    dataset = SyntheticChestXRay(1000, SIZE, seed=1000)
    wanted = ({finding.name: finding.side for finding in dataset.get_metadata(i)["findings"]} for i in range(1000))
    index, sides = next((index, sides) for index, sides in enumerate(wanted) if {*SENTENCES} <= {*sides})
    study = dataset[index]
    texts = [text.format(side=sides[name]) for name, text in SENTENCES.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.png"
        Image.fromarray((study["image"][0].numpy() * 255).astype(np.uint8)).save(file)
        found = explain(run, file, texts)
    figure, axes = plt.subplots(1, len(texts), figsize=(6.0, 3.3), layout="constrained")
    for number, (name, axis) in enumerate(zip(SENTENCES, axes, strict=True)):
        heat = found.heat[number]
        share = (heat - heat.min()) / np.ptp(heat)
        axis.axis("off")
        axis.imshow(found.picture, cmap="gray", vmin=0, vmax=1)
        axis.imshow(heat, cmap="inferno", alpha=0.65 * share)
        axis.contour(study["mask"][dataset.drawable.index(name)].numpy(), [0.5], colors="white", linewidths=1.6)
        axis.set_title(f"“{texts[number]}”", fontsize=12)
    save(figure, path)


def draw_targets(path: Path) -> None:
    """The targets of one batch: by pairs, where texts of the same findings are negatives, and by labels."""
    states = torch.tensor([state for _, state in STUDIES.values()], dtype=torch.float32)
    matrices = {
        "hard pairs": torch.eye(len(STUDIES)),
        "semantic matching": semantic_targets(states, states, temperature=TEMPERATURE)[0],
    }
    figure, axes = plt.subplots(1, 2, figsize=(6.0, 3.3), layout="constrained", sharey=True)
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1.25)
        for i, row in enumerate(matrix.tolist()):
            for j, value in enumerate(row):
                axis.text(j, i, f"{value:.1f}".removeprefix("0"), ha="center", va="center", fontsize=12)
                if i != j and torch.equal(states[i], states[j]):
                    place = (j - 0.46, i - 0.46)
                    axis.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor=ORANGE, linewidth=2.5))
        axis.set_xticks(range(len(STUDIES)), STUDIES, fontsize=12)
        axis.set_yticks(range(len(STUDIES)), [f"{text}, {name}" for name, (text, _) in STUDIES.items()], fontsize=12)
        axis.set_xlabel("report", fontsize=12)
        axis.set_title(title, fontsize=12)
    axes[0].set_ylabel("image", fontsize=12)
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
    Image.open(path).convert("RGB").save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    draw_sentences(TrainedRun(parser.parse_args().run), IMAGES / "front_sentences.png")
    draw_targets(IMAGES / "front_targets.png")


if __name__ == "__main__":
    main()
