"""What importing a loss costs beside importing torch alone, each in a fresh process, in turns.

python tests/benchmarks/bench_import.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

STATEMENTS = ("import torch", "from medvl.losses import ImageTextContrastiveLoss")
ROUNDS = 7


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(ROUNDS):
        for statement, values in times.items():
            values.append(seconds(statement))
    medians = [statistics.median(times[statement]) for statement in STATEMENTS]
    for statement, median in zip(STATEMENTS, medians, strict=True):
        print(f"{median:6.2f} s  {statement}")
    print(f"ratio {medians[1] / medians[0]:.3f}")


if __name__ == "__main__":
    main()
