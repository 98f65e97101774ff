"""Draw docs/images/synthetic_contact_sheet.png: two normal studies, and two of each finding with mask and sentence.

python docs/make_contact_sheet.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from medvl.data import SyntheticChestXRay
from medvl.data.synthetic.random_stream import RandomStream
from medvl.data.synthetic.reports import compose_sentences

OUTPUT = Path(__file__).parent / "images" / "synthetic_contact_sheet.png"
ORANGE = "#E69F00"
COLUMNS = 6


def choose(dataset: SyntheticChestXRay) -> list[tuple[int, str]]:
    """The first two normal studies, and for each finding one moderate and one severe study without other findings."""
    normal = (i for i in range(len(dataset)) if not dataset.get_metadata(i)["findings"])
    chosen = [(i, "No Finding") for i in normal if sentence_of(dataset, i, "No Finding")][:2]
    for name in dataset.drawable:
        for severity in ("moderate", "severe") if name != "Support Devices" else ("moderate", "moderate"):
            taken = [index for index, _ in chosen]
            for index in range(len(dataset)):
                findings = dataset.get_metadata(index)["findings"]
                alone = len(findings) == 1 and findings[0].name == name and findings[0].severity == severity
                if alone and index not in taken and sentence_of(dataset, index, name):
                    chosen.append((index, name))
                    break
    return chosen


def sentence_of(dataset: SyntheticChestXRay, index: int, name: str) -> str:
    """The first sentence of the report that states the finding; for a normal study its impression."""
    sentences = compose_sentences(dataset.get_metadata(index)["findings"], RandomStream(dataset.seed, "report", index))
    if name == "No Finding":
        return next((s.text for s in sentences if s.section == "IMPRESSION"), "")
    return next((s.text for s in sentences for m in s.mentions if m.name == name and m.state == 1), "")


def main() -> None:
    dataset = SyntheticChestXRay(length=3000, size=256, seed=0)
    chosen = choose(dataset)
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(16, 3.55 * rows), dpi=100)
    FigureCanvasAgg(figure)
    for place, (index, name) in enumerate(chosen, 1):
        study = dataset[index]
        axes = figure.add_subplot(rows, COLUMNS, place)
        axes.imshow(study["image"][0], cmap="gray", vmin=0, vmax=1)
        if name in dataset.drawable:
            mask = study["mask"][dataset.drawable.index(name)].numpy()
            axes.contour(mask, levels=[0.5], colors=[ORANGE], linewidths=1.2)
        axes.set_title(name, fontsize=11, fontweight="bold")
        axes.set_xlabel(textwrap.fill(sentence_of(dataset, index, name), 36), fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.tight_layout(h_pad=2)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    OUTPUT.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).quantize(96, dither=Image.Dither.NONE).save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()
