"""How often the bootstrap interval of the AUROC holds the true value, on simulated scores of known AUROC.

Run: python tests/benchmarks/interval_coverage.py [--repeats 1000] [--resamples 1000]
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from medvl.evaluation import auroc_and_average_precision, bootstrap, interval

SEPARATION = 1.2
TRUE_AUROC = 0.5 * (1 + math.erf(SEPARATION / 2))


def simulate(generator: np.random.Generator, patients: int, cases: int) -> tuple[np.ndarray, ...]:
    """Scores of unit variance in both classes, half of it shared by the cases of a patient; a third are positive."""
    patient = np.repeat(np.arange(patients), cases)
    targets = (generator.random(patients) < 1 / 3)[patient]
    shared = generator.normal(size=patients)[patient]
    own = generator.normal(size=len(patient))
    noise = own if cases == 1 else math.sqrt(0.5) * (shared + own)
    return noise + SEPARATION * targets, targets, patient


def coverage(repeats: int, resamples: int) -> dict[str, float]:
    """Share of repeats whose 95 % interval holds the true AUROC, for cases alone and for several cases a patient."""
    held = {}
    for name, patients, cases in (("independent cases", 200, 1), ("three cases a patient", 200, 3)):
        inside = 0
        for repeat in range(repeats):
            scores, targets, patient = simulate(np.random.default_rng(repeat), patients, cases)
            values = bootstrap(
                lambda weights, s=scores, t=targets: auroc_and_average_precision(s, t, weights)[0],
                patient,
                resamples=resamples,
                seed=repeat,
            )
            low, high = interval(values)
            inside += bool(low <= TRUE_AUROC <= high)
        held[name] = inside / repeats
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    print(f"true AUROC {TRUE_AUROC:.4f}, {options.repeats} repeats of {options.resamples} resamples, 95 % intervals")
    for name, share in coverage(options.repeats, options.resamples).items():
        print(f"{name}: held in {100 * share:.1f} %")


if __name__ == "__main__":
    main()
