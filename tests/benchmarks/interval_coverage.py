"""How often bootstrap intervals hold the true value, on simulated scores of known AUROC.

Three cases: the AUROC of independent cases, the AUROC of several cases a patient, and the difference between the AUROC of
two models on the same patients. Where both models are equally good, the share of p-values below 0.05 is printed as well.

Run: python tests/benchmarks/interval_coverage.py [--repeats 1000] [--n-resamples 1000]
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from medvl.evaluation import (
    BootstrapConfig,
    auroc_and_average_precision,
    bootstrap_distribution,
    compare,
    percentile_interval,
)

SEPARATION = 1.2
TRUE_AUROC = 0.5 * (1 + math.erf(SEPARATION / 2))
BETTER = 1.6
TRUE_DIFFERENCE = 0.5 * math.erf(BETTER / 2) - 0.5 * math.erf(SEPARATION / 2)


def simulate(generator: np.random.Generator, patients: int, cases: int) -> tuple[np.ndarray, ...]:
    """Scores of unit variance in both classes, half of it shared by the cases of a patient; a third are positive."""
    patient = np.repeat(np.arange(patients), cases)
    targets = (generator.random(patients) < 1 / 3)[patient]
    shared = generator.normal(size=patients)[patient]
    own = generator.normal(size=len(patient))
    noise = own if cases == 1 else math.sqrt(0.5) * (shared + own)
    return noise + SEPARATION * targets, targets, patient


def coverage(repeats: int, n_resamples: int) -> dict[str, float]:
    """Share of repeats whose 95 % interval holds the true AUROC, for cases alone and for several cases a patient."""
    held = {}
    for name, patients, cases in (("independent cases", 200, 1), ("three cases a patient", 200, 3)):
        inside = 0
        for repeat in range(repeats):
            scores, targets, patient = simulate(np.random.default_rng(repeat), patients, cases)
            values = bootstrap_distribution(
                lambda weights, s=scores, t=targets: auroc_and_average_precision(s, t, weights)[0],
                patient,
                BootstrapConfig(n_resamples=n_resamples, seed=repeat),
            )
            low, high = percentile_interval(values)
            inside += bool(low <= TRUE_AUROC <= high)
        held[name] = inside / repeats
    return held


class Scored:
    """Scores of one model, as :func:`medvl.evaluation.compare` takes them."""

    def __init__(self, scores: np.ndarray, targets: np.ndarray, patient: np.ndarray) -> None:
        self.scores, self.targets = scores, targets
        self.patient_ids = self.study_ids = patient.tolist()

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"auroc": auroc_and_average_precision(self.scores, self.targets, weights)[0]}


def paired_coverage(repeats: int, n_resamples: int) -> dict[str, float]:
    """Share of repeats whose interval holds the true difference of two models, and of false alarms where there is none."""
    inside = alarms = 0
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        targets = generator.random(200) < 1 / 3
        # Half of the noise is the case's own hardness, the same for both models.
        shared, own = generator.normal(size=200), generator.normal(size=(3, 200))
        noise = math.sqrt(0.5) * (shared + own)
        strong, weak, other = (
            Scored(noise[i] + separation * targets, targets, np.arange(200))
            for i, separation in enumerate((BETTER, SEPARATION, SEPARATION))
        )
        config = BootstrapConfig(n_resamples=n_resamples, seed=repeat)
        found = compare(strong, weak, bootstrap=config).differences["auroc"].difference
        inside += bool(found.low <= TRUE_DIFFERENCE <= found.high)
        alarms += bool(compare(weak, other, bootstrap=config).differences["auroc"].p_value < 0.05)
    return {"difference of two models": inside / repeats, "false alarms at p < 0.05": alarms / repeats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--n-resamples", type=int, default=1000)
    options = parser.parse_args()
    print(f"true AUROC {TRUE_AUROC:.4f}, {options.repeats} repeats of {options.n_resamples} resamples, 95 % intervals")
    for name, share in coverage(options.repeats, options.n_resamples).items():
        print(f"{name}: held in {100 * share:.1f} %")
    paired = paired_coverage(options.repeats, options.n_resamples)
    print(f"difference of two models: held in {100 * paired['difference of two models']:.1f} %")
    print(f"false alarms at p < 0.05 where two models are equal: {100 * paired['false alarms at p < 0.05']:.1f} %")


if __name__ == "__main__":
    main()
