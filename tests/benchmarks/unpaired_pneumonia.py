"""Zero-shot pneumonia detection by models that were trained without any image-report pair.

The recipes medclip and umcl are trained on images with a label (28 x 28 chest X-rays, 388 without and 3,494 with pneumonia)
and on the sentences or reports of another hospital, labeled by the library's own labeler. The images of the test split are
scored by their similarity to prompts for pneumonia minus that to prompts against it. Settings were chosen on the validation
split.

    OMP_NUM_THREADS=1 python tests/benchmarks/unpaired_pneumonia.py [--recipe medclip] [--seeds 3] [--split val]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from medvl.evaluation import BootstrapConfig, zero_shot
from medvl.workflows import TrainedRun, embed, train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FINDING = "Pneumonia"

COMMON = {
    "sources": [f"image-label={DATA / 'pneumonia' / 'cases.csv'}", f"text-label=openi:{DATA / 'openi-reports.tgz'}"],
    "columns": {"label_column": "finding"},
    "image_size": 32,
    "epochs": 2,
    "flip_prob": 0.0,
    "augmentation#crop": [0.8, 1.0],
    "augmentation#rotation": 10.0,
    "augmentation#translation": 0.05,
    "augmentation#brightness": [0.8, 1.2],
    "augmentation#contrast": [0.8, 1.2],
    "augmentation#blur_prob": 0.0,
    "vocab_size": 2000,
    "device": "cpu",
    "progress": False,
}
OWN = {
    "medclip": {"max_length": 48, "text_sampling_weights": {"image-label": 0.5, "text-label": 0.5}},
    "umcl": {"sampling_weights": {"image-label": 0.8, "text-label": 0.2}, "max_length": 64},
}


def score(recipe: str, seed: int, split: str, settings: dict) -> dict:
    """AUROC with its interval of one run and of the untrained model, and the training time."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = TrainedRun(train(recipe, {**COMMON, **OWN[recipe], **settings, "seed": seed, "output": f"{folder}/run"}))
        seconds = time.perf_counter() - start
        studies = run.studies(split=split)
        found = {}
        for name, model in (("trained", run.model), ("untrained", run.reinitialized_model())):
            embeddings = embed(model, run.loader(studies, batch_size=256))
            result = zero_shot(
                embeddings, run.class_prompts([FINDING]), model, studies.names, bootstrap=BootstrapConfig(seed=seed)
            )
            found[name] = result.findings[FINDING]
    return {**found, "seconds": seconds}


def main() -> None:
    """Print a table, one line a seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", choices=sorted(OWN), action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--epochs", type=int, default=COMMON["epochs"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    settings: dict = {"epochs": options.epochs, **dict(pair.split("=", 1) for pair in options.set)}
    print(f"| recipe | seed | images ({options.split}) | zero-shot {FINDING} AUROC | untrained | training |")
    print("|---|---|---|---|---|---|")
    for recipe in options.recipe or sorted(OWN):
        values = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            found = score(recipe, seed, options.split, settings)
            trained, untrained = found["trained"], found["untrained"]
            values.append(trained.auroc.value)
            number = trained.positives + trained.negatives
            print(
                f"| {recipe} | {seed} | {number} | {trained.auroc} | {untrained.auroc} | {found['seconds']:.0f} s |",
                flush=True,
            )
        print(f"| {recipe} | all | | mean {np.mean(values):.3f}, lowest {min(values):.3f} | | |", flush=True)


if __name__ == "__main__":
    main()
