"""Entropic optimal transport between sets of unequal size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medvl.utils.checks import check_integer, check_option, check_positive, check_type, error_message
from medvl.utils.tensors import as_float, as_plain, wide_dtype

GRADIENTS = ("exact", "constant")

# Scalings between two Newton steps: few at first, since most plans need no more.
FIRST_ROUND, LONGEST_ROUND = 4, 32

# The logarithm of a factor above which it is absorbed into the kernel.
LARGEST_FACTOR = 5.0


def sinkhorn(
    cost: Tensor,
    epsilon: float = 0.05,
    row_mask: Tensor | None = None,
    column_mask: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 2000,
    gradient: str = "exact",
) -> Tensor:
    """Plan of entropic optimal transport with uniform marginals, for a batch of cost matrices at once.

    T = argmin_T <T, C> + epsilon sum T (log T - 1), with T 1 = a and T' 1 = b uniform over what the masks keep
    (Cuturi, "Sinkhorn Distances", NeurIPS 2013). The potentials are kept as logarithms and the scaling runs on a kernel
    that they have already been absorbed into (Schmitzer, "Stabilized Sparse Scaling Algorithms", SIAM J. Sci. Comput.
    2019), so that small ``epsilon`` neither overflows nor underflows and an iteration needs no exponential. Newton steps
    on the shorter side's potentials in between make it converge where scaling alone would take thousands.

    Args:
        cost: (..., P, S), floating point.
        epsilon: entropic regularization, above 0, in units of the cost; smaller values give sharper plans and take longer.
        row_mask: (..., P), True keeps; broadcasts over the leading axes. A masked row or column carries no mass.
        column_mask: (..., S), True keeps.
        tolerance: iteration stops when every sum over the longer axis is within this relative distance of its
            marginal (the others are exact to rounding). float32 reaches 1e-6.
        max_iterations: maximum number of scalings, at least 1.
        gradient: ``"exact"`` differentiates the plan itself, through the equations that define it rather than through
            the iterations: the gradient that unrolled iterations converge to, in the memory of one plan.
            ``"constant"`` treats the plan as a constant and gives ``cost`` no gradient.

    Returns:
        (..., P, S), sums to 1; all 0 where a mask keeps nothing.

    Raises:
        TypeError: If the cost is not a floating point tensor, or a mask is not a tensor.
        ValueError: If the cost has fewer than two axes, the masks' shapes are inconsistent with it, or an option is out of
            its range.

    Example:
        >>> plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]), epsilon=0.1)
        >>> [[round(t, 3) for t in row] for row in plan.tolist()]
        [[0.333, 0.0], [0.0, 0.333], [0.167, 0.167]]
    """
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        received = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
        raise TypeError(error_message("cost", "be a floating point tensor", received))
    if cost.ndim < 2:
        raise ValueError(error_message("cost", "have shape (..., P, S)", tuple(cost.shape)))
    check_positive(epsilon, "epsilon")
    check_positive(tolerance, "tolerance")
    check_integer(max_iterations, "max_iterations", minimum=1)
    check_option(gradient, "gradient", GRADIENTS)
    rows = _marginal(cost, row_mask, -2, "row_mask")
    columns = _marginal(cost, column_mask, -1, "column_mask")
    if not cost.numel():
        return torch.zeros_like(as_float(cost))
    with torch.autocast(cost.device.type, enabled=False):
        scores = as_float(cost).reshape(-1, *cost.shape[-2:]) / -epsilon
        scores = scores if gradient == "exact" else scores.detach()
        # If one side has no mass, the other's has nowhere to go.
        rows = rows * (columns.sum(-1, keepdim=True) > 0)
        columns = columns * (rows.sum(-1, keepdim=True) > 0)
        # The linear systems are over columns: let these be the shorter side.
        if cost.shape[-2] >= cost.shape[-1]:
            plan = _Plan.apply(scores, rows, columns, tolerance, max_iterations)
        else:
            plan = _Plan.apply(scores.mT, columns, rows, tolerance, max_iterations).mT
    return plan.reshape(cost.shape)


def _marginal(cost: Tensor, mask: Tensor | None, axis: int, name: str) -> Tensor:
    shape = (*cost.shape[:-2], cost.shape[axis])
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=cost.device)
    else:
        check_type(mask, name, Tensor)
        try:
            mask = as_plain(mask).to(torch.bool).expand(shape)
        except RuntimeError:
            expected = f"have shape {shape} or broadcast to it"
            raise ValueError(error_message(name, expected, tuple(mask.shape))) from None
    weights = as_float(mask.to(cost.dtype)).reshape(cost.shape[:-2].numel(), shape[-1])
    return weights / weights.sum(-1, keepdim=True).clamp_min(1)


class _Plan(torch.autograd.Function):
    """exp(f_p + g_s + score_ps) with the given marginals; scores (B, P, S), marginals (B, P) and (B, S)."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, rows: Tensor, columns: Tensor, tolerance: float, max_iterations: int
    ) -> Tensor:
        plan = _iterate(scores, rows, columns, tolerance, max_iterations)
        ctx.save_for_backward(plan)
        return plan

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The plan's differential is T (df_p + dg_s + dscore_ps), where df and dg keep the marginals fixed. With
        # H = T grad, the adjoint of that is H - T (u_p + w_s), where u and w solve
        #     diag(a) u + T w = H 1   and   T' u + diag(b) w = H' 1.
        (plan,) = ctx.saved_tensors
        weighted = plan * grad
        tiny = torch.finfo(plan.dtype).tiny
        rows = plan.sum(2).clamp_min(tiny)
        row_mean = weighted.sum(2) / rows
        # u eliminated, w is left with the Laplacian of a graph between columns that share rows. Built from its edges,
        # it keeps the digits of columns that hardly share any.
        edges = _edges(plan, rows)
        target = (weighted - plan * row_mean.unsqueeze(2)).sum(1)
        w = _solve_laplacian(edges, plan.sum(1), target)
        u = row_mean - (plan @ w.unsqueeze(2)).squeeze(2) / rows
        return weighted.sub_(plan * (u.unsqueeze(2) + w.unsqueeze(1))), None, None, None, None


def _solve_laplacian(edges: Tensor, masses: Tensor, target: Tensor) -> Tensor:
    """w with (diag(edges 1) - edges) w = target and masses.w = 0, in float64 where there is one."""
    wide = wide_dtype(edges.device)
    edges, masses = edges.to(wide), masses.to(wide)
    # A vector that is constant over columns without a shared row is in the null space; the last term fixes it, so that
    # it is not noise. Columns without mass get a 1, hence w = 0.
    diagonal = edges.sum(2) + 1e-12 * masses + (masses == 0)
    matrix = torch.diag_embed(diagonal) - edges + masses.unsqueeze(2) * masses.unsqueeze(1)
    return torch.linalg.solve(matrix, target.to(wide)).to(target.dtype)


def _iterate(scores: Tensor, rows: Tensor, columns: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    row_kept, column_kept = rows > 0, columns > 0
    scores = scores.masked_fill(~(row_kept.unsqueeze(2) & column_kept.unsqueeze(1)), -torch.inf)
    # One update of each kind on the logarithms: afterwards no row or column of the kernel has underflowed.
    f = (rows.log() - scores.logsumexp(2)).where(row_kept, 0.0)
    g = (columns.log() - (scores + f.unsqueeze(2)).logsumexp(1)).where(column_kept, 0.0)
    v, kernel, done, length = torch.ones_like(columns), None, 0, FIRST_ROUND
    while True:
        if kernel is None:
            kernel = (scores + f.unsqueeze(2)).add_(g.unsqueeze(1)).exp_()
            kernel_t = kernel.transpose(1, 2).contiguous()
        length = min(length, max_iterations - done)
        for _ in range(length):
            u, received = _scale_rows(v, kernel, kernel_t, rows)
            v = (columns / received).where(column_kept, 0.0)
        done, length = done + length, min(2 * length, LONGEST_ROUND)
        u, received = _scale_rows(v, kernel, kernel_t, rows)
        plan = kernel * u.unsqueeze(2) * v.unsqueeze(1)
        error = _column_error(received * v, columns)
        if done >= max_iterations or not bool((error > tolerance).any()):
            return plan
        # Scaling alone converges slowly if epsilon is small. A Newton step of the columns' potentials, which are few,
        # converges at once near the solution, and is rejected elsewhere.
        edges = _edges(plan, rows)
        step = _solve_laplacian(edges, columns, columns - received * v)
        proposed = v * step.clamp(-10, 10).exp()
        better = _column_error(_scale_rows(proposed, kernel, kernel_t, rows)[1] * proposed, columns) < error
        v = proposed.where(better.unsqueeze(1), v)
        # Large factors are absorbed before they overflow; small ones are not, since adding them to a large logarithm
        # would lose their digits.
        if max(_spread(u), _spread(v)) > LARGEST_FACTOR:
            f = (f + u.log()).where(row_kept, 0.0)
            g = (g + v.log()).where(column_kept, 0.0)
            v, kernel = torch.ones_like(columns), None


def _scale_rows(v: Tensor, kernel: Tensor, kernel_t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows' factors that make their sums exact, and what each column then receives before its own factor."""
    tiny = torch.finfo(v.dtype).tiny
    u = rows / _product(v, kernel_t).clamp_min(tiny)
    return u, _product(u, kernel).clamp_min(tiny)


def _column_error(sums: Tensor, columns: Tensor) -> Tensor:
    """(B,), the largest relative distance of a column's sum from its marginal."""
    return ((sums - columns).abs() / columns).where(columns > 0, 0.0).amax(1)


def _spread(factors: Tensor) -> float:
    """The largest absolute logarithm of the factors above 0."""
    return float(factors.where(factors > 0, 1.0).log().abs().max())


def _edges(plan: Tensor, rows: Tensor) -> Tensor:
    """T' diag(1 / rows) T without its diagonal: how strongly shared rows connect two columns."""
    edges = (plan / rows.clamp_min(torch.finfo(plan.dtype).tiny).unsqueeze(2)).transpose(1, 2) @ plan
    edges.diagonal(dim1=1, dim2=2).zero_()
    return edges


def _product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(B, X) times (B, X, Y), as a row vector on the left: the fastest form of a batched product."""
    return torch.bmm(vectors.unsqueeze(1), matrices).squeeze(1)
