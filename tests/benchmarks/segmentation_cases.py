"""Lung segmentation on real chest X-rays with 5, 10 and 50 labeled cases, by a run's frozen encoder and an untrained one.

The table needs a column with paths of masks and one with patients. Where the run was trained on it, the test cases are those
of the run's test split, which the encoder has not seen; any other table is split by patient, 60 to 40.

Run: python tests/benchmarks/segmentation_cases.py RUN --data cases.csv --mask-column lung_mask [--patient-column patient]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from medvl.data import StudyLoader
from medvl.evaluation import BootstrapConfig, segmentation
from medvl.evaluation.statistics.means import mean_estimates
from medvl.workflows import TrainedRun
from medvl.workflows.masks import find_masks, masked_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mask-column", default="lung_mask")
    parser.add_argument("--patient-column", default="patient")
    parser.add_argument("--report-column", default="text")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()

    run = TrainedRun(options.run)
    columns = {"patient_column": options.patient_column, "report_column": options.report_column}
    manifest = run.studies(options.data, "all", columns).assign_splits((0.6, 0.0, 0.4), seed=run.environment["seed"])
    masks = find_masks(run, manifest, options.data, [f"lungs={options.mask_column}"])
    train, test = (masked_dataset(run, manifest.subset(name).studies, masks) for name in ("train", "test"))
    print(
        f"{manifest.name}: {len(train)} cases to draw from, {len(test)} test cases, image size {run.model.image_size}"
    )
    train.cache_bytes = test.cache_bytes = 10**9
    results = {}
    for name, model in (("trained", run.model), ("untrained", run.reinitialized_model())):
        start = time.perf_counter()
        results[name] = segmentation(
            model,
            train,
            StudyLoader(test, batch_size=16),
            names=masks.names,
            shots=options.shots,
            seeds=options.seeds,
            steps=options.steps,
        )
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    trained, untrained = results["trained"], results["untrained"]
    print(trained.table(untrained))
    print("\nDifference of Dice, trained - untrained, on the same cases, with the interval by patient:")
    for number, ours, theirs in zip(trained.settings["shots"], trained.case_dice, untrained.case_dice, strict=True):
        difference = mean_estimates(np.asarray(ours - theirs), trained.patient_ids, BootstrapConfig(n_resamples=1000))
        print(f"{number:4d} labeled cases: {difference[0]}")


if __name__ == "__main__":
    main()
