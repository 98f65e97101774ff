"""Ranks, recall and precision of retrieval by cosine similarity, in chunks of queries."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_ELEMENTS = 2**22
"""Scores held at one time when ``chunk_size`` is not given (16 MiB of float32)."""

TIE_EPSILONS = 8
"""Cosines closer than this many machine epsilons are ties: a matrix product gives equal candidates scores that far apart."""


def retrieval_ranks(
    query_embeds: Tensor,
    candidate_embeds: Tensor,
    query_ids: Tensor | None = None,
    candidate_ids: Tensor | None = None,
    *,
    positives: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Rank of the best right candidate of each query by cosine similarity, ties counted against oneself.

    With s_qj the cosine of query q and candidate j, P(q) the right candidates and b_q = max_{j in P(q)} s_qj,

        rank_q = 1 + #{j not in P(q): s_qj >= b_q - 8 eps},

    where eps is the machine epsilon of the computation (float64 for float64 inputs, else float32). Other right candidates
    never push a query back. A wrong candidate that scores the same stands before the right one, so a model that maps
    everything to one point gets the last rank and not the first.

    Args:
        query_embeds: queries (Q, D); they need not be unit vectors. A zero vector has cosine 0 with everything.
        candidate_embeds: candidates (M, D).
        query_ids: whole numbers (Q,). A candidate is right where its id is equal. Neither ids nor ``positives``: candidate q
            is the one right answer of query q, and M = Q.
        candidate_ids: whole numbers (M,), given together with ``query_ids``.
        positives: right candidates as a boolean matrix (Q, M), in place of ids.
        chunk_size: queries at one time. The default keeps a block of scores at 16 MiB, so that 100,000 queries
            against 100,000 candidates stay within a few hundred megabytes beside the embeddings.

    Returns:
        Ranks (Q,), int64, from 1 to M. 0 marks a query that has no right candidate; the summaries leave it out.

    Raises:
        ValueError: if shapes disagree, there is no candidate, or an embedding is NaN or infinite.

    Example:
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> texts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> retrieval_ranks(images, texts)
        tensor([1, 2, 2])
        >>> retrieval_ranks(images, texts, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]))
        tensor([1, 1, 1])
        >>> retrieval_ranks(torch.ones(3, 2), torch.ones(3, 2))
        tensor([3, 3, 3])
    """
    # One tensor for all results: small ones kept from each chunk would splinter the memory that the next chunk needs.
    ranks = torch.zeros(len(query_embeds), dtype=torch.int64, device=query_embeds.device)
    for rows, scores, right in _blocks(query_embeds, candidate_embeds, query_ids, candidate_ids, positives, chunk_size):
        ranks[rows] = ranks_from_scores(scores, right, tolerance=TIE_EPSILONS * torch.finfo(scores.dtype).eps)
    return ranks


def ranks_from_scores(scores: Tensor, positives: Tensor, tolerance: float = 0.0) -> Tensor:
    """Rank of the best right candidate of each query in a matrix of scores, ties counted against oneself.

    Args:
        scores: (Q, M), higher is better, any real values.
        positives: right candidates, boolean (Q, M).
        tolerance: a wrong candidate stands before the best right one unless it scores lower by more than this.

    Returns:
        Ranks (Q,), int64, from 1 to M; 0 for a query without a right candidate.

    Raises:
        ValueError: if shapes disagree or a score is NaN.

    Example:
        >>> ranks_from_scores(torch.tensor([[-0.5, -0.2, -0.5]]), torch.tensor([[True, False, False]]))
        tensor([3])
    """
    if scores.ndim != 2 or scores.shape != positives.shape or positives.dtype != torch.bool:
        raise ValueError(
            "scores and positives must be matrices of one shape (Q, M), positives boolean; received "
            f"{tuple(scores.shape)} and {positives.dtype} {tuple(positives.shape)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError(f"scores holds {int(scores.isnan().sum())} NaN; a rank needs numbers")
    if not scores.shape[1]:
        return torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device)
    best = scores.masked_fill(~positives, -torch.inf).amax(dim=1, keepdim=True)
    ahead = (scores >= best - tolerance).logical_and_(~positives).sum(dim=1)
    return torch.where(positives.any(dim=1), ahead + 1, 0)


def precision_at_k(
    query_embeds: Tensor,
    candidate_embeds: Tensor,
    query_ids: Tensor | None = None,
    candidate_ids: Tensor | None = None,
    *,
    k: int,
    positives: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Share of right candidates among the ``k`` nearest of each query, ties counted against oneself.

    Where candidates tie for the last places (their cosines within 8 machine epsilons of the k-th), wrong ones take them
    first.

    Args:
        query_embeds: queries (Q, D).
        candidate_embeds: candidates (M, D).
        query_ids: whole numbers (Q,), for example class numbers; see :func:`retrieval_ranks`.
        candidate_ids: whole numbers (M,).
        k: how many nearest candidates count, from 1 to M.
        positives: right candidates as a boolean matrix (Q, M), in place of ids.
        chunk_size: queries at one time.

    Returns:
        Precision (Q,), float64, from 0 to 1. A query without a right candidate has precision 0.

    Raises:
        ValueError: if ``k`` is not from 1 to M, or as for :func:`retrieval_ranks`.

    Example:
        >>> queries = torch.tensor([[1.0, 0.0]])
        >>> candidates = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.0, 1.0]])
        >>> precision_at_k(queries, candidates, torch.tensor([7]), torch.tensor([7, 7, 1, 7]), k=2)
        tensor([0.5000], dtype=torch.float64)
    """
    if not 1 <= k <= len(candidate_embeds):
        raise ValueError(f"k must be from 1 to the number of candidates, {len(candidate_embeds)}; received {k}")
    shares = torch.zeros(len(query_embeds), dtype=torch.float64, device=query_embeds.device)
    for rows, scores, right in _blocks(query_embeds, candidate_embeds, query_ids, candidate_ids, positives, chunk_size):
        tolerance = TIE_EPSILONS * torch.finfo(scores.dtype).eps
        last = scores.topk(k, dim=1).values[:, -1:]
        above = scores > last + tolerance
        tied = (scores >= last - tolerance) & ~above
        hits = (above & right).sum(dim=1)
        room = k - above.sum(dim=1) - (tied & ~right).sum(dim=1)
        shares[rows] = (hits + torch.minimum(room.clamp(min=0), (tied & right).sum(dim=1))).double() / k
    return shares


def recall_at_k(ranks: Tensor, k: int) -> Tensor:
    """Share of queries whose best right candidate is among the first ``k``.

    Args:
        ranks: (Q,) from :func:`retrieval_ranks`; queries of rank 0 (no right candidate) do not count.
        k: at least 1. Beyond the number of candidates the recall is 1.

    Returns:
        Recall (), float64, from 0 to 1; NaN where no query counts.

    Raises:
        ValueError: if ``k`` is below 1.

    Example:
        >>> recall_at_k(torch.tensor([1, 3, 12, 0]), k=5)
        tensor(0.6667, dtype=torch.float64)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; received {k}")
    return (ranks[ranks > 0] <= k).double().mean()


def median_rank(ranks: Tensor) -> Tensor:
    """Median of the ranks above 0, the mean of the two middle ones for an even number; float64, NaN for none.

    Args:
        ranks: (Q,) from :func:`retrieval_ranks`.

    Returns:
        The median (), float64.

    Example:
        >>> median_rank(torch.tensor([1, 2, 5, 90]))
        tensor(3.5000, dtype=torch.float64)
    """
    counted = ranks[ranks > 0].double().sort().values
    if not len(counted):
        return torch.tensor(torch.nan, dtype=torch.float64)
    return (counted[(len(counted) - 1) // 2] + counted[len(counted) // 2]) / 2


def mean_rank(ranks: Tensor) -> Tensor:
    """Mean of the ranks above 0; float64, NaN for none.

    Args:
        ranks: (Q,) from :func:`retrieval_ranks`.

    Returns:
        The mean (), float64.

    Example:
        >>> mean_rank(torch.tensor([1, 2, 5, 0]))
        tensor(2.6667, dtype=torch.float64)
    """
    return ranks[ranks > 0].double().mean()


def chance_recall_at_k(num_candidates: int, num_positives: Tensor | int, k: int) -> Tensor:
    """Recall at ``k`` of a random order of the candidates, exactly: 1 - C(n - m, k) / C(n, k).

    Args:
        num_candidates: n, at least 1.
        num_positives: m, the right candidates of each query, whole numbers of any shape, from 0 to n.
        k: at least 1.

    Returns:
        The chance level, float64, of the shape of ``num_positives``; average it over queries for the level of a set.

    Raises:
        ValueError: if ``k`` or n is below 1, or m is not from 0 to n.

    Example:
        >>> chance_recall_at_k(100, torch.tensor([1, 2, 0]), k=10)
        tensor([0.1000, 0.1909, 0.0000], dtype=torch.float64)
    """
    positives = torch.as_tensor(num_positives, dtype=torch.float64)
    if num_candidates < 1 or k < 1:
        raise ValueError(f"num_candidates and k must be at least 1; received {num_candidates} and {k}")
    if bool(((positives < 0) | (positives > num_candidates)).any()):
        raise ValueError(f"num_positives must be from 0 to num_candidates, {num_candidates}; received {num_positives}")
    missed = torch.ones_like(positives)
    # C(n - m, k) / C(n, k) as a product of k shares, each the chance that one more draw is wrong as well.
    for drawn in range(min(k, num_candidates)):
        missed = missed * ((num_candidates - positives - drawn).clamp(min=0) / (num_candidates - drawn))
    return 1 - missed


def _blocks(
    query_embeds: Tensor,
    candidate_embeds: Tensor,
    query_ids: Tensor | None,
    candidate_ids: Tensor | None,
    positives: Tensor | None,
    chunk_size: int | None,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield the rows, cosines (q, M) and right candidates (q, M) of one chunk of queries after another."""
    _check_embeds("query_embeds", query_embeds)
    _check_embeds("candidate_embeds", candidate_embeds)
    num_queries, num_candidates = len(query_embeds), len(candidate_embeds)
    if query_embeds.shape[1] != candidate_embeds.shape[1]:
        raise ValueError(
            "query_embeds and candidate_embeds must have one width; received "
            f"{query_embeds.shape[1]} and {candidate_embeds.shape[1]}"
        )
    if not num_candidates:
        raise ValueError("candidate_embeds must hold at least one candidate; received none")
    if positives is not None and (query_ids is not None or candidate_ids is not None):
        raise ValueError("give either positives or query_ids and candidate_ids, not both")
    if (query_ids is None) != (candidate_ids is None):
        raise ValueError("query_ids and candidate_ids must be given together")
    if positives is None and query_ids is None:
        if num_queries != num_candidates:
            raise ValueError(
                "without ids, query_embeds and candidate_embeds must pair up row by row; received "
                f"{num_queries} and {num_candidates} rows"
            )
        query_ids = candidate_ids = torch.arange(num_queries, device=query_embeds.device)
    for name, value, shape in (
        ("query_ids", query_ids, [num_queries]),
        ("candidate_ids", candidate_ids, [num_candidates]),
        ("positives", positives, [num_queries, num_candidates]),
    ):
        if value is not None and list(value.shape) != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}; received {tuple(value.shape)}")
    if chunk_size is None:
        chunk_size = max(1, BLOCK_ELEMENTS // num_candidates)
    elif chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; received {chunk_size}")

    dtype = torch.promote_types(torch.promote_types(query_embeds.dtype, candidate_embeds.dtype), torch.float32)
    candidates = candidate_embeds.to(dtype)
    # Scaling the scores in place of the candidates spares a copy of all embeddings.
    lengths = torch.linalg.vector_norm(candidates, dim=1).clamp(min=torch.finfo(dtype).tiny)
    buffer = torch.empty(min(chunk_size, num_queries), num_candidates, dtype=dtype, device=candidates.device)
    for start in range(0, num_queries, chunk_size):
        rows = slice(start, min(start + chunk_size, num_queries))
        queries = F.normalize(query_embeds[rows].to(dtype), dim=1)
        # The caller is done with one chunk's scores when it asks for the next.
        scores = buffer[: len(queries)]
        torch.mm(queries.detach(), candidates.detach().T, out=scores)
        scores /= lengths.detach()
        if positives is not None:
            yield rows, scores, positives[rows].bool()
        elif query_ids is not None and candidate_ids is not None:
            yield rows, scores, query_ids[rows, None] == candidate_ids[None, :]


def _check_embeds(name: str, embeds: Tensor) -> None:
    if embeds.ndim != 2 or not embeds.is_floating_point():
        raise ValueError(f"{name} must be a float matrix (rows, D); received {embeds.dtype} {tuple(embeds.shape)}")
    if not embeds.numel():
        return
    # The extremes of a row show NaN and infinity without a copy of all embeddings.
    low, high = embeds.aminmax(dim=1)
    wrong = ~(low.isfinite() & high.isfinite())
    if bool(wrong.any()):
        raise ValueError(f"{name} holds NaN or infinite values in {int(wrong.sum())} of {len(embeds)} rows")
