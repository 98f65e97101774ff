"""Unit vectors, label similarity, semantic targets and ids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medvl.functional import l2_normalize, label_similarity, semantic_targets
from medvl.utils.tensors import as_ids


def test_unit_vectors_have_length_one_and_zero_stays_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1e18, 1e18]], requires_grad=True)
    unit = l2_normalize(vectors)
    torch.testing.assert_close(unit.norm(dim=1), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    unit.sum().backward()
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad[1].abs().sum() == 0
    exact = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(l2_normalize, (exact,))


@pytest.mark.parametrize("kind", ["cosine", "dot", "jaccard"])
def test_label_similarity_by_loop(kind):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-1, 2, (n, 4), generator=generator).double() for n in (5, 6))
    a[0], b[1], a[2, 1] = 0.0, 0.0, math.nan
    for i, x in enumerate(a.nan_to_num(0.0)):
        for j, y in enumerate(b):
            expected = float(x @ y)
            if kind == "cosine":
                length = float(x.norm() * y.norm())
                expected = expected / length if length else 0.0
            if kind == "jaccard":
                either = int(((x > 0) | (y > 0)).sum())
                expected = int(((x > 0) & (y > 0)).sum()) / either if either else 0.0
            assert float(label_similarity(a, b, kind)[i, j]) == pytest.approx(expected, abs=1e-12)
    assert torch.equal(label_similarity(a, b), label_similarity(a, b, "cosine"))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_labels_of_any_dtype(dtype):
    labels = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    torch.testing.assert_close(
        label_similarity(labels, labels, "jaccard").double(), torch.tensor([[1, 0.5], [0.5, 1]]).double()
    )


def test_a_callable_is_asked_about_distinct_labels_only():
    labels = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    asked = []

    def similarity(a, b):
        asked.append((tuple(a.shape), tuple(b.shape)))
        return a @ b.T

    torch.testing.assert_close(label_similarity(labels, labels[:3], similarity), labels @ labels[:3].T)
    assert asked == [((2, 2), (2, 2))]
    with pytest.raises(ValueError, match=r"^similarity must return a tensor of shape \(2, 2\), got \(2,\)\.$"):
        label_similarity(labels, labels, lambda a, b: a.sum(1))


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_semantic_targets_are_two_softmaxes(temperature):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-1, 2, (n, 4), generator=generator).double() for n in (3, 5))
    rows, columns = semantic_targets(a, b, "dot", temperature)
    torch.testing.assert_close(rows, (a @ b.T / temperature).softmax(1))
    torch.testing.assert_close(columns, (a @ b.T / temperature).softmax(0))


def test_column_targets_sum_to_one_in_float32_on_large_batches():
    labels = (torch.rand(8192, 4, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    columns = semantic_targets(labels, labels[:16])[1]
    assert (columns.double().sum(0) - 1).abs().max() < 2e-6


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([3, 1, 3]),
        torch.tensor([3, 1, 3], dtype=torch.int32),
        ["x", "y", "x"],
        (7, 2, 7),
        np.array([5, 6, 5]),
        [np.int64(5), np.int64(6), np.int64(5)],
        np.array(["x", "y", "x"]),
    ],
)
def test_ids_of_any_kind_are_equal_where_they_were(ids):
    numbers = as_ids(ids, "ids", 3, torch.device("cpu"))
    assert numbers.dtype == torch.int64
    assert (numbers[:, None] == numbers).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_text_ids_are_the_same_in_every_process():
    assert as_ids(["study-1", ""], "ids", 2, torch.device("cpu")).tolist() == [2395529724176179553, 8238016292129134938]


@pytest.mark.parametrize("kind", ["cosine", "dot", "jaccard", lambda a, b: a @ b.T])
def test_labels_of_mixed_dtypes(kind):
    single, double = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    for pair in ((single, double), (double, single), (double.bool(), double)):
        found = label_similarity(*pair, kind)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, label_similarity(*(x.double() for x in pair), kind))


def test_wrong_targets():
    with pytest.raises(ValueError, match=r"^temperature must be above 0, got 0\.$"):
        semantic_targets(torch.ones(2, 2), torch.ones(2, 2), temperature=0)
    with pytest.raises(TypeError, match=r"^image_labels must be a tensor \(rows, K\), got list\.$"):
        semantic_targets([[1.0]], torch.ones(2, 2))
    message = r"^similarity must return a tensor of shape \(1, 1\), got list\.$"
    with pytest.raises(ValueError, match=message):
        label_similarity(torch.ones(2, 2), torch.ones(3, 2), lambda a, b: [[1.0]])
    rows, columns = semantic_targets(torch.eye(2), torch.eye(2))
    expected = label_similarity(torch.eye(2), torch.eye(2), "cosine").softmax(1)
    torch.testing.assert_close(rows, expected)
    torch.testing.assert_close(columns, expected.T)


def test_wrong_labels():
    with pytest.raises(ValueError, match=r"^image_labels and text_labels must have the same width K, got 2 and 3\.$"):
        label_similarity(torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"^text_labels must be a tensor \(rows, K\), got list\.$"):
        label_similarity(torch.ones(2, 2), [[1.0]])
    with pytest.raises(ValueError, match=r"^similarity must be one of 'cosine', 'dot', 'jaccard', got 'l1'\.$"):
        label_similarity(torch.ones(2, 2), torch.ones(2, 2), "l1")
