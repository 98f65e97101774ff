"""Texts of one id: their mean, and their padded rows, against loops."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from medvl.functional import group_by_id, mean_by_id
from medvl.utils.ids import hash_id

NUMBERS = st.lists(st.integers(-3, 3), max_size=12)


def draw(count, width=3, dtype=torch.float64):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count), dtype=dtype)


@given(NUMBERS)
@example([])
@example([0])
@example([2, -1, 2, -1, 2])
def test_the_mean_of_each_id(ids):
    embeds = draw(len(ids)).requires_grad_()
    means, distinct = mean_by_id(embeds, ids)
    assert distinct.tolist() == sorted(set(ids))
    assert means.shape == (len(set(ids)), 3)
    for mean, own in zip(means, distinct.tolist(), strict=True):
        units = [x / x.norm() for x, of in zip(embeds, ids, strict=True) if of == own]
        expected = sum(units) / sum(units).norm()
        torch.testing.assert_close(mean, expected)
    if ids:
        (grad,) = torch.autograd.grad((means * torch.arange(1, 4)).sum(), embeds)
        assert torch.isfinite(grad).all()


@given(NUMBERS)
@example([])
@example([0])
@example([2, -1, 2, -1, 2])
def test_the_rows_of_each_id(ids):
    embeds = draw(len(ids)).requires_grad_()
    rows, mask, distinct = group_by_id(embeds, ids)
    assert distinct.tolist() == sorted(set(ids))
    longest = max((ids.count(own) for own in ids), default=0)
    assert rows.shape == (len(set(ids)), longest, 3)
    for row, kept, own in zip(rows, mask, distinct.tolist(), strict=True):
        members = [k for k, of in enumerate(ids) if of == own]
        assert kept.tolist() == [True] * len(members) + [False] * (longest - len(members))
        assert torch.equal(row[kept], embeds[members])
        assert not row[~kept].any()
    weights = draw(len(ids)) + 1
    padded = group_by_id(weights, ids)[0]
    if ids:
        (grad,) = torch.autograd.grad((rows * padded).sum(), embeds)
        assert torch.equal(grad, weights)


def test_ids_may_be_strings_and_embeddings_half():
    embeds = draw(3, dtype=torch.float16)
    means, ids = mean_by_id(embeds, ["a", "b", "a"])
    assert means.dtype == torch.float32
    assert ids.tolist() == sorted(map(hash_id, "ab"))
    rows, mask, _ = group_by_id(embeds, torch.tensor([1, 1, 1], dtype=torch.int32))
    assert (rows.shape, mask.tolist()) == ((1, 3, 3), [[True] * 3])


def test_opposite_and_zero_vectors_have_a_zero_mean():
    embeds = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]], requires_grad=True)
    means, _ = mean_by_id(embeds, [1, 1, 2])
    means.sum().backward()
    assert means.tolist() == [[0, 0], [0, 0]]
    assert embeds.grad.tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("function", [mean_by_id, group_by_id])
@pytest.mark.parametrize(
    ("embeds", "ids", "error", "message"),
    [
        (torch.ones(2), [1, 2], ValueError, "embeds must have shape (M, D), got (2,)."),
        (torch.ones(2, 2).int(), [1, 2], TypeError, "embeds must be floating point, got torch.int32."),
        (torch.ones(2, 2), [1], ValueError, "ids must have shape (2,), one for each row of the embeddings, got (1,)."),
        (torch.ones(2, 2), torch.ones(2), TypeError, "ids must be integers or strings, got torch.float32."),
    ],
)
def test_errors(function, embeds, ids, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(embeds, ids)
