"""Grounding measures against loops written from the definitions, and their traps."""

from __future__ import annotations

import math
import re
import statistics

import pytest
import torch

from medvl.functional import GROUNDING_THRESHOLDS, contrast_to_noise_ratio, iou_at_thresholds, mean_iou, pointing_game

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def cases(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(5, *shape, generator=generator, dtype=torch.float64) * 2 - 1
    masks = torch.rand(5, *shape, generator=generator) < 0.3
    return maps, masks


def split(values, mask):
    pairs = list(zip(values.flatten().tolist(), mask.flatten().tolist(), strict=True))
    return [v for v, m in pairs if m], [v for v, m in pairs if not m]


def naive_iou(values, mask, threshold):
    called = {i for i, v in enumerate(values.flatten().tolist()) if v >= threshold}
    region = {i for i, m in enumerate(mask.flatten().tolist()) if m}
    return len(called & region) / len(called | region)


def naive_pointing(values, mask):
    inside, outside = split(values, mask)
    return float(max(inside) > max(outside))


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_loops_in_2d_and_3d(shape, seed):
    maps, masks = cases(shape, seed)
    ratio, overlap, hits = (
        contrast_to_noise_ratio(maps, masks),
        iou_at_thresholds(maps, masks),
        pointing_game(maps, masks),
    )
    for n in range(5):
        inside, outside = split(maps[n], masks[n])
        noise = math.sqrt(statistics.pvariance(inside) + statistics.pvariance(outside))
        contrast = statistics.fmean(inside) - statistics.fmean(outside)
        assert ratio[n].item() == pytest.approx(contrast / noise, abs=1e-12)
        expected = [naive_iou(maps[n], masks[n], threshold) for threshold in THRESHOLDS]
        assert overlap[n].tolist() == pytest.approx(expected, abs=1e-6)
        assert mean_iou(maps, masks)[n].item() == pytest.approx(statistics.fmean(expected), abs=1e-6)
        assert hits[n].item() == naive_pointing(maps[n], masks[n])


def test_a_map_that_points_away_scores_negative():
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    maps = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) + 3 * mask
    towards, away = contrast_to_noise_ratio(maps, mask), contrast_to_noise_ratio(-maps, mask)
    assert towards.item() > 1
    assert away.item() == pytest.approx(-towards.item())
    assert contrast_to_noise_ratio(5 * maps + 1000, mask).item() == pytest.approx(towards.item(), rel=1e-3)


def test_flat_maps_earn_nothing():
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 2:5] = True
    # Resizing leaves the last bits of a flat map unequal, in favor of nobody.
    noisy = torch.full((1, 8, 8), 0.7) * (1 + 2e-7 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)))
    noisy[0, 3, 3] = noisy.max() * (1 + 1.2e-7)
    maps = torch.cat([torch.zeros(1, 8, 8), torch.full((1, 8, 8), -0.4), noisy])
    assert pointing_game(maps, mask).tolist() == [0, 0, 0]
    assert contrast_to_noise_ratio(maps, mask).tolist() == [0, 0, 0]


def test_a_shift_of_the_map_costs_no_digits():
    # Multiples of 2^-8 around 4096 are exact in float32.
    maps = torch.randint(0, 256, (2, 8, 8), generator=torch.Generator().manual_seed(0)) / 256
    mask = torch.zeros(2, 8, 8).index_fill(1, torch.tensor([1, 2]), 1)
    assert torch.equal(contrast_to_noise_ratio(maps + 4096, mask), contrast_to_noise_ratio(maps, mask))


@pytest.mark.parametrize("scale", [2.0**-20, 1.0, 2.0**20])
def test_ties_are_relative_to_the_largest_magnitude(scale):
    eps = torch.finfo(torch.float32).eps
    mask = torch.tensor([[1, 0]])
    tie, contrast = torch.tensor([[1 + 8 * eps, 1.0]]), torch.tensor([[1 + 10 * eps, 1.0]])
    for sign in (1, -1):
        assert pointing_game(scale * sign * tie, mask).item() == 0
        assert contrast_to_noise_ratio(scale * sign * tie, mask).item() == 0
        assert pointing_game(scale * sign * contrast, mask).item() == (sign == 1)
        assert contrast_to_noise_ratio(scale * sign * contrast, mask).item() == sign * math.inf


def test_ties_for_the_highest_point_count_only_where_all_lie_inside():
    maps = torch.tensor([[[0.8, 0.8, 0.1]], [[0.8, 0.8, 0.1]], [[-0.3, -0.9, -0.9]]])
    masks = torch.tensor([[[1, 1, 0]], [[1, 0, 0]], [[1, 0, 0]]])
    assert pointing_game(maps, masks).tolist() == [1, 0, 1]


def test_empty_predictions_count_as_zero():
    mask = torch.tensor([[[1, 1, 0, 0]]])
    maps = torch.tensor([[[0.25, 0.25, 0.0, 0.0]]])
    assert iou_at_thresholds(maps, mask).tolist() == [[1, 1, 0, 0, 0]]
    assert mean_iou(maps, mask).item() == pytest.approx(0.4)
    assert mean_iou(-maps, mask).item() == 0


def test_two_levels_without_noise_are_infinite_and_empty_regions_undefined():
    maps = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]])
    masks = torch.tensor([[[1, 0]], [[1, 0]], [[0, 0]], [[1, 1]]])
    ratio = contrast_to_noise_ratio(maps, masks)
    assert ratio[:2].tolist() == [math.inf, -math.inf]
    assert ratio[2:].isnan().all()
    for measure in (mean_iou, pointing_game):
        assert measure(maps, masks).isnan().tolist() == [False, False, True, False]


def test_batches_of_one_of_none_and_of_half_precision():
    maps, masks = cases((6, 5), 7)
    for measure in (contrast_to_noise_ratio, mean_iou, pointing_game):
        torch.testing.assert_close(measure(maps[:1], masks[:1]), measure(maps, masks)[:1])
        assert measure(maps[:0], masks[:0]).shape == (0,)
        half = measure(maps.bfloat16(), masks)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, measure(maps.bfloat16().float(), masks))
    third = iou_at_thresholds(torch.ones(1, 1, 3, dtype=torch.float64), torch.tensor([[[1, 0, 0]]]), [0.5])
    assert third.item() == 1 / 3


def test_iou_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    maps, masks = cases((6, 5), 3)
    overlap = iou_at_thresholds(maps, masks)
    for n in range(5):
        for column, threshold in enumerate(THRESHOLDS):
            expected = functional.binary_jaccard_index((maps[n] >= threshold).int(), masks[n].int())
            assert overlap[n, column].item() == pytest.approx(expected.item(), abs=1e-6)


MAPS, MASKS = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, 3, 3)
EXPECTED = "maps and masks must be floating point and of one shape (N, H, W[, D])"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_iou(MAPS, MASKS[:4]), f"{EXPECTED}, got torch.float32 (5, 3, 3) and (4, 3, 3)."),
        (lambda: pointing_game(MASKS.bool(), MASKS), f"{EXPECTED}, got torch.bool (5, 3, 3) and (5, 3, 3)."),
        (lambda: pointing_game(MAPS[0, 0], MASKS[0, 0]), f"{EXPECTED}, got torch.float32 (3,) and (3,)."),
        (lambda: pointing_game(MAPS[:, :0], MASKS[:, :0]), "maps must hold at least one pixel each, got shape (5, 0, 3)."),
        (lambda: contrast_to_noise_ratio(MAPS.index_fill(0, torch.tensor([2]), torch.nan), MASKS),
         "maps must be finite, got NaN or infinite values in 1 of 5 maps."),
        (lambda: contrast_to_noise_ratio(MAPS.index_fill(0, torch.tensor([0, 2]), torch.inf), MASKS),
         "maps must be finite, got NaN or infinite values in 2 of 5 maps."),
        (lambda: pointing_game(MAPS, MASKS * 2.0), "masks must be boolean or hold 0 and 1 only, got other values."),
        (lambda: iou_at_thresholds(MAPS, MASKS, []), "thresholds must hold at least one number, got none."),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_no_maps_give_no_values():
    assert pointing_game(torch.zeros(0, 2, 2), torch.zeros(0, 2, 2)).shape == (0,)


def test_default_thresholds():
    assert GROUNDING_THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5)
    one = torch.tensor([[0.25, 0.0]])
    assert mean_iou(one, torch.tensor([[1, 0]])).item() == pytest.approx(0.4)
    assert iou_at_thresholds(one, torch.tensor([[1, 0]])).tolist() == [[1, 1, 0, 0, 0]]


def test_a_constant_map_has_no_contrast_but_an_empty_or_a_full_mask_no_value():
    masks = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 1, 0]]).reshape(3, 1, 3)
    assert contrast_to_noise_ratio(torch.ones(3, 1, 3), masks)[:2].isnan().all()
    assert contrast_to_noise_ratio(torch.ones(3, 1, 3), masks)[2] == 0
    for k in range(3):
        alone = contrast_to_noise_ratio(torch.ones(1, 1, 3), masks[k : k + 1])
        assert bool(alone.isnan()) == (k < 2)


def test_a_pixel_at_the_threshold_is_called():
    maps = torch.tensor([[[0.5, 0.25, 0.0]]])
    assert iou_at_thresholds(maps, torch.tensor([[[1, 0, 0]]]), [0.5, 0.25]).tolist() == [[1.0, 0.5]]
