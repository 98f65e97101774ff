"""Sinkhorn: marginals, masks, stability, gradient."""

from __future__ import annotations

import inspect

import pytest
import torch

from medvl.functional import sinkhorn, transport


def cost(*shape, dtype=torch.float32, seed=0):
    """1 - cosine of random vectors: what patches and sentences have."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(*shape[:-2], n, 8, generator=generator, dtype=dtype) for n in shape[-2:]]
    rows, columns = (torch.nn.functional.normalize(x, dim=-1) for x in draw)
    return 1 - rows @ columns.transpose(-1, -2)


def loop(matrix, epsilon, iterations=2000):
    """Alternating updates of the logarithms in float64, differentiable through all of them."""
    matrix = matrix.double()
    a, b = -torch.tensor(matrix.shape, dtype=torch.float64).log()
    f, g = torch.zeros_like(matrix[:, 0]), torch.zeros_like(matrix[0])
    for _ in range(iterations):
        f = a - (g - matrix / epsilon).logsumexp(1)
        g = b - (f[:, None] - matrix / epsilon).logsumexp(0)
    return (f[:, None] + g - matrix / epsilon).exp()


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05])
@pytest.mark.parametrize("shape", [(20, 5), (5, 20), (7, 1), (1, 1), (6, 6)])
def test_plan_and_gradient_equal_the_unrolled_loop(epsilon, shape):
    matrix = cost(*shape)
    exact = matrix.double().requires_grad_()
    expected = loop(exact, epsilon)
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * upstream).sum().backward()
    single = matrix.clone().requires_grad_()
    plan = sinkhorn(single, epsilon)
    torch.testing.assert_close(plan.double(), expected, rtol=0, atol=1e-5 * float(expected.max()))
    (plan * upstream.float()).sum().backward()
    torch.testing.assert_close(
        single.grad.double(), exact.grad, rtol=0, atol=2e-5 * float(exact.grad.abs().max()) + 1e-8
    )


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.003])
def test_small_epsilon_gives_the_form_that_optimality_asks_for(epsilon):
    """log T + cost / epsilon is a number of the row plus a number of the column, and the marginals are uniform."""
    matrix = cost(12, 4, dtype=torch.float64)
    plan = sinkhorn(matrix, epsilon, tolerance=1e-12)
    torch.testing.assert_close(plan.sum(1), torch.full((12,), 1 / 12, dtype=torch.float64), rtol=1e-10, atol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 1 / 4, dtype=torch.float64), rtol=1e-10, atol=0)
    potentials = plan.log() + matrix / epsilon
    centered = potentials - potentials.mean(0) - potentials.mean(1, keepdim=True) + potentials.mean()
    assert centered.abs().max() < 1e-9
    torch.testing.assert_close(sinkhorn(matrix.float(), epsilon).double(), plan, rtol=0, atol=1e-5 * float(plan.max()))


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01, 0.003])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_marginals_reach_the_stated_tolerance_in_float32(epsilon, spread):
    plan = sinkhorn(spread * cost(4, 30, 6), epsilon * spread, max_iterations=100_000)
    torch.testing.assert_close(plan.sum(-1), torch.full((4, 30), 1 / 30), rtol=2e-6, atol=0)
    torch.testing.assert_close(plan.sum(-2), torch.full((4, 6), 1 / 6), rtol=3e-6, atol=0)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_a_looser_tolerance_is_kept_too(tolerance):
    plan = sinkhorn(cost(8, 30, 6, dtype=torch.float64), 0.02, tolerance=tolerance)
    error = (plan.sum(-2) * 6 - 1).abs().max()
    assert error <= tolerance


def test_masks_are_as_if_the_rest_were_not_there():
    matrix = cost(3, 2, 6, 5)
    rows, columns = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(1)) < 0.6, torch.ones(3, 2, 5).bool()
    columns[0, 0] = torch.tensor([True, False, False, True, False])
    columns[1] = torch.tensor([True, False, False, False, False])
    rows[2, 1] = torch.tensor([False, False, True, False, False, False])
    plans = sinkhorn(matrix, 0.1, rows, columns)
    for i in range(3):
        for j in range(2):
            kept = rows[i, j][:, None] & columns[i, j]
            assert plans[i, j][~kept].abs().sum() == 0
            small = matrix[i, j][rows[i, j]][:, columns[i, j]]
            torch.testing.assert_close(
                plans[i, j][kept].reshape(small.shape), loop(small, 0.1).float(), rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
def test_a_mask_of_numbers_keeps_what_is_not_zero(dtype):
    """The numbers are no weights."""
    matrix = cost(6, 4)
    rows, columns = torch.tensor([2, 0, 1, 7, 0, 3]), torch.tensor([5, 1, 0, 2])
    expected = sinkhorn(matrix, 0.1, rows > 0, columns > 0)
    assert torch.equal(sinkhorn(matrix, 0.1, rows.to(dtype), columns.to(dtype)), expected)


@pytest.mark.parametrize("empty", ["rows", "columns", "both"])
@pytest.mark.parametrize("epsilon", [1.0, 0.01])
def test_nothing_kept_gives_an_empty_plan_and_no_gradient(empty, epsilon):
    matrix = cost(2, 4, 3).requires_grad_()
    rows, columns = torch.ones(2, 4).bool(), torch.ones(2, 3).bool()
    if empty != "columns":
        rows[0] = False
    if empty != "rows":
        columns[0] = False
    plan = sinkhorn(matrix, epsilon, rows, columns)
    assert plan[0].abs().sum() == 0
    torch.testing.assert_close(plan[1].sum(), torch.tensor(1.0))
    (plan * torch.arange(12.0).reshape(4, 3)).sum().backward()
    assert torch.isfinite(matrix.grad).all()
    assert matrix.grad[0].abs().sum() == 0


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_gradcheck(epsilon):
    matrix = cost(2, 5, 3, dtype=torch.float64).requires_grad_()
    rows = torch.tensor([[True] * 5, [True, False, True, True, False]])

    def function(x):
        return sinkhorn(x, epsilon, rows, tolerance=1e-13, max_iterations=100_000)

    assert torch.autograd.gradcheck(function, (matrix,), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.01, 0.001])
def test_separated_groups_stay_finite(epsilon):
    """Columns that share no row leave their potentials' difference undetermined."""
    matrix = torch.block_diag(torch.zeros(3, 2), torch.zeros(3, 2)) + torch.ones(6, 4)
    matrix[:3, :2] = 0
    matrix[3:, 2:] = 0
    matrix.requires_grad_()
    plan = sinkhorn(matrix, epsilon)
    torch.testing.assert_close(plan[:3, :2], torch.full((3, 2), 1 / 12))
    (plan * torch.arange(24.0).reshape(6, 4)).sum().backward()
    assert torch.isfinite(matrix.grad).all()


@pytest.mark.parametrize(("epsilon", "most"), [(0.1, 60), (0.05, 92), (0.02, 156), (0.01, 284), (0.003, 668)])
def test_few_scalings_are_needed(epsilon, most):
    """At most one round of scalings more than it takes."""
    matrix = cost(4, 30, 6, dtype=torch.float64)
    columns = torch.tensor([True, True, False, True, True, True])
    for plan, expected in (
        (sinkhorn(matrix, epsilon, max_iterations=most), torch.full((6,), 1 / 6)),
        (sinkhorn(matrix, epsilon, None, columns, max_iterations=most), columns / 5),
        (sinkhorn(matrix.mT, epsilon, columns, max_iterations=most).mT, columns / 5),
    ):
        torch.testing.assert_close(plan.sum(-2), expected.double().expand(4, 6), rtol=1.001e-6, atol=0)


def test_half_precision_and_autocast_are_computed_in_float32():
    matrix = cost(2, 5, 3).bfloat16()
    rows, columns = torch.tensor([True, True, False, True, True]), torch.tensor([True, False, True])
    expected = sinkhorn(matrix.float(), 0.1, rows, columns)
    with torch.autocast("cpu", torch.bfloat16):
        plans = [sinkhorn(x, 0.1, rows, columns) for x in (matrix, matrix.float())]
        plans += [sinkhorn(matrix.mT, 0.1, columns.int(), rows.float()).mT]
    for plan in plans:
        assert plan.dtype == torch.float32
        torch.testing.assert_close(plan, expected)


def test_constant_gradient_holds_the_plan():
    matrix = cost(4, 3).requires_grad_()
    plan = sinkhorn(matrix, 0.1, gradient="constant")
    assert not plan.requires_grad
    torch.testing.assert_close(plan, sinkhorn(matrix, 0.1).detach())


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"^cost must be a floating point tensor, got torch\.int64\.$"):
        sinkhorn(torch.ones(2, 2).long())
    with pytest.raises(ValueError, match=r"^cost must have shape \(\.\.\., P, S\), got \(2,\)\.$"):
        sinkhorn(torch.ones(2))
    with pytest.raises(ValueError, match=r"^row_mask must have shape \(2, 3\) or broadcast to it, got \(2, 4\)\.$"):
        sinkhorn(torch.ones(2, 3, 4), row_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"^epsilon must be above 0, got 0\.$"):
        sinkhorn(torch.ones(2, 2), 0)
    with pytest.raises(TypeError, match=r"^row_mask must be of type Tensor, got list\.$"):
        sinkhorn(torch.ones(2, 2), row_mask=[True, False])
    with pytest.raises(ValueError, match=r"^max_iterations must be at least 1, got 0\.$"):
        sinkhorn(torch.ones(2, 2), max_iterations=0)
    with pytest.raises(ValueError, match=r"^tolerance must be above 0, got 0\.$"):
        sinkhorn(torch.ones(2, 2), tolerance=0)
    with pytest.raises(TypeError, match=r"^cost must be a floating point tensor, got list\.$"):
        sinkhorn([[1.0]])
    with pytest.raises(TypeError, match=r"^column_mask must be of type Tensor, got list\.$"):
        sinkhorn(torch.ones(2, 2), column_mask=[True, False])
    with pytest.raises(ValueError, match=r"^column_mask must have shape \(2, 4\) or broadcast to it, got \(2, 3\)\.$"):
        sinkhorn(torch.ones(2, 3, 4), column_mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^gradient must be one of 'exact', 'constant', got 'none'\.$"):
        sinkhorn(torch.ones(2, 2), gradient="none")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (0, 3, 2)])
def test_nothing_to_transport(shape):
    matrix = torch.ones(shape, requires_grad=True)
    assert sinkhorn(matrix).shape == shape


def test_no_more_scalings_than_asked_for(monkeypatch):
    scalings = []
    scale_rows = transport._scale_rows
    monkeypatch.setattr(transport, "_scale_rows", lambda *given: scalings.append(1) or scale_rows(*given))
    matrix = cost(6, 5)
    for most in (1, 6):
        scalings.clear()
        sinkhorn(matrix, 0.001, tolerance=1e-12, max_iterations=most)
        # Beside the scalings, one product measures the error and one tries each Newton step.
        assert len(scalings) <= most + 2 * (1 + most // transport.FIRST_ROUND)


def test_defaults():
    matrix = cost(12, 5)
    assert torch.equal(sinkhorn(matrix), sinkhorn(matrix, 0.05, tolerance=1e-6, max_iterations=2000, gradient="exact"))
    assert not torch.equal(sinkhorn(matrix), sinkhorn(matrix, 0.06))
    defaults = {key: value.default for key, value in inspect.signature(sinkhorn).parameters.items()}
    expected = {"epsilon": 0.05, "tolerance": 1e-6, "max_iterations": 2000, "gradient": "exact"}
    assert {key: defaults[key] for key in expected} == expected


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_a_constant_plan_has_the_same_values_and_no_gradient(shape):
    matrix = cost(*shape).requires_grad_()
    plan = sinkhorn(matrix, 0.1, gradient="constant")
    assert not plan.requires_grad
    assert torch.equal(plan, sinkhorn(matrix, 0.1).detach())
