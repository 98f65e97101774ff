"""The gather of the metrics in one process: two threads stand for two ranks."""

from __future__ import annotations

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from medvl.metrics import GroundingMetric, RetrievalMetric, gathered

NUMBER = 23


class TwoRanks:
    """Runs a function on two ranks; what both pass to a collective call, both get."""

    def __init__(self, monkeypatch):
        self.barrier, self.parts, self.local = threading.Barrier(2, timeout=850), [None, None], threading.local()
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: self.local.rank)
        monkeypatch.setattr(torch.distributed, "all_gather_object", self.all_gather_object)
        monkeypatch.setattr(gathered, "evenly_divisible_all_gather", self.all_gather)

    def exchange(self, part):
        self.parts[self.local.rank] = part
        self.barrier.wait()
        parts = list(self.parts)
        self.barrier.wait()
        return parts

    def all_gather_object(self, values, value):
        values[:] = self.exchange(value)

    def all_gather(self, data, concat):
        parts = self.exchange(data)
        assert parts[0].shape[1:] == parts[1].shape[1:]
        assert parts[0].dtype == parts[1].dtype
        return torch.cat(parts) if concat else parts

    def run(self, function):
        def start(rank):
            self.local.rank = rank
            try:
                return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(start, (0, 1)))


@pytest.fixture
def ranks(monkeypatch):
    return TwoRanks(monkeypatch)


@pytest.fixture(scope="module")
def worker():
    path = Path(__file__).with_name("distributed_worker.py")
    spec = importlib.util.spec_from_file_location("distributed_worker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(worker):
    return worker.figures([slice(None)])


def test_ranks_with_different_numbers_of_cases_get_the_values_of_one_process(worker, expected, ranks):
    parts = [[slice(0, 4), slice(4, 15)], [slice(15, 19), slice(19, NUMBER)]]
    for figures in ranks.run(lambda rank: worker.figures(parts[rank])):
        assert figures == pytest.approx(expected)


@pytest.mark.parametrize("full", [0, 1])
def test_a_rank_without_a_case_takes_part_in_the_gather(worker, expected, ranks, full):
    for figures in ranks.run(lambda rank: worker.figures([slice(None)] if rank == full else [])):
        assert figures == pytest.approx(expected)


def test_no_case_on_any_rank_is_an_error_on_each(ranks):
    def aggregate(rank):
        with pytest.raises(ValueError, match=r"^RetrievalMetric must hold at least one batch, got none\.$"):
            RetrievalMetric().aggregate()

    ranks.run(aggregate)


def test_buffers_are_gathered_once(ranks, monkeypatch):
    calls, all_gather = [], gathered.evenly_divisible_all_gather
    monkeypatch.setattr(
        gathered,
        "evenly_divisible_all_gather",
        lambda data, concat: calls.append(len(data)) or all_gather(data, concat),
    )

    def lengths(rank):
        metric = GroundingMetric("pointing_game")
        metric(torch.rand(2 + rank, 1, 3, 3), torch.ones(2 + rank, 1, 3, 3))
        return [len(metric.get_buffer()) for _ in range(3)]

    assert ranks.run(lengths) == [[5, 5, 5], [5, 5, 5]]
    assert sorted(calls) == [2, 3]
