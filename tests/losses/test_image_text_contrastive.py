"""ImageTextContrastiveLoss against the equation."""

from __future__ import annotations

import loss_reference as reference
import pytest
import torch

from medvl.losses import ImageTextContrastiveLoss

IDS = {
    "pairs": ([0, 1, 2, 3], [0, 1, 2, 3]),
    "views": ([0, 0, 1, 2], [0, 1, 2]),
    "texts": ([0, 1], [0, 0, 1, 0, 1]),
    "no positive": ([0, 1, 5], [1, 0, 7, 1]),
    "none at all": ([0, 1], [2, 3, 4]),
    "all equal": ([3, 3, 3], [3, 3]),
    "one": ([0], [0]),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_the_equation(ids, scale, weighted):
    generator = torch.Generator().manual_seed(1)
    image_ids, text_ids = ids
    exact = [torch.randn(len(x), 5, generator=generator, dtype=torch.float64, requires_grad=True) for x in ids]
    weights = torch.rand(len(image_ids), generator=generator, dtype=torch.float64) if weighted else None
    expected = reference.image_text_contrastive(
        *exact, image_ids, text_ids, None if weights is None else weights.tolist(), scale
    )
    single = [x.detach().float().requires_grad_() for x in exact]
    value = ImageTextContrastiveLoss(temperature=1 / scale)(
        *single, torch.tensor(image_ids), torch.tensor(text_ids), weights
    )
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    value.backward()
    if expected.requires_grad:
        expected.backward()
    for left, right in zip(single, exact, strict=True):
        grad = torch.zeros_like(right) if right.grad is None else right.grad
        torch.testing.assert_close(left.grad.double(), grad, rtol=1e-5, atol=1e-5 * max(grad.abs().max().item(), 1e-3))
