"""Nearest neighbors: those of a float64 loop, ties by row, the same by every backend."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from medvl.evaluation import nearest_neighbors, neighbors
from medvl.utils.extras import MissingExtraError

FAISS = pytest.param("faiss", marks=pytest.mark.skipif(find_spec("faiss") is None, reason="needs faiss"))
backends = pytest.mark.parametrize("backend", ["torch", FAISS])


def reference(queries, candidates, k):
    """Cosines of every pair in float64, rounded to float32; sorted, ties by row."""
    found = []
    for query in queries.double().numpy():
        scores = []
        for row, candidate in enumerate(candidates.double().numpy()):
            length = np.sqrt((query * query).sum()) * np.sqrt((candidate * candidate).sum())
            scores.append((-float(np.float32((query * candidate).sum() / length)) if length else 0.0, row))
        found.append(sorted(scores)[:k])
    return [[row for _, row in one] for one in found], [[-score for score, _ in one] for one in found]


@backends
@pytest.mark.parametrize("k", [1, 7, 60])
def test_equation(backend, k):
    queries, candidates = torch.randn(5, 8), torch.randn(60, 8) * torch.rand(60, 1)
    candidates[3] = 0
    rows, scores = reference(queries, candidates, k)
    found = nearest_neighbors(queries, candidates, k, backend)
    assert found.indices.tolist() == rows
    torch.testing.assert_close(found.similarities, torch.tensor(scores), rtol=0, atol=1e-7)


@backends
def test_ties_go_to_the_smaller_row_however_many_there_are(backend, monkeypatch):
    monkeypatch.setattr(neighbors, "CHUNK_ROWS", 100)
    monkeypatch.setattr(neighbors, "QUERY_ROWS", 3)
    distinct = torch.randn(6, 32)
    candidates = distinct.repeat(200, 1)[torch.randperm(1200)]
    queries = torch.cat([distinct, torch.randn(4, 32)])
    rows, _ = reference(queries, candidates, 250)
    found = nearest_neighbors(queries, candidates, 250, backend)
    assert found.indices.tolist() == rows
    assert found.indices.dtype == torch.int64


@backends
def test_close_calls_are_decided_in_float64(backend):
    # Candidates whose cosines differ by less than a product of float32 can tell.
    base = torch.nn.functional.normalize(torch.randn(1, 256), dim=1)
    candidates = base + 1e-4 * torch.randn(400, 256)
    rows, scores = reference(base, candidates, 20)
    found = nearest_neighbors(base, candidates, 20, backend)
    assert found.indices.tolist() == rows
    assert found.similarities.tolist() == scores


@pytest.mark.skipif(find_spec("faiss") is None, reason="needs faiss")
def test_backends_are_equal():
    queries, candidates = torch.randn(50, 64), torch.randn(3000, 64).repeat(2, 1)
    by_faiss, by_torch = (nearest_neighbors(queries, candidates, 10, backend) for backend in ("faiss", "torch"))
    assert torch.equal(by_faiss.indices, by_torch.indices)
    assert torch.equal(by_faiss.similarities, by_torch.similarities)


@backends
def test_arrays_in_files_and_zero_vectors(backend, tmp_path):
    np.save(tmp_path / "e.npy", np.random.default_rng(0).standard_normal((40, 4), dtype=np.float32))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="c")
    found = nearest_neighbors(mapped[:3], mapped, 1, backend)
    assert found.indices.flatten().tolist() == [0, 1, 2]
    found = nearest_neighbors(np.zeros((1, 4), np.float32), mapped, 3, backend)
    assert (found.indices.tolist(), found.similarities.tolist()) == ([[0, 1, 2]], [[0, 0, 0]])


def test_faiss_is_used_where_it_is_installed(monkeypatch):
    used = []
    monkeypatch.setattr(neighbors, "find_spec", lambda name: used.append(name))
    nearest_neighbors(torch.eye(2), torch.eye(2), 1)
    assert used == ["faiss"]


@pytest.mark.parametrize(
    ("queries", "candidates", "k", "backend", "message"),
    [
        (torch.eye(2), torch.eye(2), 3, "torch", r"k must be at most the number of candidates, 2, got 3\."),
        (torch.eye(2), torch.eye(2), 0, "torch", r"k must be .*1, got 0\."),
        (torch.eye(2), torch.eye(3), 1, "torch", r"query_embeds and candidate_embeds must have .* width D, got 2 and 3\."),
        (torch.ones(2), torch.eye(2), 1, "torch", r"query_embeds must be a matrix \(rows, D\), got \(2,\)\."),
        (torch.eye(2) / 0, torch.eye(2), 1, "torch", r"query_embeds must be finite, got 2 of 2 rows that are not\."),
        (torch.eye(2), torch.eye(2) / 0, 1, "torch", r"candidate_embeds must be finite, got 2 of 2 rows that are not\."),
        (torch.eye(2), torch.eye(2), 1, "annoy", r"backend must be .*annoy.*\."),
    ],
)  # fmt: skip
def test_errors(queries, candidates, k, backend, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        nearest_neighbors(queries, candidates, k, backend)


def test_faiss_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'^The backend faiss needs faiss: pip install "medvl\[faiss\]"$'):
        nearest_neighbors(torch.eye(2), torch.eye(2), 1, "faiss")
