"""Retrieval ranks against loops written from the definition, and the traps of ties and several positives."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
import torch

from medvl.functional.retrieval import (
    chance_recall_at_k,
    mean_rank,
    median_rank,
    precision_at_k,
    ranks_from_scores,
    recall_at_k,
    retrieval_ranks,
)


def naive_rank(scores, right):
    best = max((s for s, r in zip(scores, right, strict=True) if r), default=None)
    if best is None:
        return 0
    return 1 + sum(1 for s, r in zip(scores, right, strict=True) if not r and s >= best)


def naive_precision(scores, right, k):
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], right[j]))
    return sum(right[j] for j in order[:k]) / k


def few_valued(rows, generator):
    """Vectors on the axes and diagonals of a small grid: many exact ties, many negative cosines."""
    values = torch.randint(-1, 2, (rows, 3), generator=generator).double()
    return torch.where((values == 0).all(1, keepdim=True), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), values)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_ranks_and_precision_equal_a_loop_with_ties_and_several_positives(seed, chunk_size):
    generator = torch.Generator().manual_seed(seed)
    queries, candidates = few_valued(13, generator), few_valued(29, generator)
    query_ids = torch.randint(0, 9, (13,), generator=generator)
    candidate_ids = torch.randint(0, 9, (29,), generator=generator)
    cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(candidates).T
    # Rounding to 12 digits makes mathematically equal cosines equal for the loop.
    scores = [[round(s, 12) for s in row] for row in cosines.tolist()]
    right = (query_ids[:, None] == candidate_ids).tolist()
    ranks = retrieval_ranks(queries, candidates, query_ids, candidate_ids, chunk_size=chunk_size)
    assert ranks.tolist() == [naive_rank(s, r) for s, r in zip(scores, right, strict=True)]
    for k in (1, 5, 29):
        precision = precision_at_k(queries, candidates, query_ids, candidate_ids, k=k, chunk_size=chunk_size)
        assert precision.tolist() == [naive_precision(s, r, k) for s, r in zip(scores, right, strict=True)]


def test_a_boolean_matrix_says_the_same_as_ids():
    torch.manual_seed(0)
    queries, candidates = torch.randn(20, 8), torch.randn(31, 8)
    query_ids, candidate_ids = torch.randint(0, 6, (20,)), torch.randint(0, 6, (31,))
    positives = query_ids[:, None] == candidate_ids
    by_ids = retrieval_ranks(queries, candidates, query_ids, candidate_ids)
    assert torch.equal(by_ids, retrieval_ranks(queries, candidates, positives=positives))
    assert torch.equal(
        precision_at_k(queries, candidates, query_ids, candidate_ids, k=7),
        precision_at_k(queries, candidates, positives=positives, k=7),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 7, 33, 200])
def test_a_collapsed_model_gets_the_last_rank(dtype, rows):
    # A matrix product gives equal columns values that differ in the last bit, which must not help the model.
    embeds = torch.randn(1, 129, generator=torch.Generator().manual_seed(rows)).expand(rows, -1).contiguous().to(dtype)
    assert retrieval_ranks(embeds, embeds).tolist() == [rows] * rows
    ids = torch.arange(rows)
    if rows > 1:
        assert precision_at_k(embeds, embeds, ids, ids, k=rows - 1).tolist() == [0.0] * rows


@pytest.mark.parametrize("queries", [1, 200])
def test_cosines_tie_within_eight_epsilons(queries):
    query = torch.tensor([[1.0, 0.0]]).expand(queries, 2)
    for sine, tie in ((1.2e-3, True), (2e-3, False)):
        candidates = torch.tensor([[1.0, 0.0], [1.0, sine]])
        positives = torch.tensor([[True, False]]).expand(queries, 2)
        ranks = retrieval_ranks(query, candidates, positives=positives)
        assert ranks.tolist() == [2 if tie else 1] * queries
        precision = precision_at_k(query, candidates, positives=positives, k=1)
        assert precision.tolist() == [0.0 if tie else 1.0] * queries


def test_a_candidate_just_above_the_last_place_ties_for_it_too():
    for sine, expected in ((1.2e-3, 0.0), (2e-3, 0.5)):
        candidates = torch.tensor([[1.0, 0.0], [1.0, sine], [1.0, sine]])
        positives = torch.tensor([[True, False, False]])
        assert precision_at_k(torch.tensor([[1.0, 0.0]]), candidates, positives=positives, k=2).item() == expected


def test_the_length_of_the_vectors_does_not_matter():
    torch.manual_seed(1)
    images, texts = torch.randn(17, 4), torch.randn(17, 4)
    scaled = texts * torch.linspace(0.01, 100, 17)[:, None]
    assert torch.equal(retrieval_ranks(images, texts), retrieval_ranks(images * 50, scaled))


def test_positives_that_score_negative_are_ranked_by_their_score():
    scores = torch.tensor([[-0.9, -0.1, -0.5], [-0.2, -0.3, -0.4]])
    assert ranks_from_scores(scores, torch.eye(3, dtype=torch.bool)[:2]).tolist() == [3, 2]


def test_other_positives_do_not_push_back():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    assert ranks_from_scores(scores, torch.tensor([[False, True, True, True]])).tolist() == [2]


def test_a_query_without_positives_has_rank_zero_and_counts_in_no_summary():
    ranks = ranks_from_scores(torch.zeros(2, 3), torch.tensor([[False] * 3, [True, False, False]]))
    assert ranks.tolist() == [0, 3]
    assert recall_at_k(ranks, 3) == 1
    assert mean_rank(ranks) == 3
    assert median_rank(ranks) == 3
    nothing = torch.zeros(4, dtype=torch.int64)
    assert all(math.isnan(value) for value in (recall_at_k(nothing, 1), mean_rank(nothing), median_rank(nothing)))


def test_summaries_of_ranks_worked_by_hand():
    ranks = torch.tensor([1, 1, 4, 11])
    assert [recall_at_k(ranks, k).item() for k in (1, 5, 10, 50)] == [0.5, 0.75, 0.75, 1.0]
    assert (median_rank(ranks), mean_rank(ranks)) == (2.5, 4.25)
    assert median_rank(ranks[:3]) == 1
    assert [median_rank(torch.tensor(r)).item() for r in ([7], [2, 9], [1, 4, 9], [1, 2, 6, 9])] == [7, 5.5, 4, 4]


@pytest.mark.parametrize(("n", "m", "k"), [(20, 1, 5), (20, 3, 5), (20, 3, 1), (7, 5, 3), (5, 1, 10), (5, 0, 5)])
def test_chance_level_is_the_formula_and_what_random_orders_give(n, m, k):
    chance = chance_recall_at_k(n, m, k).item()
    kk = min(k, n)
    assert chance == pytest.approx(1 - math.comb(n - m, kk) / math.comb(n, kk), abs=1e-12)
    scores = torch.rand(20_000, n, generator=torch.Generator().manual_seed(3))
    ranks = ranks_from_scores(scores, (torch.arange(n) < m).expand(20_000, n))
    assert ((ranks > 0) & (ranks <= k)).double().mean().item() == pytest.approx(chance, abs=0.015)


GOOD = torch.arange(12.0).reshape(3, 4)
PAIR = "query_embeds and candidate_embeds"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_ranks(torch.cat([GOOD[:2], torch.full((1, 4), torch.nan)]), GOOD),
         "query_embeds must be finite, got NaN or infinite values in 1 of 3 rows."),
        (lambda: retrieval_ranks(GOOD, torch.cat([GOOD[:1], torch.full((2, 4), torch.inf)])),
         "candidate_embeds must be finite, got NaN or infinite values in 2 of 3 rows."),
        (lambda: retrieval_ranks(torch.cat([GOOD[:2], torch.tensor([[1.0, 1.0, 1.0, torch.inf]])]), GOOD),
         "query_embeds must be finite, got NaN or infinite values in 1 of 3 rows."),
        (lambda: retrieval_ranks(torch.cat([GOOD[:2], torch.tensor([[1.0, 1.0, 1.0, -torch.inf]])]), GOOD),
         "query_embeds must be finite, got NaN or infinite values in 1 of 3 rows."),
        (lambda: retrieval_ranks(GOOD, GOOD[:, :2]), f"{PAIR} must have the same width D, got 4 and 2."),
        (lambda: retrieval_ranks(GOOD, GOOD[:2]),
         f"{PAIR} must have the same number of rows if there are no ids, got 3 and 2."),
        (lambda: retrieval_ranks(GOOD, GOOD, torch.arange(3), torch.arange(2)),
         "candidate_ids must have shape (3,), got (2,)."),
        (lambda: retrieval_ranks(GOOD, GOOD, torch.arange(4), torch.arange(3)), "query_ids must have shape (3,), got (4,)."),
        (lambda: retrieval_ranks(GOOD, GOOD, positives=torch.eye(2).bool()), "positives must have shape (3, 3), got (2, 2)."),
        (lambda: retrieval_ranks(GOOD, GOOD, torch.arange(3)),
         "query_ids and candidate_ids must be given together, got one of them."),
        (lambda: retrieval_ranks(GOOD, GOOD, torch.arange(3), torch.arange(3), positives=torch.eye(3).bool()),
         "positives must be given without query_ids and candidate_ids, got both."),
        (lambda: retrieval_ranks(GOOD, GOOD, candidate_ids=torch.arange(3), positives=torch.eye(3).bool()),
         "positives must be given without query_ids and candidate_ids, got both."),
        (lambda: retrieval_ranks(GOOD, GOOD[:0]), "candidate_embeds must hold at least one candidate, got none."),
        (lambda: retrieval_ranks(GOOD, GOOD, chunk_size=0), "chunk_size must be at least 1, got 0."),
        (lambda: precision_at_k(GOOD, GOOD, k=4), "k must be from 1 to the number of candidates, 3, got 4."),
        (lambda: precision_at_k(GOOD, GOOD, k=0), "k must be from 1 to the number of candidates, 3, got 0."),
        (lambda: recall_at_k(torch.tensor([1]), 0), "k must be at least 1, got 0."),
        (lambda: ranks_from_scores(torch.tensor([[torch.nan, 1.0]]), torch.tensor([[True, False]])),
         "scores must not be NaN, got 1 NaN."),
        (lambda: ranks_from_scores(torch.ones(2, 3), torch.ones(2, 3)),
         "scores and positives must be matrices of one shape (Q, M), positives boolean, got (2, 3) and torch.float32 (2, 3)."),
        (lambda: ranks_from_scores(torch.ones(2, 3), torch.ones(3, 2).bool()),
         "scores and positives must be matrices of one shape (Q, M), positives boolean, got (2, 3) and torch.bool (3, 2)."),
        (lambda: ranks_from_scores(torch.ones(2), torch.ones(2).bool()),
         "scores and positives must be matrices of one shape (Q, M), positives boolean, got (2,) and torch.bool (2,)."),
        (lambda: retrieval_ranks(torch.ones(3, 4, dtype=torch.int64), GOOD),
         "query_embeds must be a floating point matrix (rows, D), got torch.int64 (3, 4)."),
        (lambda: retrieval_ranks(GOOD, torch.ones(3)),
         "candidate_embeds must be a floating point matrix (rows, D), got torch.float32 (3,)."),
        (lambda: chance_recall_at_k(5, 6, 1), "num_positives must be from 0 to num_candidates, 5, got 6."),
        (lambda: chance_recall_at_k(5, -1, 1), "num_positives must be from 0 to num_candidates, 5, got -1."),
        (lambda: chance_recall_at_k(0, 0, 1), "num_candidates and k must be at least 1, got 0 and 1."),
        (lambda: chance_recall_at_k(1, 0, 0), "num_candidates and k must be at least 1, got 1 and 0."),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_limits_of_k_and_of_positives_are_allowed():
    assert precision_at_k(GOOD, GOOD, k=3).tolist() == pytest.approx([1 / 3] * 3)
    assert precision_at_k(GOOD + 1, GOOD + 1, k=1).shape == (3,)
    assert recall_at_k(torch.tensor([1, 2]), 1).item() == 0.5
    assert chance_recall_at_k(1, 1, 1).item() == 1
    assert chance_recall_at_k(3, torch.tensor([0, 3]), 1).tolist() == [0, 1]
    assert retrieval_ranks(torch.eye(3), torch.eye(3), chunk_size=1).tolist() == [1, 1, 1]


def test_dtypes_of_ranks_and_summaries():
    ranks = retrieval_ranks(torch.eye(3), torch.eye(3))
    assert ranks.dtype == ranks_from_scores(torch.eye(3), torch.eye(3).bool()).dtype == torch.int64
    nothing = torch.zeros(2, dtype=torch.int64)
    for values in (ranks, nothing):
        summaries = recall_at_k(values, 1), mean_rank(values), median_rank(values)
        assert {value.dtype for value in summaries} == {torch.float64}
    assert chance_recall_at_k(3, 1, 1).dtype == chance_recall_at_k(3, torch.tensor([1]), 1).dtype == torch.float64
    assert precision_at_k(torch.eye(3), torch.eye(3), k=1).dtype == torch.float64


def test_no_candidates_give_rank_zero():
    ranks = ranks_from_scores(torch.ones(2, 0), torch.ones(2, 0).bool())
    assert (ranks.tolist(), ranks.dtype) == ([0, 0], torch.int64)


def test_no_queries_give_no_ranks():
    assert retrieval_ranks(torch.zeros(0, 4), torch.ones(3, 4), torch.zeros(0), torch.arange(3)).shape == (0,)


def test_memory_is_bound_by_the_chunk(peak_code):
    # 20,000 x 20,000 float32 scores alone would be 1.6 GB; with bounded chunks the peak grows by far less.
    code = (
        "import torch\n"
        "from medvl.functional.retrieval import retrieval_ranks\n"
        "x = torch.randn(20_000, 8)\n"
        "retrieval_ranks(x[:10], x[:10])\n"
        "before = peak()\n"
        "retrieval_ranks(x, x)\n"
        "print((peak() - before) / 1024)\n"
    )
    out = subprocess.run([sys.executable, "-c", peak_code + code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 300


def test_precision_and_recall_equal_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    torch.manual_seed(2)
    queries, candidates = torch.randn(12, 6), torch.randn(40, 6)
    query_ids, candidate_ids = torch.randint(0, 5, (12,)), torch.randint(0, 5, (40,))
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], candidates[None], dim=2)
    ranks = retrieval_ranks(queries, candidates, query_ids, candidate_ids)
    for k in (1, 5, 10):
        precision = precision_at_k(queries, candidates, query_ids, candidate_ids, k=k)
        for row in range(12):
            right = query_ids[row] == candidate_ids
            expected = functional.retrieval_precision(cosines[row], right, top_k=k)
            assert precision[row].item() == pytest.approx(expected.item())
            assert (ranks[row] <= k) == bool(functional.retrieval_hit_rate(cosines[row], right, top_k=k))
