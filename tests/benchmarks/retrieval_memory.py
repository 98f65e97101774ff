"""Peak memory and time of retrieval ranks for many queries and candidates on the CPU.

Run: python tests/benchmarks/retrieval_memory.py [--number 100000] [--width 512]
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from medvl.functional import retrieval_ranks
from medvl.utils.counts import count_of


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    base = peak_mib()
    torch.manual_seed(0)
    queries = torch.randn(options.number, options.width)
    candidates = torch.randn(options.number, options.width)
    start = time.perf_counter()
    ranks = retrieval_ranks(queries, candidates)
    seconds = time.perf_counter() - start
    threads = count_of(torch.get_num_threads(), "thread")
    print(f"{options.number} x {options.number}, width {options.width}: {seconds:.0f} s, {threads}")
    print(f"peak {peak_mib():.0f} MiB, of which Python and torch {base:.0f} MiB and the embeddings", end=" ")
    print(f"{2 * queries.nbytes / 2**20:.0f} MiB; mean rank {ranks.double().mean():.0f}")


if __name__ == "__main__":
    main()
