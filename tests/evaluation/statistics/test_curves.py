"""AUROC, average precision and ROC curve by hand and against scikit-learn."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from medvl.evaluation.statistics.calibration import best_f1_threshold, reliability_curve
from medvl.evaluation.statistics.curves import auroc_and_average_precision, check_scores, roc_curve


def cases(seed, ties):
    generator = np.random.default_rng(seed)
    targets = generator.random(80) < 0.3
    scores = generator.normal(size=80) + targets
    return np.round(scores) if ties else scores, targets, generator


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_curves_equal_scikit_learn_for_every_row_of_weights(seed, ties):
    scores, targets, generator = cases(seed, ties)
    weights = generator.integers(0, 4, size=(7, 80)).astype(np.float32)
    auroc, average = auroc_and_average_precision(scores, targets, weights)
    assert (auroc.dtype, average.dtype) == (np.float64, np.float64)
    for row in range(7):
        assert auroc[row] == pytest.approx(roc_auc_score(targets, scores, sample_weight=weights[row]), abs=1e-6)
        assert average[row] == pytest.approx(
            average_precision_score(targets, scores, sample_weight=weights[row]), abs=1e-6
        )


def test_by_hand():
    # In descending order: + - + - ; the pairs won are 2 + 1 of 4, the precisions at positives 1 and 2/3.
    scores, targets = np.array([0.2, 0.9, 0.5, 0.7]), np.array([False, True, True, False])
    auroc, average = auroc_and_average_precision(scores, targets)
    assert auroc.tolist() == [0.75]
    assert average.tolist() == [pytest.approx((1 + 2 / 3) / 2)]
    # The second positive counts three times, the higher negative twice: (3 * 1 + 1 * 3) of 4 * 3 pairs lost to it ...
    auroc, average = auroc_and_average_precision(scores, targets, np.array([[1.0, 1.0, 3.0, 2.0]]))
    assert auroc.tolist() == [pytest.approx((1 * 3 + 3 * 1) / (4 * 3))]
    assert average.tolist() == [pytest.approx((1 * 1 + 3 * (4 / 6)) / 4)]


def test_weights_of_none_are_ones():
    scores, targets, _ = cases(1, True)
    for given, expected in zip(
        auroc_and_average_precision(scores, targets),
        auroc_and_average_precision(scores, targets, np.ones((1, 80), np.float32)),
        strict=True,
    ):
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_points_equal_scikit_learn(ties):
    scores, targets, _ = cases(5, ties)
    false_rate, true_rate = roc_curve(scores, targets)
    expected_false, expected_true, _ = sklearn_roc_curve(targets, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, expected_false)
    np.testing.assert_allclose(true_rate, expected_true)


def test_roc_points_by_hand_where_a_positive_comes_last():
    # In descending order: - + + ; the first and the last of the three thresholds hold one case each.
    false_rate, true_rate = roc_curve(np.array([0.2, 0.9, 0.5]), np.array([True, False, True]))
    assert false_rate.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert true_rate.tolist() == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_scores_and_weights_of_any_kind_of_number(kind):
    scores, targets = np.array([0, 3, 1, 2, 1]).astype(kind), np.array([False, True, True, False, False])
    weights = np.array([[1, 2, 1, 1, 3]])
    auroc, precision = auroc_and_average_precision(scores, targets, weights)
    assert auroc[0] == pytest.approx(roc_auc_score(targets, scores, sample_weight=weights[0]), rel=1e-12)
    assert precision[0] == pytest.approx(average_precision_score(targets, scores, sample_weight=weights[0]), rel=1e-12)
    for got, expected in zip(
        roc_curve(scores, targets), sklearn_roc_curve(targets, scores, drop_intermediate=False), strict=False
    ):
        np.testing.assert_allclose(got, expected)


def test_float32_weights_do_not_round_the_sums():
    # The pairs won are far above 2^24, from where on float32 has no odd numbers.
    generator = np.random.default_rng(0)
    scores, targets = generator.permutation(30001), generator.random(30001) < 0.5
    auroc, average = auroc_and_average_precision(scores, targets)
    assert auroc[0] == pytest.approx(roc_auc_score(targets, scores), rel=1e-12)
    assert average[0] == pytest.approx(average_precision_score(targets, scores), rel=1e-8)


def test_weights_need_not_be_integers():
    scores, targets, generator = cases(2, True)
    weights = generator.random((3, 80)) / 100
    for row, auroc, average in zip(weights, *auroc_and_average_precision(scores, targets, weights), strict=True):
        assert auroc == pytest.approx(roc_auc_score(targets, scores, sample_weight=row))
        assert average == pytest.approx(average_precision_score(targets, scores, sample_weight=row))


def test_ties_are_worth_a_half():
    auroc, average = auroc_and_average_precision(np.zeros(10), np.arange(10) < 3)
    assert auroc.tolist() == [0.5]
    assert average.tolist() == [pytest.approx(0.3)]


@pytest.mark.parametrize("targets", [[True, True], [False, False]])
def test_one_class_is_undefined_without_a_warning(targets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auroc, average = auroc_and_average_precision(np.array([0.1, 0.2]), np.array(targets))
    assert np.isnan([auroc, average]).all()


def test_weights_may_leave_one_class():
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], np.float32)
    scores, targets = np.array([0.1, 0.2, 0.0]), np.array([False, True, True])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auroc, average = auroc_and_average_precision(scores, targets, weights)
    # The first threshold of the last row has no weight.
    np.testing.assert_array_equal(auroc, [1, math.nan, math.nan, math.nan, 0])
    np.testing.assert_array_equal(average, [1, math.nan, math.nan, math.nan, 0.5])


def test_no_case_is_undefined_in_every_row():
    auroc, average = auroc_and_average_precision(np.zeros(0), np.zeros(0, bool), np.ones((3, 0)))
    assert auroc.shape == average.shape == (3,)
    assert np.isnan([auroc, average]).all()
    auroc[0] = 0  # the two are arrays of their own
    assert np.isnan(average).all()


def test_nan_scores_are_refused():
    message = f"^{re.escape('scores must hold no NaN, got 1 among 2.')}$"
    with pytest.raises(ValueError, match=message):
        auroc_and_average_precision(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="got 2 among 6"):
        check_scores(np.array([[np.nan, 1.0, 2.0], [0.0, np.nan, 1.0]]))


@pytest.mark.parametrize(
    "statistic",
    [auroc_and_average_precision, roc_curve, best_f1_threshold, reliability_curve],
    ids=lambda f: f.__name__,
)
def test_targets_are_0_or_1_in_any_type(statistic):
    scores, present = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    expected = statistic(scores, present)
    for kind in (int, float, np.uint8):
        np.testing.assert_equal(vars_of(statistic(scores, present.astype(kind))), vars_of(expected))
    for wrong in (-1.0, 2.0, np.nan):
        with pytest.raises(ValueError, match=rf"^targets must be 0 or 1, got {wrong}\.$"):
            statistic(scores, np.where(present, 1.0, wrong))


def vars_of(result):
    return vars(result) if hasattr(result, "counts") else result


def test_a_curve_of_one_class_or_of_other_cases_is_refused():
    for targets, received in (([1, 1], "2 positive of 2"), ([0, 0], "0 positive of 2")):
        with pytest.raises(ValueError, match=rf"^targets must hold both classes, got {received}\.$"):
            roc_curve(np.array([0.1, 0.2]), np.array(targets))
    with pytest.raises(ValueError, match=r"^targets must hold both classes, got 0 positive of 0\.$"):
        roc_curve(np.array([]), np.array([]))
    for function in (roc_curve, auroc_and_average_precision):
        with pytest.raises(ValueError, match=r"^targets must have the shape of the scores, \(3,\), got \(2,\)\.$"):
            function(np.array([0.1, 0.2, 0.3]), np.array([0, 1]))
