"""Cross-validation of a recipe for image-report pairs on about a hundred real radiographs.

    python tests/benchmarks/real_pairs.py convirt [--set epochs=40] [--quick]

Cases with an image and a text are split into folds by patient. For each fold the recipe is trained from random weights on the
other folds. Each held-out image then ranks its own text among those of the other held-out patients, and each text its image.
The metric is the fraction of wrong candidates with a lower score than the right one, 0.5 by chance. The interval is a bootstrap
over patients. The control is the same model with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medvl.cli.options import parse_settings
from medvl.workflows import TrainedRun, embed, train

CASES = Path(__file__).parents[3] / "shared" / "data" / "cxr-cases"
SETTINGS = {
    "convirt": {"epochs": 40, "image_size": 64, "learning_rate": 0.001, "flip_prob": 0.0},
    "mlip": {"epochs": 40, "image_size": 64, "learning_rate": 0.001},
}


def folds_by_patient(patients: pd.Series, folds: int, seed: int) -> np.ndarray:
    """Fold of each row: patients in order of decreasing rows, each assigned to the fold with the fewest rows so far."""
    order = np.random.default_rng(seed).permutation(patients.unique())
    counts = patients.value_counts()
    sizes, fold_of = np.zeros(folds), {}
    for patient in sorted(order, key=lambda patient: -counts[patient]):
        fold_of[patient] = int(sizes.argmin())
        sizes[fold_of[patient]] += counts[patient]
    return patients.map(fold_of).to_numpy()


def fraction_below(scores: torch.Tensor, patients: list[str]) -> list[float]:
    """For each row i, the fraction of other patients' columns whose score is below that of column i; ties count half."""
    shares = []
    for i, row in enumerate(scores):
        others = row[[other != patients[i] for other in patients]]
        shares.append(float((others < row[i]).float().mean() + 0.5 * (others == row[i]).float().mean()))
    return shares


def held_out(run: TrainedRun, model: torch.nn.Module) -> pd.DataFrame:
    """Patient and fraction of wrong candidates below the right one, for every held-out case, in both directions."""
    embeddings = embed(model, run.loader(run.studies(split="test")))
    scores = embeddings.image @ embeddings.text.T
    patients = list(embeddings.patient_ids)
    return pd.DataFrame(
        {
            "patient": patients,
            "image to text": fraction_below(scores, patients),
            "text to image": fraction_below(scores.T, patients),
        }
    )


def estimate(cases: pd.DataFrame, direction: str, samples: int = 5000) -> str:
    """Mean over patients with its 95 % interval."""
    values = cases.groupby("patient")[direction].mean().to_numpy()
    draws = np.random.default_rng(0).integers(0, len(values), (samples, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(SETTINGS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe's train.yaml")
    parser.add_argument("--quick", action="store_true", help="one epoch of small images, to test that it runs")
    options = parser.parse_args()
    settings = {**SETTINGS[options.recipe], **({"epochs": 1, "image_size": 32} if options.quick else {})}
    settings |= parse_settings(options.set)
    cases = pd.read_csv(CASES / "cases.csv")
    cases = cases[cases["text"].notna()].reset_index(drop=True)
    cases["image"] = [str(CASES / image) for image in cases["image"]]
    fold = folds_by_patient(cases["patient"], options.folds, options.seed)
    trained, untrained = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.folds):
            cases["split"] = np.where(fold == number, "test", "train")
            table = Path(folder) / f"{number}.csv"
            cases[["image", "text", "patient", "split"]].to_csv(table, index=False)
            columns = {"report_column": "text", "patient_column": "patient"}
            fixed = {"data": str(table), "columns": columns, "seed": options.seed, "progress": False}
            output = train(options.recipe, {**fixed, "output": f"{folder}/{number}", **settings})
            run = TrainedRun(output)
            trained.append(held_out(run, run.model))
            untrained.append(held_out(run, run.reinitialized_model()))
            print(f"fold {number}: {trained[-1].drop(columns='patient').mean().round(3).to_dict()}", flush=True)
    print(
        f"\n{options.recipe}, {settings}, {len(cases)} cases of {cases['patient'].nunique()} patients, {options.folds} folds"
    )
    for direction in ("image to text", "text to image"):
        print(
            f"{direction}: trained {estimate(pd.concat(trained), direction)}, chance 0.5, untrained "
            f"{estimate(pd.concat(untrained), direction)}"
        )


if __name__ == "__main__":
    main()
