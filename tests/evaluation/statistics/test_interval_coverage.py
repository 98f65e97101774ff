"""The quick form of the coverage benchmark: intervals hold the true value about as often as they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("interval_coverage", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_cover_the_true_value(benchmark):
    # Of 200 repeats, 95 % coverage gives 181 to 198 all but once in 1,000 times.
    held = benchmark.coverage(repeats=200, n_resamples=400)
    assert 0.905 <= held["independent cases"] <= 0.99
    assert 0.905 <= held["three cases a patient"] <= 0.99


def test_differences_are_covered_and_false_alarms_are_rare(benchmark):
    # Of 150 repeats, 95 % gives 133 to 149 all but about once in 1,000 times.
    held = benchmark.paired_coverage(repeats=150, n_resamples=300)
    assert 0.88 <= held["difference of two models"] <= 0.995
    assert held["false alarms at p < 0.05"] <= 0.12
