"""Patches cut, hidden, taken and put back; means over masks and segments."""

from __future__ import annotations

import re

import pytest
import torch

from medvl.functional import (
    gather_patches,
    masked_mean,
    masked_patch_loss,
    patchify,
    random_visible_patches,
    scatter_patches,
    segment_mean,
)


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 10), (0.5, 5), (0.75, 2), (0.99, 1)])
def test_random_visible_patches(ratio, kept):
    indices, visible = random_visible_patches(7, 10, ratio, torch.Generator().manual_seed(0))
    assert indices.shape == (7, kept)
    assert visible.sum(1).tolist() == [kept] * 7
    assert (indices.diff(dim=1) > 0).all()
    assert visible.gather(1, indices).all()


def test_every_patch_is_hidden_as_often_as_another():
    generator = torch.Generator().manual_seed(0)
    _, visible = random_visible_patches(20_000, 8, 0.5, generator)
    torch.testing.assert_close(visible.float().mean(0), torch.full((8,), 0.5), rtol=0, atol=0.02)
    again = random_visible_patches(20_000, 8, 0.5, torch.Generator().manual_seed(0))[1]
    assert torch.equal(visible, again)


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_wrong_ratio(ratio):
    with pytest.raises(ValueError, match=rf"^ratio must be at least 0 and below 1, got {ratio}\.$"):
        random_visible_patches(1, 4, ratio)


def test_scatter_undoes_gather():
    patches = torch.randn(3, 6, 4)
    indices, visible = random_visible_patches(3, 6, 0.5)
    whole = scatter_patches(gather_patches(patches, indices), indices, torch.full((4,), -1.0), 6)
    assert torch.equal(whole[visible], patches[visible])
    assert (whole[~visible] == -1).all()


def test_scatter_gives_the_fill_its_gradient():
    fill = torch.zeros(2, requires_grad=True)
    visible = torch.ones(1, 1, 2, requires_grad=True)
    scatter_patches(visible, torch.tensor([[1]]), fill, 3).sum().backward()
    assert fill.grad.tolist() == [2.0, 2.0]
    assert visible.grad.tolist() == [[[1.0, 1.0]]]


def test_patchify_2d_and_3d_by_loop():
    image = torch.randn(2, 3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            cut = image[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 3 * row + column], cut.permute(0, 2, 3, 1).flatten(1))
    volume = torch.randn(1, 1, 4, 2, 6)
    assert torch.equal(patchify(volume, (2, 1, 3))[0, 3], volume[0, 0, 0:2, 1:2, 3:6].flatten())


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 1, 4, 4), (2,)), ((1, 1, 4, 4), (2, 2, 2)), ((1, 1, 4, 4), 0), ((1, 4), 2), ((1, 1, 4, 6), 4)],
)
def test_patches_must_fill_the_image(shape, size):
    message = f"patch_size must divide every spatial axis of image {shape}, got {size}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        patchify(torch.ones(shape), size)


@pytest.mark.parametrize("hidden", [1, 2])
def test_masked_patch_loss_by_hand(hidden):
    image = torch.tensor([[[[1.0, 3.0, 0.0, 0.5]]]])
    visible = torch.tensor([[False, hidden == 1]])
    prediction = torch.zeros(1, 2, 2)
    raw = [5.0, 0.125]  # means of squares: 1 and 3; 0 and 0.5
    unit = [1 / (1 + 1e-6), 0.0625 / (0.0625 + 1e-6)]
    for normalize, errors in ((False, raw), (True, unit)):
        expected = {"none": [errors[:hidden] + [0.0] * (2 - hidden)], "sum": sum(errors[:hidden])}
        expected["mean"] = expected["sum"] / hidden
        for reduction, value in expected.items():
            got = masked_patch_loss(
                prediction, image, visible, patch_size=(1, 2), normalize=normalize, reduction=reduction
            )
            torch.testing.assert_close(got, torch.tensor(value), rtol=1e-6, atol=0)
    default = masked_patch_loss(prediction, image, visible, patch_size=(1, 2))
    assert torch.equal(default, masked_patch_loss(prediction, image, visible, patch_size=(1, 2), normalize=True))
    assert masked_patch_loss(prediction, image, torch.ones(1, 2), patch_size=(1, 2)).item() == 0


def test_wrong_masked_patches():
    right = {"patch_prediction": torch.ones(1, 4, 4), "image": torch.ones(1, 1, 4, 4), "visible_mask": torch.ones(1, 4)}
    for wrong, message in (
        ({"patch_prediction": torch.ones(4, 4)}, r"patch_prediction must have shape \(N, P, pixels\), got \(4, 4\)"),
        ({"reduction": "max"}, "reduction must be one of 'mean', 'sum', 'none', got 'max'"),
    ):
        with pytest.raises(ValueError, match=rf"^{message}\.$"):
            masked_patch_loss(**right | wrong, patch_size=2)


def test_results_are_on_the_device_of_the_input():
    indices, visible = random_visible_patches(2, 4, device="meta")
    assert indices.device.type == visible.device.type == "meta"
    values = torch.ones(2, 3, 4, device="meta")
    assert masked_mean(values, torch.ones(2, 3, device="meta")).device.type == "meta"


def test_each_row_has_its_own_mean():
    values = torch.tensor([[[1.0], [3.0]], [[4.0], [8.0]]])
    assert masked_mean(values, torch.tensor([[1, 1], [0, 1]])).tolist() == [[2], [8]]
    assert patchify(torch.arange(6.0).reshape(1, 1, 6), 3).tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_a_mean_of_one_value_is_that_value():
    values = torch.tensor([[[3.0], [5.0]]])
    assert masked_mean(values, torch.tensor([[0, 1]])).item() == 5
    means, mask = segment_mean(values, torch.tensor([[0, 2]]))
    assert (means.flatten().tolist(), mask.tolist()) == ([3, 0, 5], [[True, False, True]])


def test_masked_mean_ignores_what_is_not_kept():
    values = torch.tensor([[[1.0], [3.0], [torch.nan]], [[torch.inf], [1.0], [1.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert masked_mean(values, mask).tolist() == [[2.0], [0.0]]
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 3\), got \(2, 2\)\.$"):
        masked_mean(values, mask[:, :2])


def test_segment_mean_by_loop():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(-1, 4, (4, 9), generator=generator)
    means, mask = segment_mean(values, ids, 5)
    for i in range(4):
        for s in range(5):
            chosen = values[i][ids[i] == s]
            assert bool(mask[i, s]) == (len(chosen) > 0)
            expected = chosen.mean(0) if len(chosen) else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(means[i, s], expected)
    assert torch.autograd.gradcheck(lambda x: segment_mean(x, ids, 5)[0], (values,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_many_values_in_half_precision(dtype):
    """A sum in half precision overflows, or stops growing once what is added falls below its last digit."""
    values = torch.linspace(100, 200, 1000, dtype=torch.float64)[None, :, None].to(dtype)
    expected = values.double().mean()
    for mean in (
        masked_mean(values, torch.ones(1, 1000)),
        segment_mean(values, torch.zeros(1, 1000, dtype=torch.long))[0],
    ):
        assert mean.dtype == dtype
        assert mean.item() == pytest.approx(expected.item(), rel=4e-3)


def test_segment_mean_without_segments():
    means, mask = segment_mean(torch.ones(2, 3, 4), torch.full((2, 3), -1))
    assert means.shape == (2, 0, 4)
    assert mask.shape == (2, 0)


def test_wrong_segments():
    with pytest.raises(TypeError, match=r"^segment_ids must be integers, got torch\.float32\.$"):
        segment_mean(torch.ones(1, 2, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"^segment_ids must be below num_segments, 2, got 4\.$"):
        segment_mean(torch.ones(1, 2, 3), torch.tensor([[0, 4]]), 2)
    message = r"^values and segment_ids must have shapes \(M, L, C\) and \(M, L\), got \(1, 2, 3\) and \(1, 3\)\.$"
    with pytest.raises(ValueError, match=message):
        segment_mean(torch.ones(1, 2, 3), torch.tensor([[0, 0, 0]]))


def test_no_values_at_all_make_no_segment():
    ids = torch.zeros(2, 0, dtype=torch.int64)
    means, kept = segment_mean(torch.zeros(2, 0, 3), ids)
    assert (means.shape, kept.shape) == ((2, 0, 3), (2, 0))
    means, kept = segment_mean(torch.zeros(2, 0, 3), ids, 2)
    assert (means.abs().sum(), kept.any(), means.shape) == (0, False, (2, 2, 3))
