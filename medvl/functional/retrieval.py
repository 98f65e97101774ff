"""Ranks, recall and precision of retrieval by cosine similarity, in chunks of queries."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.checks import check_integer, error_message

BLOCK_ELEMENTS = 2**22
"""Scores held at a time if ``chunk_size`` is not given (16 MiB of float32)."""

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
    """Rank of the best correct candidate of each query by cosine similarity; ties are ranked pessimistically.

    With s_qj the cosine of query q and candidate j, P(q) the correct candidates and b_q = max_{j in P(q)} s_qj::

        rank_q = 1 + #{j not in P(q): s_qj >= b_q - 8 eps},

    where eps is the machine epsilon of the computation (float64 for float64 inputs, else float32). Other correct candidates
    never lower a rank. An incorrect candidate with the same score ranks before the correct one, so a model that maps
    everything to one point gets the last rank and not the first.

    Args:
        query_embeds: queries (Q, D); they need not be unit vectors. A zero vector has cosine 0 to every vector.
        candidate_embeds: candidates (M, D).
        query_ids: integers (Q,). A candidate is correct if its id is equal. Without ids and ``positives``, candidate q is the
            only correct answer of query q, and M = Q.
        candidate_ids: integers (M,), given together with ``query_ids``.
        positives: correct candidates as a boolean matrix (Q, M), in place of ids.
        chunk_size: queries at a time. The default keeps a block of scores at 16 MiB, so that 100,000 queries
            against 100,000 candidates stay within a few hundred megabytes beside the embeddings.

    Returns:
        Ranks (Q,), int64, from 1 to M. 0 marks a query without a correct candidate; the summaries leave it out.

    Raises:
        ValueError: If the shapes are inconsistent, there is no candidate, or an embedding is NaN or infinite.

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
    # One tensor for all results: small ones kept from each chunk would fragment the memory that the next chunk needs.
    ranks = torch.zeros(len(query_embeds), dtype=torch.int64, device=query_embeds.device)
    for rows, scores, right in _blocks(query_embeds, candidate_embeds, query_ids, candidate_ids, positives, chunk_size):
        ranks[rows] = ranks_from_scores(scores, right, tolerance=TIE_EPSILONS * torch.finfo(scores.dtype).eps)
    return ranks


def ranks_from_scores(scores: Tensor, positives: Tensor, tolerance: float = 0.0) -> Tensor:
    """Rank of the best correct candidate of each query in a matrix of scores; ties are ranked pessimistically.

    Args:
        scores: (Q, M), higher is better, any real values.
        positives: correct candidates, boolean (Q, M).
        tolerance: an incorrect candidate ranks before the best correct one unless it scores lower by more than this.

    Returns:
        Ranks (Q,), int64, from 1 to M; 0 for a query without a correct candidate.

    Raises:
        ValueError: If the shapes are inconsistent or a score is NaN.

    Example:
        >>> ranks_from_scores(torch.tensor([[-0.5, -0.2, -0.5]]), torch.tensor([[True, False, False]]))
        tensor([3])
    """
    if scores.ndim != 2 or scores.shape != positives.shape or positives.dtype != torch.bool:
        received = f"{tuple(scores.shape)} and {positives.dtype} {tuple(positives.shape)}"
        expected = "be matrices of one shape (Q, M), positives boolean"
        raise ValueError(error_message("scores and positives", expected, received))
    if bool(scores.isnan().any()):
        raise ValueError(error_message("scores", "not be NaN", f"{int(scores.isnan().sum())} NaN"))
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
    """Share of correct candidates among the ``k`` nearest of each query; ties are ranked pessimistically.

    If candidates tie for the last places (their cosines within 8 machine epsilons of the k-th), incorrect ones take them
    first.

    Args:
        query_embeds: queries (Q, D).
        candidate_embeds: candidates (M, D).
        query_ids: integers (Q,), for example class numbers; as in :func:`retrieval_ranks`.
        candidate_ids: integers (M,).
        k: number of nearest candidates, from 1 to M.
        positives: correct candidates as a boolean matrix (Q, M), in place of ids.
        chunk_size: queries at a time.

    Returns:
        Precision (Q,), float64, from 0 to 1. A query without a correct candidate has precision 0.

    Raises:
        ValueError: If ``k`` is not from 1 to M, and as :func:`retrieval_ranks` does.

    Example:
        >>> queries = torch.tensor([[1.0, 0.0]])
        >>> candidates = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.0, 1.0]])
        >>> precision_at_k(queries, candidates, torch.tensor([7]), torch.tensor([7, 7, 1, 7]), k=2)
        tensor([0.5000], dtype=torch.float64)
    """
    if not 1 <= k <= len(candidate_embeds):
        expected = f"be from 1 to the number of candidates, {len(candidate_embeds)}"
        raise ValueError(error_message("k", expected, k))
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
    """Share of queries whose best correct candidate is among the first ``k``.

    Args:
        ranks: (Q,) from :func:`retrieval_ranks`; queries of rank 0 (no correct candidate) do not count.
        k: at least 1. Beyond the number of candidates the recall is 1.

    Returns:
        Recall (), float64, from 0 to 1; NaN if no query counts.

    Raises:
        ValueError: If ``k`` is below 1.

    Example:
        >>> recall_at_k(torch.tensor([1, 3, 12, 0]), k=5)
        tensor(0.6667, dtype=torch.float64)
    """
    check_integer(k, "k", minimum=1)
    return (ranks[ranks > 0] <= k).double().mean()


def median_rank(ranks: Tensor) -> Tensor:
    """Median of the ranks above 0, the mean of the two middle ones for an even number; float64, NaN without any.

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
    """Mean of the ranks above 0; float64, NaN without any.

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
    """Expected recall at ``k`` of a random order of the candidates: 1 - C(n - m, k) / C(n, k).

    Args:
        num_candidates: n, at least 1.
        num_positives: m, the correct candidates of each query, integers of any shape, from 0 to n.
        k: at least 1.

    Returns:
        The chance level, float64, of the shape of ``num_positives``; its mean over queries is the chance level of a set.

    Raises:
        ValueError: If ``k`` or n is below 1, or m is not from 0 to n.

    Example:
        >>> chance_recall_at_k(100, torch.tensor([1, 2, 0]), k=10)
        tensor([0.1000, 0.1909, 0.0000], dtype=torch.float64)
    """
    positives = torch.as_tensor(num_positives, dtype=torch.float64)
    if num_candidates < 1 or k < 1:
        raise ValueError(error_message("num_candidates and k", "be at least 1", f"{num_candidates} and {k}"))
    if bool(((positives < 0) | (positives > num_candidates)).any()):
        raise ValueError(
            error_message("num_positives", f"be from 0 to num_candidates, {num_candidates}", num_positives)
        )
    missed = torch.ones_like(positives)
    # C(n - m, k) / C(n, k) as a product of k factors, each the probability that one more draw is incorrect as well.
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
    """Yield the rows, cosines (q, M) and correct candidates (q, M) of one chunk of queries after another."""
    _check_embeds("query_embeds", query_embeds)
    _check_embeds("candidate_embeds", candidate_embeds)
    num_queries, num_candidates = len(query_embeds), len(candidate_embeds)
    if query_embeds.shape[1] != candidate_embeds.shape[1]:
        received = f"{query_embeds.shape[1]} and {candidate_embeds.shape[1]}"
        raise ValueError(error_message("query_embeds and candidate_embeds", "have the same width D", received))
    if not num_candidates:
        raise ValueError(error_message("candidate_embeds", "hold at least one candidate", "none"))
    if positives is not None and (query_ids is not None or candidate_ids is not None):
        raise ValueError(error_message("positives", "be given without query_ids and candidate_ids", "both"))
    if (query_ids is None) != (candidate_ids is None):
        raise ValueError(error_message("query_ids and candidate_ids", "be given together", "one of them"))
    if positives is None and query_ids is None:
        if num_queries != num_candidates:
            expected = "have the same number of rows if there are no ids"
            received = f"{num_queries} and {num_candidates}"
            raise ValueError(error_message("query_embeds and candidate_embeds", expected, received))
        query_ids = candidate_ids = torch.arange(num_queries, device=query_embeds.device)
    for name, value, shape in (
        ("query_ids", query_ids, [num_queries]),
        ("candidate_ids", candidate_ids, [num_candidates]),
        ("positives", positives, [num_queries, num_candidates]),
    ):
        if value is not None and list(value.shape) != shape:
            raise ValueError(error_message(name, f"have shape {tuple(shape)}", tuple(value.shape)))
    if chunk_size is None:
        chunk_size = max(1, BLOCK_ELEMENTS // num_candidates)
    check_integer(chunk_size, "chunk_size", minimum=1)

    dtype = torch.promote_types(torch.promote_types(query_embeds.dtype, candidate_embeds.dtype), torch.float32)
    candidates = candidate_embeds.to(dtype)
    # Scaling the scores instead of the candidates saves a copy of all embeddings.
    lengths = torch.linalg.vector_norm(candidates, dim=1).clamp(min=torch.finfo(dtype).tiny)
    buffer = torch.empty(min(chunk_size, num_queries), num_candidates, dtype=dtype, device=candidates.device)
    for start in range(0, num_queries, chunk_size):
        rows = slice(start, min(start + chunk_size, num_queries))
        queries = F.normalize(query_embeds[rows].to(dtype), dim=1)
        # The caller has finished with one chunk's scores when it asks for the next.
        scores = buffer[: len(queries)]
        torch.mm(queries.detach(), candidates.detach().T, out=scores)
        scores /= lengths.detach()
        if positives is not None:
            yield rows, scores, positives[rows].bool()
        elif query_ids is not None and candidate_ids is not None:
            yield rows, scores, query_ids[rows, None] == candidate_ids[None, :]


def _check_embeds(name: str, embeds: Tensor) -> None:
    if embeds.ndim != 2 or not embeds.is_floating_point():
        received = f"{embeds.dtype} {tuple(embeds.shape)}"
        raise ValueError(error_message(name, "be a floating point matrix (rows, D)", received))
    if not embeds.numel():
        return
    # The extremes of a row show NaN and infinity without a copy of all embeddings.
    low, high = embeds.aminmax(dim=1)
    wrong = ~(low.isfinite() & high.isfinite())
    if bool(wrong.any()):
        received = f"NaN or infinite values in {int(wrong.sum())} of {len(embeds)} rows"
        raise ValueError(error_message(name, "be finite", received))
