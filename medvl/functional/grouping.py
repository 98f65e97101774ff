"""Embeddings of texts that belong together, such as the sentences of one report: their mean, or one padded row a group."""

from __future__ import annotations

import torch
from torch import Tensor

from medvl.functional.batch import Ids
from medvl.functional.similarity import l2_normalize
from medvl.utils.distributed import all_gather_with_grad, get_rank, get_world_size, is_distributed
from medvl.utils.tensors import as_ids, as_matrix


def mean_by_id(embeds: Tensor, ids: Ids) -> tuple[Tensor, Tensor]:
    """Normalized mean of the unit vectors that share an id.

    Args:
        embeds: (M, D), scaled to unit length here.
        ids: (M,) integers or strings.

    Returns:
        Unit vectors (R, D) of the R distinct ids, and the ids (R,), in ascending order.

    Raises:
        TypeError: If ``embeds`` is not a floating point tensor, or ids are neither integers nor strings.
        ValueError: If the shapes are inconsistent.

    Example:
        >>> embeds, ids = mean_by_id(torch.eye(3), torch.tensor([5, 2, 5]))
        >>> ids.tolist(), [[round(x, 4) for x in row] for row in embeds.tolist()]
        ([2, 5], [[0.0, 1.0, 0.0], [0.7071, 0.0, 0.7071]])
    """
    embeds, groups, distinct = _groups(embeds, ids)
    sums = embeds.new_zeros(len(distinct), embeds.shape[1]).index_add(0, groups, l2_normalize(embeds))
    return l2_normalize(sums), distinct


def gathered_mean_by_id(embeds: Tensor, ids: Ids) -> tuple[Tensor, Tensor]:
    """:func:`mean_by_id` over the vectors of all processes; each process gets the rows of the ids that it has first.

    The rows of all processes together are those of a single process with all vectors. In a single process it is
    :func:`mean_by_id` itself.
    """
    if not is_distributed():
        return mean_by_id(embeds, ids)
    embeds = as_matrix(embeds, "embeds", "M, D")
    own = as_ids(ids, "ids", len(embeds), embeds.device)
    everyone, ranks = all_gather_with_grad(own), all_gather_with_grad(torch.full_like(own, get_rank()))
    means, distinct = mean_by_id(all_gather_with_grad(embeds), everyone)
    first = torch.full_like(distinct, get_world_size())
    first = first.scatter_reduce(0, torch.searchsorted(distinct, everyone), ranks, "amin")
    mine = first == get_rank()
    return means[mine], distinct[mine]


def group_by_id(embeds: Tensor, ids: Ids) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors that share an id as one row, in the order in which they come, padded with zeros.

    Args:
        embeds: (M, D).
        ids: (M,) integers or strings.

    Returns:
        (R, S, D) for the R distinct ids, S being the most vectors of an id; a mask (R, S), True where there is a vector; and
        the ids (R,), in ascending order.

    Raises:
        TypeError: If ``embeds`` is not a floating point tensor, or ids are neither integers nor strings.
        ValueError: If the shapes are inconsistent.

    Example:
        >>> rows, mask, ids = group_by_id(torch.eye(3), torch.tensor([5, 2, 5]))
        >>> ids.tolist(), mask.tolist(), rows[1].tolist()
        ([2, 5], [[True, False], [True, True]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    """
    embeds, groups, distinct = _groups(embeds, ids)
    order = groups.argsort(stable=True)
    sizes = groups.bincount(minlength=len(distinct))
    place = torch.arange(len(groups), device=groups.device) - (sizes.cumsum(0) - sizes)[groups[order]]
    longest = int(sizes.max()) if len(sizes) else 0
    rows = embeds.new_zeros(len(distinct), longest, embeds.shape[1])
    rows = rows.index_put((groups[order], place), embeds[order])
    mask = torch.arange(longest, device=groups.device) < sizes.unsqueeze(1)
    return rows, mask, distinct


def _groups(embeds: Tensor, ids: Ids) -> tuple[Tensor, Tensor, Tensor]:
    """The vectors, the number of each one's group, and the ids of the groups."""
    embeds = as_matrix(embeds, "embeds", "M, D")
    distinct, groups = as_ids(ids, "ids", len(embeds), embeds.device).unique(return_inverse=True)
    return embeds, groups, distinct
