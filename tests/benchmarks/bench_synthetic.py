"""Synthetic studies generated a second on one core: image, masks, report and labels.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_synthetic.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

from medvl.data import SyntheticChestXRay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer studies")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    options = parser.parse_args()
    chunks, chunk = (4, 25) if options.quick else (20, 100)
    dataset = SyntheticChestXRay(length=chunks * chunk, size=options.size)
    dataset[0]  # fills the caches
    wall, cpu = [], []
    for number in range(chunks):
        start, start_cpu = time.perf_counter(), time.process_time()
        for index in range(number * chunk, (number + 1) * chunk):
            dataset[index]
        wall.append(chunk / (time.perf_counter() - start))
        cpu.append(chunk / (time.process_time() - start_cpu))
    print(f"{options.size} pixels, {chunks} chunks of {chunk} studies")
    print(
        f"median {statistics.median(wall):.0f} studies a second, {statistics.median(cpu):.0f} a second of processor time"
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        SyntheticChestXRay(length=chunks * chunk, size=options.size).save(folder)
        print(f"saved as PNG and CSV: {chunks * chunk / (time.perf_counter() - start):.0f} studies a second")


if __name__ == "__main__":
    main()
