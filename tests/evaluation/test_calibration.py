"""Reliability, F1 and its threshold against scikit-learn, torchmetrics and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from medvl.evaluation import best_f1_threshold, reliability_curve
from medvl.evaluation.statistics.calibration import weighted_f1


def cases(seed=0, number=200):
    generator = np.random.default_rng(seed)
    probabilities = generator.random(number)
    return probabilities, generator.random(number) < probabilities**2


def test_curve_and_error_equal_scikit_learn_and_torchmetrics():
    probabilities, targets = cases()
    curve = reliability_curve(probabilities, targets, bins=15)
    observed, predicted = calibration_curve(targets, probabilities, n_bins=15)
    np.testing.assert_allclose(curve.observed[curve.counts > 0], observed)
    np.testing.assert_allclose(curve.predicted[curve.counts > 0], predicted)
    functional = pytest.importorskip("torchmetrics.functional.classification")
    expected = functional.binary_calibration_error(torch.tensor(probabilities), torch.tensor(targets).long(), n_bins=15)
    assert curve.error == pytest.approx(expected.item(), abs=1e-6)


def test_two_cases_by_hand():
    # One bin from 0.5: mean probability 0.8, observed 0.5.
    curve = reliability_curve(np.array([0.7, 0.9]), np.array([1, 0]), bins=2)
    assert curve.error == pytest.approx(0.3)
    assert curve.to_dict() == {"predicted": [pytest.approx(0.8)], "observed": [0.5], "counts": [2]}
    assert math.isnan(reliability_curve(np.zeros(0), np.zeros(0)).error)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_has_the_largest_f1_of_all_cuts(seed):
    generator = np.random.default_rng(seed)
    targets = generator.random(40) < 0.3
    scores = np.round(generator.normal(size=40) + targets, 1) - 3  # ties, most of them negative
    threshold = best_f1_threshold(scores, targets)
    best = max(f1_score(targets, scores >= cut) for cut in scores)
    assert f1_score(targets, scores >= threshold) == pytest.approx(best)
    weights = generator.integers(0, 3, size=(5, 40)).astype(float)
    expected = [f1_score(targets, scores >= threshold, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_f1(scores >= threshold, targets, weights), expected)


def test_edge_cases_have_defined_values():
    assert math.isnan(best_f1_threshold(np.array([0.1, 0.2]), np.array([False, False])))
    assert best_f1_threshold(np.array([0.4, 0.4]), np.array([True, False])) == 0.4
    called, nothing = np.array([True, False]), np.array([False, False])
    assert math.isnan(weighted_f1(called, nothing, np.ones((1, 2)))[0])
    assert weighted_f1(nothing, called, np.ones((1, 2)))[0] == 0
    with pytest.raises(ValueError, match="scores holds 1 NaN among 2 cases"):
        best_f1_threshold(np.array([np.nan, 1.0]), called)
    with pytest.raises(ValueError, match="probabilities must be from 0 to 1, without NaN"):
        reliability_curve(np.array([1.2]), np.array([1]))
    with pytest.raises(ValueError, match="bins must be at least 1; received 0"):
        reliability_curve(np.array([0.2]), np.array([1]), bins=0)
