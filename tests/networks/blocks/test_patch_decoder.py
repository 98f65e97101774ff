"""The decoder of masked patches."""

from __future__ import annotations

import math

import pytest
import torch

from medvl.functional import masked_patch_loss
from medvl.networks import PatchDecoder
from medvl.networks.blocks.patch_decoder import sine_positions


def make(**options) -> PatchDecoder:
    torch.manual_seed(0)
    return PatchDecoder(**{"in_features": 6, "patch_size": 4, "features": 16, "num_heads": 2, **options})


@pytest.mark.parametrize(("grid", "features"), [((2, 3), 16), ((3, 2, 2), 16), ((4,), 5), ((2, 2), 7)])
def test_positions_are_sines_and_cosines_of_each_axis(grid, features):
    share = features // (2 * len(grid))
    places = [()]
    for n in grid:
        places = [(*place, i) for place in places for i in range(n)]
    for row, place in zip(sine_positions(grid, features).tolist(), places, strict=True):
        expected = []
        for coordinate in place:
            angles = [coordinate / 10_000 ** (k / share) for k in range(share)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert row == pytest.approx(expected + [0.0] * (features - len(expected)), abs=1e-5)


def test_positions_differ_everywhere():
    positions = sine_positions((14, 14), 128)
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1


def test_hidden_places_hold_the_mask_token_and_visible_ones_their_patch():
    decoder = make().eval()
    patches, visible = torch.randn(2, 3, 6), torch.tensor([[4, 0, 2], [1, 3, 5]])
    expected = []
    for n in range(2):
        rows = []
        for place in range(6):
            at = (visible[n] == place).nonzero().flatten().tolist()
            rows.append(decoder.entrance(patches[n, at[0]]) if at else decoder.mask_token)
        tokens = torch.stack(rows) + sine_positions((2, 3), 16)
        expected.append(decoder.exit(decoder.layers(tokens[None]))[0])
    assert torch.allclose(decoder(patches, visible, (2, 3)), torch.stack(expected), atol=1e-5)


def test_the_order_of_the_visible_patches_does_not_matter():
    decoder = make().eval()
    patches, visible, order = torch.randn(2, 4, 6), torch.tensor([[0, 1, 4, 5], [2, 3, 4, 5]]), [3, 1, 0, 2]
    shuffled = decoder(patches[:, order], visible[:, order], (2, 3))
    assert torch.allclose(shuffled, decoder(patches, visible, (2, 3)), atol=1e-5)
    everything = decoder(patches, torch.arange(4).expand(2, -1), (2, 2))
    assert torch.allclose(decoder(patches, None, (2, 2)), everything, atol=1e-6)


@pytest.mark.parametrize(
    ("dims", "grid", "patch_size", "pixels"),
    [(2, (2, 3), 4, 32), (3, (2, 1, 3), (2, 4, 1), 16)],
)
@pytest.mark.parametrize("count", [1, 3])
def test_gradient_reaches_every_parameter_with_one_visible_patch(dims, grid, patch_size, pixels, count):
    decoder = make(patch_size=patch_size, in_channels=2, spatial_dims=dims)
    patches = torch.randn(count, 1, 6, requires_grad=True)
    out = decoder(patches, torch.full((count, 1), 4), grid)
    assert out.shape == (count, 6, pixels)
    (out * torch.randn_like(out)).sum().backward()
    assert patches.grad.abs().sum() > 0
    for name, value in decoder.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


def test_it_learns_to_predict_the_pixels_that_the_loss_compares():
    decoder = make(features=32)
    image = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    visible, mask = torch.tensor([[0, 5]]), torch.tensor([[True, False, False, False, False, True]])
    patches = torch.randn(1, 2, 6)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = masked_patch_loss(decoder(patches, visible, (2, 3)), image, mask, patch_size=4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_autocast_gives_numbers_close_to_float32():
    decoder = make().eval()
    patches, visible = torch.randn(2, 3, 6), torch.tensor([[4, 0, 2], [1, 3, 5]])
    with torch.autocast("cpu", torch.bfloat16):
        half = decoder(patches, visible, (2, 3))
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), decoder(patches, visible, (2, 3)), atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 15}, r"features must be divisible by num_heads 2, got 15\."),
        ({"features": 2}, r"features must be at least 4 for 2 axes, got 2\."),
        ({"patch_size": 0}, r"patch_size must be at least 1, got 0\."),
        ({"num_layers": 0}, r"num_layers must be at least 1, got 0\."),
        ({"patch_size": (4, 4, 4)}, r"patch_size must have 2 values, one for each axis, got \(4, 4, 4\)\."),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**options)


@pytest.mark.parametrize(
    ("patches", "visible", "grid", "message"),
    [
        ((2, 3, 6), (2, 3), (2, 3, 1), r"grid must have 2 axes, got \(2, 3, 1\)\."),
        ((2, 3, 5), (2, 3), (2, 3), r"patches must have shape \(N, P', 6\), got \(2, 3, 5\)\."),
        ((2, 3, 6), (2, 4), (2, 3), r"visible_indices must have shape \(2, 3\), got \(2, 4\)\."),
        (
            (2, 3, 6),
            None,
            (2, 3),
            r"grid must have 3 cells, one for each patch, without visible_indices, got \(2, 3\)\.",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(patches, visible, grid, message):
    index = None if visible is None else torch.zeros(visible, dtype=torch.long)
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()(torch.zeros(patches), index, grid)
