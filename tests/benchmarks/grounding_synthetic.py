"""Grounding of every finding on the synthetic set, by a run and by the same model untrained.

The studies are drawn with another seed than the run's, so that none of them was seen in training.

Run: python tests/benchmarks/grounding_synthetic.py RUN [--length 600] [--seed 1000]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from medvl.data import SyntheticChestXRay
from medvl.evaluation import BootstrapConfig, grounding
from medvl.evaluation.statistics.means import mean_of_means
from medvl.transforms import RadiographIntensity, ResizeLongest
from medvl.workflows import TrainedRun

KEYS = ("image", "mask", "study_id", "patient_id")


def batches(dataset: SyntheticChestXRay, size: int, batch_size: int = 64) -> Iterator[dict[str, Any]]:
    """The studies as the run prepares its images."""
    scale, resize = RadiographIntensity(), ResizeLongest(size)
    for start in range(0, len(dataset), batch_size):
        studies = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        for study in studies:
            study["image"], study["mask"] = resize(scale(study["image"])), resize(study["mask"].float()) >= 0.5
        yield default_collate([{key: study[key] for key in KEYS} for study in studies])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--length", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()

    run = TrainedRun(options.run)
    size = run.model.image_size
    dataset = SyntheticChestXRay(options.length, max(size, 32), options.seed)
    phrases = {name: sides["present"] for name, sides in run.class_prompts(dataset.drawable).items()}
    trained, untrained = (
        grounding(model, batches(dataset, size), phrases, names=dataset.drawable)
        for model in (run.model, run.reinitialized_model())
    )
    print(f"{options.length} studies of seed {options.seed}, image size {size}")
    print(trained.table(untrained))
    # Where a map has no finite contrast in one model it is left out of both.
    difference = trained.case_values[0] - untrained.case_values[0]
    difference[~np.isfinite(difference)] = np.nan
    gain = mean_of_means(difference, trained.patient_ids, BootstrapConfig(n_resamples=1000))
    print(f"\nCNR, trained - untrained, mean over findings, on the same cases: {gain}")


if __name__ == "__main__":
    main()
