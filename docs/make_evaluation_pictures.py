"""Draws the pictures of the pages on grounding, segmentation and the report from a run on synthetic images.

medvl demo --output runs/demo
python docs/make_evaluation_pictures.py runs/demo

The picture of the report is a screenshot by Chromium and is passed over where there is none.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from torch.utils.data import default_collate

from medvl.data import SyntheticChestXRay
from medvl.evaluation import grounding, segmentation
from medvl.transforms import RadiographIntensity, ResizeLongest
from medvl.workflows import TrainedRun

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
KEYS = ("image", "mask", "study_id", "patient_id")
HEART = "Cardiomegaly"


def cases(dataset: SyntheticChestXRay, size: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Studies as the run prepares its images, with the masks of these findings."""
    scale, resize = RadiographIntensity(), ResizeLongest(size)
    columns = [dataset.drawable.index(name) for name in names]
    for study in dataset:
        mask = resize(study["mask"][columns].float()) >= 0.5
        yield {**{key: study[key] for key in KEYS}, "image": resize(scale(study["image"])), "mask": mask}


def batches(studies: Sequence[dict[str, Any]], size: int = 32) -> list[dict[str, Any]]:
    return [default_collate(studies[start : start + size]) for start in range(0, len(studies), size)]


def draw(examples: Sequence[Any], columns: int, path: Path) -> None:
    """The examples side by side: heat map in color, true region in a solid line, predicted one dashed."""
    rows = -(-len(examples) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 2.75 * rows), layout="constrained", squeeze=False
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, example in zip(grid.flat, examples, strict=False):
        height, width = example.truth.shape
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(example.picture, cmap="gray", extent=extent)
        if hasattr(example, "heat"):
            axes.imshow(example.heat, cmap="cividis", extent=extent, alpha=0.45, interpolation="bilinear")
            axes.set_title(f"{example.name}\nCNR {example.values['cnr']:.2f}", fontsize=10)
        else:
            axes.contour(np.asarray(example.predicted, float), [0.5], colors="#E69F00", linestyles="--", linewidths=1.6)
            axes.set_title(f"Dice {example.dice:.2f}", fontsize=10)
        axes.contour(np.asarray(example.truth, float), [0.5], colors="white", linewidths=1.4)
    figure.savefig(path, dpi=70)


def photograph(report: Path, path: Path, size: tuple[int, int] = (1280, 1330)) -> None:
    """The upper part of a report in a browser's window, in few colors."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None or not report.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        window = [f"--screenshot={shot}", f"--window-size={size[0]},{size[1]}"]
        subprocess.run([browser, *options, *window, report.resolve().as_uri()], check=True, capture_output=True)
        Image.open(shot).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--length", type=int, default=300)
    options = parser.parse_args()
    run = TrainedRun(options.run)
    size = run.model.image_size
    # Other patients than those of the run.
    dataset = SyntheticChestXRay(options.length, max(size, 32), seed=1000)
    names = dataset.drawable
    phrases = {name: sides["present"] for name, sides in run.class_prompts(names).items()}
    studies = list(cases(dataset, size, names))
    examples = grounding(run.model, batches(studies), phrases).examples
    draw([example for example in examples if example.place == "median"], 5, IMAGES / "grounding_examples.png")
    hearts = [study for study in cases(dataset, size, [HEART]) if study["mask"].any()]
    patients = sorted({study["patient_id"] for study in hearts})
    known = set(patients[: len(patients) // 2])
    train = [study for study in hearts if study["patient_id"] in known]
    test = [study for study in hearts if study["patient_id"] not in known]
    result = segmentation(run.model, train, batches(test), names=[HEART], shots=[10], seeds=1)
    draw(result.examples, 6, IMAGES / "segmentation_examples.png")
    photograph(options.run / "report.html", IMAGES / "report.png")


if __name__ == "__main__":
    main()
