"""The projection heads, and the one place that turns a temperature into a scale."""

from __future__ import annotations

import math

import pytest
import torch

from medvl.networks import LogitScale, ProjectionHead
from medvl.networks.blocks.projection import IMAGE_POOLINGS, pool_image


@pytest.mark.parametrize("bias", [True, False])
def test_projections_are_the_matrix_products_they_say(bias):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 5)
    linear = ProjectionHead(5, 4, bias=bias)
    expected = features @ linear[0].weight.T + (linear[0].bias if bias else 0)
    assert torch.allclose(linear(features), expected, atol=1e-6)
    double = ProjectionHead(5, 4, layers=2, hidden_features=7, bias=bias)
    hidden = (features @ double[0].weight.T + (double[0].bias if bias else 0)).clamp_min(0)
    expected = hidden @ double[2].weight.T + (double[2].bias if bias else 0)
    assert torch.allclose(double(features), expected, atol=1e-6)
    assert (double.in_features, double.out_features) == (5, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ProjectionHead(0, 4), "in_features must be at least 1, got 0."),
        (lambda: ProjectionHead(4, 4, layers=2, hidden_features=0), "hidden_features must be at least 1, got 0."),
        (
            lambda: ProjectionHead(4, 3, hidden_features=5),
            "hidden_features must be None for layers=1, got 5.",
        ),
        (lambda: ProjectionHead(4, 4, layers=3), "layers must be one of 1, 2, got 3."),
        (lambda: ProjectionHead(5, 4)(torch.zeros(2, 6)), "features must have width 5, got 6."),
    ],
)
def test_widths_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert str(caught.value) == message


def test_the_scale_stays_below_its_bound_and_can_come_down_again():
    scale = LogitScale(0.07)
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    with torch.no_grad():
        scale.log_scale.fill_(9.0)
    assert scale().item() == pytest.approx(100)
    optimizer = torch.optim.SGD(scale.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        scale().backward()
        optimizer.step()
    assert scale().item() < 100
    assert LogitScale(0.01)().item() == pytest.approx(100)


def test_the_scale_is_float32_under_autocast_and_its_gradient_is_the_exponentials():
    scale = LogitScale(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        value = scale()
    assert value.dtype == torch.float32
    value.backward()
    assert scale.log_scale.grad.item() == pytest.approx(math.exp(scale.log_scale.item()))
    fixed = LogitScale(0.5, learnable=False)
    assert [list(fixed.parameters()), list(fixed.state_dict())] == [[], ["log_scale"]]


@pytest.mark.parametrize("wrong", [0, -1, 0.001, math.nan])
def test_a_temperature_whose_scale_is_out_of_bounds_is_named(wrong):
    with pytest.raises(
        ValueError, match=rf"^temperature must be at least 1 / 100, for the maximum of the scale, got {wrong}\.$"
    ):
        LogitScale(wrong)


def test_layer_norm_is_between_the_layers():
    head = ProjectionHead(4, 3, layers=2, activation="gelu", layer_norm=True)
    x = torch.randn(5, 4)
    hidden = torch.nn.functional.gelu(head[0](x))
    normed = (hidden - hidden.mean(1, keepdim=True)) / hidden.var(1, correction=0, keepdim=True).add(1e-12).sqrt()
    torch.testing.assert_close(head(x), head[3](normed * head[2].weight + head[2].bias))
    with pytest.raises(ValueError, match=r"^layer_norm must be False for layers=1, got True\.$"):
        ProjectionHead(4, 3, layer_norm=True)


def test_what_becomes_an_images_embedding():
    patches = torch.tensor([[[1.0, -1.0], [3.0, 5.0]]])
    features = {"embed": torch.tensor([[0.0, -2.0]]), "patches": patches}
    found = {pooling: pool_image(features, torch.nn.ReLU(), pooling) for pooling in IMAGE_POOLINGS}
    expected = {"encoder": [0.0, 0.0], "projected_patches": [2.0, 2.5], "first_patch": [1.0, 0.0]}
    for pooling, values in expected.items():
        wanted = torch.nn.functional.normalize(torch.tensor([values]))
        torch.testing.assert_close(found[pooling], wanted, msg=pooling)
