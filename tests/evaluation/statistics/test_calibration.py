"""Reliability, F1 and its threshold against scikit-learn, torchmetrics and by hand."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from medvl.evaluation.statistics.calibration import (
    ReliabilityCurve,
    best_f1_threshold,
    reliability_curve,
    weighted_f1,
)


def exactly(text):
    return f"^{re.escape(text)}$"


def cases(seed=0, number=200):
    generator = np.random.default_rng(seed)
    probabilities = generator.random(number)
    return probabilities, generator.random(number) < probabilities**2


class TestReliability:
    def test_curve_and_error_equal_scikit_learn_and_torchmetrics(self):
        probabilities, targets = cases()
        curve = reliability_curve(probabilities, targets, n_bins=15)
        observed, predicted = calibration_curve(targets, probabilities, n_bins=15)
        np.testing.assert_allclose(curve.observed[curve.counts > 0], observed)
        np.testing.assert_allclose(curve.predicted[curve.counts > 0], predicted)
        functional = pytest.importorskip("torchmetrics.functional.classification")
        expected = functional.binary_calibration_error(
            torch.tensor(probabilities), torch.tensor(targets).long(), n_bins=15
        )
        assert curve.error == pytest.approx(expected.item(), abs=1e-6)

    def test_bins_by_hand(self):
        # Two bins: the edge 0.5 belongs to the upper one, and so does 1.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = reliability_curve(np.array([0.0, 0.3, 0.5, 1.0, 0.9]), np.array([0, 1, 1, 1, 0]), n_bins=2)
        assert curve.counts.tolist() == [2, 3]
        np.testing.assert_allclose(curve.predicted, [0.15, 0.8])
        np.testing.assert_allclose(curve.observed, [0.5, 2 / 3])
        assert curve.error == pytest.approx((2 * 0.35 + 3 * (0.8 - 2 / 3)) / 5)

    def test_empty_bins_do_not_count(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = reliability_curve(np.array([0.7, 0.9]), np.array([1, 0]), n_bins=2)
        assert np.isnan([curve.predicted[0], curve.observed[0]]).all()
        assert curve.error == pytest.approx(0.3)
        assert curve.to_dict() == {"predicted": [pytest.approx(0.8)], "observed": [0.5], "counts": [2]}
        assert math.isnan(reliability_curve(np.zeros(0), np.zeros(0)).error)
        one = ReliabilityCurve(np.array([0.25]), np.array([1.0]), np.array([1]))
        assert (one.error, one.to_dict()) == (0.75, {"predicted": [0.25], "observed": [1.0], "counts": [1]})

    def test_ten_bins_by_default_and_one_at_least(self):
        assert len(reliability_curve(np.array([0.2]), np.array([1])).counts) == 10
        assert reliability_curve(np.array([0.2]), np.array([1]), n_bins=1).counts.tolist() == [1]

    @pytest.mark.parametrize(
        "targets", [[1, 0], [True, False], np.array([1, 0], np.uint8), np.array([1.0, 0.0], np.float32)]
    )
    def test_float32_probabilities_are_not_rounded_to_an_edge(self, targets):
        # 0.7 in float32 is below 0.7, but ten times it, in float32, is 7.
        curve = reliability_curve(np.array([0.7, 0.75], np.float32), targets)
        assert (curve.counts[6], curve.counts[7]) == (1, 1)
        assert (curve.observed[6], curve.observed[7]) == (1, 0)

    @pytest.mark.parametrize("wrong", [1.2, -0.1, math.nan])
    def test_probabilities_are_between_0_and_1(self, wrong):
        with pytest.raises(ValueError, match=exactly(f"probabilities must be between 0 and 1, got {wrong}.")):
            reliability_curve(np.array([0.5, wrong]), np.array([1, 0]))

    def test_the_number_of_bins_is_checked(self):
        with pytest.raises(ValueError, match=exactly("n_bins must be at least 1, got 0.")):
            reliability_curve(np.array([0.2]), np.array([1]), n_bins=0)
        with pytest.raises(TypeError, match=exactly("n_bins must be an integer, got 2.5.")):
            reliability_curve(np.array([0.2]), np.array([1]), n_bins=2.5)


class TestThreshold:
    @pytest.mark.parametrize("seed", range(4))
    def test_no_other_threshold_has_a_larger_f1(self, seed):
        generator = np.random.default_rng(seed)
        targets = generator.random(40) < 0.3
        scores = np.round(generator.normal(size=40) + targets, 1) - 3  # ties, most of them negative
        threshold = best_f1_threshold(scores, targets)
        best = max(f1_score(targets, scores >= cut) for cut in scores)
        assert f1_score(targets, scores >= threshold) == pytest.approx(best)
        weights = generator.integers(0, 3, size=(5, 40)).astype(float)
        expected = [f1_score(targets, scores >= threshold, sample_weight=row) for row in weights]
        np.testing.assert_allclose(weighted_f1(scores >= threshold, targets, weights), expected)

    @pytest.mark.parametrize(
        ("scores", "targets", "expected"),
        [
            ([0.75, 0.25], [1, 0], 0.5),  # halfway to the next lower score
            ([0.75, 0.25], [1, 1], 0.25),  # the lowest score where all are predicted
            ([0.5, 0.5], [1, 0], 0.5),  # a tie cannot be parted
            # F1 is 2/3 both at the first score, with one of two positives, and at all four, with both.
            ([4.0, 3.0, 2.0, 1.0], [1, 0, 0, 1], 3.5),
            ([1.0, 2.0, 3.0], [True, False, True], 1.0),  # in any order: 2/3, 1/2, 4/5
        ],
    )
    def test_by_hand(self, scores, targets, expected):
        threshold = best_f1_threshold(np.array(scores), np.array(targets))
        assert threshold == expected
        assert isinstance(threshold, float)

    @pytest.mark.parametrize("kind", [np.uint8, np.int64, list])
    def test_scores_of_any_kind_of_number(self, kind):
        # Unsigned integers cannot be negated: 0 would rank first.
        scores = [0, 3, 1] if kind is list else np.array([0, 3, 1], kind)
        assert best_f1_threshold(scores, [False, True, True]) == 0.5

    @pytest.mark.parametrize("tied", [[True, False, False], [False, True, False], [False, False, True]])
    def test_a_tie_below_the_first_score_cannot_be_parted(self, tied):
        # F1 is 2/3 above the tie and 2/3 below it; inside it would be up to 1.
        assert best_f1_threshold([3.0, 2.0, 2.0, 2.0, 1.0], [True, *tied, False]) == 2.5

    def test_without_a_positive_case_there_is_none(self):
        assert math.isnan(best_f1_threshold(np.array([0.1, 0.2]), np.array([False, False])))

    def test_nan_scores_are_refused(self):
        with pytest.raises(ValueError, match=exactly("scores must hold no NaN, got 1 among 2.")):
            best_f1_threshold(np.array([np.nan, 1.0]), np.array([True, False]))


def test_weighted_f1_by_hand():
    predictions, targets = np.array([True, True, False, False]), np.array([True, False, True, False])
    weights = np.array([[1, 1, 1, 1], [3, 1, 2, 9], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = weighted_f1(predictions, targets, weights)
    np.testing.assert_allclose(found, [2 / 4, 6 / 9, math.nan, 0, math.nan])


@pytest.mark.parametrize(
    "scores",
    [
        [1.0, np.nextafter(1.0, 2)],  # nothing between
        [-np.inf, 1.0],
        [0.0, np.inf],
        [1.6e308, 1.7e308],  # their sum overflows
        [-1.7e308, 1.7e308],
        [0.0, 5e-324],
    ],
)
def test_a_threshold_parts_any_two_scores(scores):
    assert (np.array(scores) >= best_f1_threshold(np.array(scores), np.array([0, 1]))).tolist() == [False, True]


def test_as_many_targets_as_scores():
    for function in (reliability_curve, best_f1_threshold):
        with pytest.raises(ValueError, match=r"^targets must have the shape of the scores, \(3,\), got \(2,\)\.$"):
            function(np.array([0.1, 0.2, 0.3]), np.array([0, 1]))
