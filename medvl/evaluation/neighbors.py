"""The nearest neighbors of embeddings by cosine similarity: by FAISS where it is installed, else in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.extras import require_extra

BACKENDS = ("auto", "faiss", "torch")
CHUNK_ROWS = 65_536
"""Candidates that are in memory at a time without FAISS."""

QUERY_ROWS = 256
"""Queries at a time."""

PROPOSALS = 2**22
"""Proposed candidates of all queries at a time."""

MORE = 16
"""Candidates that are found beyond k at first, to tell ties apart; four times as many where they do not suffice."""

Matrix = Tensor | NDArray[Any]
Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""From unit queries (q, D) and a number to the scores and rows (q, number) of the best candidates, the best first."""


@dataclass(frozen=True)
class Neighbors:
    """The nearest candidates of each query, the nearest first.

    Args:
        similarities: cosines (Q, k), float32, computed in float64.
        indices: rows of the candidates (Q, k), int64.
    """

    similarities: Tensor
    indices: Tensor


def nearest_neighbors(query_embeds: Matrix, candidate_embeds: Matrix, k: int, backend: str = "auto") -> Neighbors:
    """Find the k candidates of the highest cosine similarity to each query, exactly.

    A fast search by float32 products proposes candidates. Their cosines are computed in float64 and rounded to float32; ties go
    to the smaller row. More candidates are proposed until the rounding of the search can have left none out, so that the result
    does not depend on the backend.

    Args:
        query_embeds: queries (Q, D), a tensor or array; they need not be unit vectors. A zero vector has similarity 0 to every
            vector.
        candidate_embeds: candidates (M, D). An array that is mapped into memory, such as :func:`load_embeddings` gives, is read
            in chunks by the backend ``"torch"``; FAISS copies all of it.
        k: number of candidates, from 1 to M.
        backend: ``"faiss"``, its exact index of inner products; ``"torch"``, exact products in chunks; ``"auto"``, FAISS where
            it is installed.

    Returns:
        Similarities and rows.

    Raises:
        ValueError: If ``k`` is not from 1 to M, the widths differ, or a query or candidate is not finite.
        MissingExtraError: If ``backend`` is ``"faiss"`` and FAISS is not installed.

    Example:
        >>> texts = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0], [1.0, 0.0]])
        >>> found = nearest_neighbors(torch.tensor([[2.0, 0.0]]), texts, k=3)
        >>> found.indices.tolist(), found.similarities
        ([[2, 3, 1]], tensor([[1.0000, 1.0000, 0.6000]]))
    """
    check_option(backend, "backend", BACKENDS)
    for name, embeds in (("query_embeds", query_embeds), ("candidate_embeds", candidate_embeds)):
        if embeds.ndim != 2:
            raise ValueError(error_message(name, "be a matrix (rows, D)", tuple(embeds.shape)))
    if query_embeds.shape[1] != candidate_embeds.shape[1]:
        received = f"{query_embeds.shape[1]} and {candidate_embeds.shape[1]}"
        raise ValueError(error_message("query_embeds and candidate_embeds", "have the same width D", received))
    check_integer(k, "k", minimum=1)
    if k > len(candidate_embeds):
        raise ValueError(error_message("k", f"be at most the number of candidates, {len(candidate_embeds)}", k))
    if backend == "faiss":
        require_extra("The backend faiss", "faiss")
    by_faiss = backend == "faiss" or (backend == "auto" and find_spec("faiss") is not None)
    search = (_faiss_search if by_faiss else _torch_search)(candidate_embeds)
    similarities = torch.empty(len(query_embeds), k)
    indices = torch.empty(len(query_embeds), k, dtype=torch.int64)
    for start in range(0, len(query_embeds), QUERY_ROWS):
        rows = slice(start, start + QUERY_ROWS)
        queries = _finite("query_embeds", query_embeds[rows])
        similarities[rows], indices[rows] = _nearest_of(queries, candidate_embeds, k, search)
    return Neighbors(similarities, indices)


def _nearest_of(queries: Tensor, candidates: Matrix, k: int, search: Search) -> tuple[Tensor, Tensor]:
    """The k nearest of some queries, with more and more proposals for those that need them."""
    similarities = torch.empty(len(queries), k)
    indices = torch.empty(len(queries), k, dtype=torch.int64)
    # What a product of float32 and the normalization before it can be off, at most.
    tolerance = (queries.shape[1] + 4) * torch.finfo(torch.float32).eps
    left = torch.arange(len(queries))
    number = min(k + MORE, len(candidates))
    while len(left):
        undecided = []
        for rows in left.split(max(1, PROPOSALS // number)):
            scores, proposed = search(F.normalize(queries[rows], dim=1), number)
            proposed = proposed.sort(dim=1).values  # ties then go to the smaller row
            exact = _cosines(queries[rows], candidates, proposed).float()
            order = exact.sort(dim=1, descending=True, stable=True).indices[:, :k]
            similarities[rows], indices[rows] = exact.gather(1, order), proposed.gather(1, order)
            # What was not proposed scores at most as much as the last one that was.
            undecided.append(rows[similarities[rows, -1] <= scores[:, -1] + tolerance])
        if number == len(candidates):
            break
        left, number = torch.cat(undecided), min(4 * number, len(candidates))
    return similarities, indices


def _cosines(queries: Tensor, candidates: Matrix, proposed: Tensor) -> Tensor:
    """Cosines (q, n) of queries (q, D) and of the candidates in rows (q, n), float64."""
    cosines = torch.empty(proposed.shape, dtype=torch.float64)
    for row, query in enumerate(queries.double()):
        for start in range(0, proposed.shape[1], CHUNK_ROWS):
            chosen = proposed[row, start : start + CHUNK_ROWS]
            rows = candidates[chosen] if isinstance(candidates, Tensor) else candidates[chosen.numpy()]
            near = _tensor(rows).double()
            # Not a matrix product, which may add up equal rows in different orders.
            products = (near * query).sum(dim=1)
            lengths = (near * near).sum(dim=1).sqrt() * (query * query).sum().sqrt()
            cosines[row, start : start + CHUNK_ROWS] = products / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    return cosines


def _torch_search(candidates: Matrix) -> Search:
    checked = False

    def search(queries: Tensor, number: int) -> tuple[Tensor, Tensor]:
        nonlocal checked
        best = torch.empty(len(queries), 0)
        rows = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(candidates), CHUNK_ROWS):
            chunk = _tensor(candidates[start : start + CHUNK_ROWS])
            chunk = F.normalize(chunk if checked else _finite("candidate_embeds", chunk), dim=1)
            scores, places = (queries @ chunk.T).topk(min(number, len(chunk)), dim=1)
            best, rows = torch.cat([best, scores], dim=1), torch.cat([rows, places + start], dim=1)
            best, places = best.topk(min(number, best.shape[1]), dim=1)
            rows = rows.gather(1, places)
        checked = True
        return best, rows

    return search


def _faiss_search(candidates: Matrix) -> Search:
    import faiss

    index = faiss.IndexFlatIP(candidates.shape[1])
    for start in range(0, len(candidates), CHUNK_ROWS):
        chunk = _finite("candidate_embeds", candidates[start : start + CHUNK_ROWS])
        index.add(F.normalize(chunk, dim=1).numpy())

    def search(queries: Tensor, number: int) -> tuple[Tensor, Tensor]:
        scores, rows = index.search(queries.numpy(), number)
        return torch.from_numpy(scores), torch.from_numpy(rows)

    return search


def _tensor(rows: Matrix) -> Tensor:
    """Rows of a matrix as float32 on the CPU."""
    rows = torch.from_numpy(np.asarray(rows, dtype=np.float32)) if isinstance(rows, np.ndarray) else rows
    return rows.detach().float().cpu().contiguous()


def _finite(name: str, rows: Matrix) -> Tensor:
    rows = _tensor(rows)
    wrong = int((~rows.isfinite().all(dim=1)).sum())
    if wrong:
        raise ValueError(error_message(name, "be finite", f"{wrong} of {len(rows)} rows that are not"))
    return rows
