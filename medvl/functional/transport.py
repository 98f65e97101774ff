"""Entropic optimal transport between sets of unequal size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medvl.functional._checks import as_float, check_option, check_positive, wide_dtype

GRADIENTS = ("exact", "constant")

# Iterations between two renewals of the kernel: few at first, while the potentials still move far.
FIRST_ROUND, LONGEST_ROUND = 2, 32


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
    2019), so that small ``epsilon`` neither overflows nor underflows and an iteration needs no exponential.

    Args:
        cost: (..., P, S), floating point.
        epsilon: above 0, in units of the cost; smaller is closer to a matching and slower.
        row_mask: (..., P), True keeps; broadcasts over the leading axes. A masked row or column carries no mass.
        column_mask: (..., S).
        tolerance: iteration ends where every column sum is within this relative distance of its marginal (row sums
            are exact to rounding). float32 reaches 1e-6.
        max_iterations: at most this many.
        gradient: ``"exact"`` differentiates the plan itself, through the equations that define it rather than through
            the iterations: the gradient that unrolled iterations converge to, in the memory of one plan. It is the
            default because it is the derivative of what was computed. ``"constant"`` holds the plan constant and gives
            ``cost`` no gradient.

    Returns:
        (..., P, S), sums to 1; all 0 where a mask keeps nothing.

    Raises:
        TypeError: for a cost that is not floating point.
        ValueError: for a cost of less than two axes, masks that do not fit it, or an option outside its range.

    Example:
        >>> plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]), epsilon=0.1)
        >>> [[round(t, 3) for t in row] for row in plan.tolist()]
        [[0.333, 0.0], [0.0, 0.333], [0.167, 0.167]]
    """
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        raise TypeError(f"cost must be a floating point tensor, got {getattr(cost, 'dtype', type(cost).__name__)}")
    if cost.ndim < 2:
        raise ValueError(f"cost must have shape (..., P, S), got {tuple(cost.shape)}")
    check_positive(epsilon, "epsilon")
    check_positive(tolerance, "tolerance")
    check_option(gradient, "gradient", GRADIENTS)
    rows = _marginal(cost, row_mask, -2, "row_mask")
    columns = _marginal(cost, column_mask, -1, "column_mask")
    with torch.autocast(cost.device.type, enabled=False):
        scores = as_float(cost).reshape(-1, *cost.shape[-2:]) / -epsilon
        # A side without mass leaves the other nowhere to send its own.
        rows = rows * (columns.sum(-1, keepdim=True) > 0)
        columns = columns * (rows.sum(-1, keepdim=True) > 0)
        plan = _Plan.apply(scores if gradient == "exact" else scores.detach(), rows, columns, tolerance, max_iterations)
    return plan.reshape(cost.shape)


def _marginal(cost: Tensor, mask: Tensor | None, axis: int, name: str) -> Tensor:
    shape = (*cost.shape[:-2], cost.shape[axis])
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=cost.device)
    else:
        try:
            mask = mask.to(torch.bool).expand(shape)
        except RuntimeError:
            raise ValueError(f"{name} must have shape {shape} or broadcast to it, got {tuple(mask.shape)}") from None
    weights = as_float(mask.to(cost.dtype)).reshape(-1, shape[-1])
    return weights / weights.sum(-1, keepdim=True).clamp_min(1)


class _Plan(torch.autograd.Function):
    """exp(f_p + g_s + score_ps) with the marginals asked for; scores (B, P, S), marginals (B, P) and (B, S)."""

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
        # The plan's differential is T (df_p + dg_s + dscore_ps), where df and dg hold the marginals still. With
        # H = T grad, the adjoint of that is H - T (u_p + w_s), where u and w solve
        #     diag(a) u + T w = H 1   and   T' u + diag(b) w = H' 1.
        (plan,) = ctx.saved_tensors
        weighted = plan * grad
        tiny = torch.finfo(plan.dtype).tiny
        rows = plan.sum(2).clamp_min(tiny)
        row_mean = weighted.sum(2) / rows
        # u eliminated, w is left with the Laplacian of a graph between columns that share rows. Built from its edges,
        # it keeps the digits of columns that hardly share any.
        edges = (plan / rows.unsqueeze(2)).transpose(1, 2) @ plan
        edges.diagonal(dim1=1, dim2=2).zero_()
        target = (weighted - plan * row_mean.unsqueeze(2)).sum(1)
        w = _solve_laplacian(edges, plan.sum(1), target)
        u = row_mean - (plan @ w.unsqueeze(2)).squeeze(2) / rows
        return weighted.sub_(plan * (u.unsqueeze(2) + w.unsqueeze(1))), None, None, None, None


def _solve_laplacian(edges: Tensor, masses: Tensor, target: Tensor) -> Tensor:
    """w with (diag(edges 1) - edges) w = target and masses.w = 0, in float64 where there is one."""
    wide = wide_dtype(edges.device)
    edges, masses = edges.to(wide), masses.to(wide)
    # What is constant over columns that share no row moves nothing; the last term keeps it from being noise. Columns
    # without mass get a 1, hence w = 0.
    diagonal = edges.sum(2) + 1e-12 * masses + (masses == 0)
    matrix = torch.diag_embed(diagonal) - edges + masses.unsqueeze(2) * masses.unsqueeze(1)
    return torch.linalg.solve(matrix, target.to(wide)).to(target.dtype)


def _iterate(scores: Tensor, rows: Tensor, columns: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    row_kept, column_kept = rows > 0, columns > 0
    tiny = torch.finfo(scores.dtype).tiny
    scores = scores.masked_fill(~(row_kept.unsqueeze(2) & column_kept.unsqueeze(1)), -torch.inf)
    # One update of each kind on the logarithms: afterwards no row or column of the kernel has underflowed.
    f = (rows.log() - scores.logsumexp(2)).where(row_kept, 0.0)
    g = (columns.log() - (scores + f.unsqueeze(2)).logsumexp(1)).where(column_kept, 0.0)
    done, length = 0, FIRST_ROUND
    while True:
        kernel = (scores + f.unsqueeze(2)).add_(g.unsqueeze(1)).exp_()
        kernel_t = kernel.transpose(1, 2).contiguous()
        v = torch.ones_like(columns)
        for _ in range(length):
            u = rows / _product(v, kernel_t).clamp_min(tiny)
            received = _product(u, kernel)
            error = ((received * v - columns).abs() / columns).where(column_kept, 0.0)
            v_next = columns / received.clamp_min(tiny)
            v, last = v_next, v
        done += length
        length = min(2 * length, LONGEST_ROUND)
        if done >= max_iterations or not bool((error > tolerance).any()):
            # The row update came before the column update: with the columns' scaling of that time, row sums are exact.
            return kernel.mul_(u.unsqueeze(2)).mul_(last.unsqueeze(1))
        f = (f + u.log()).where(row_kept, 0.0)
        g = (g + v.log()).where(column_kept, 0.0)


def _product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(B, X) times (B, X, Y), as a row vector on the left: the form that batched products are fastest in."""
    return torch.bmm(vectors.unsqueeze(1), matrices).squeeze(1)
