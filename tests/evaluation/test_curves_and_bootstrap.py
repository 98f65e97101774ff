"""AUROC and average precision against scikit-learn, and the bootstrap by patient."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from medvl.evaluation import Estimate, auroc_and_average_precision, bootstrap, interval, roc_curve

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "interval_coverage.py"


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
    for row in range(7):
        assert auroc[row] == pytest.approx(roc_auc_score(targets, scores, sample_weight=weights[row]), abs=1e-6)
        assert average[row] == pytest.approx(
            average_precision_score(targets, scores, sample_weight=weights[row]), abs=1e-6
        )


@pytest.mark.parametrize("ties", [False, True])
def test_roc_points_equal_scikit_learn(ties):
    scores, targets, _ = cases(5, ties)
    false_rate, true_rate = roc_curve(scores, targets)
    expected_false, expected_true, _ = sklearn_roc_curve(targets, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, expected_false)
    np.testing.assert_allclose(true_rate, expected_true)


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


def test_ties_are_worth_a_half_and_no_more():
    auroc, _ = auroc_and_average_precision(np.zeros(10), np.arange(10) < 3)
    assert auroc.tolist() == [0.5]


def test_one_class_gives_nan_and_nan_scores_are_refused():
    auroc, average = auroc_and_average_precision(np.array([0.1, 0.2]), np.array([True, True]))
    assert np.isnan(auroc).all()
    assert np.isnan(average).all()
    assert np.isnan(auroc_and_average_precision(np.zeros(0), np.zeros(0, bool))[0]).all()
    with pytest.raises(ValueError, match="scores holds 1 NaN among 2 cases"):
        auroc_and_average_precision(np.array([np.nan, 1.0]), np.array([True, False]))


def test_patients_bring_all_their_cases():
    groups = ["p", "q", "p", "r", "q"]
    weights = bootstrap(lambda w: w, groups, resamples=300, seed=3)
    assert weights.shape == (300, 5)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.2)


def test_resamples_depend_on_the_seed_alone(monkeypatch):
    groups = np.arange(37) // 2
    first = bootstrap(lambda w: w, groups, resamples=50, seed=1)
    monkeypatch.setattr(sys.modules["medvl.evaluation.bootstrap"], "BLOCK_ELEMENTS", 100)
    np.testing.assert_array_equal(first, bootstrap(lambda w: w, groups, resamples=50, seed=1))
    assert not np.array_equal(first, bootstrap(lambda w: w, groups, resamples=50, seed=2))


def test_correlated_cases_widen_the_interval():
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 10)
    values = generator.normal(size=30)[patients]

    def mean(weights):
        return weights @ values / weights.sum(axis=1)

    def width(groups):
        low, high = interval(bootstrap(mean, groups))
        return high - low

    assert width(patients) > 2.5 * width(np.arange(300))


def test_undefined_values_do_not_make_an_interval():
    values = np.tile(np.arange(20.0)[:, None], 3)
    values[-1:, 1] = values[-3:, 2] = np.nan
    low, high = interval(values, level=0.5)
    np.testing.assert_allclose(low, [4.75, 4.5, np.nan])
    np.testing.assert_allclose(high, [14.25, 13.5, np.nan])
    one_patient = bootstrap(lambda w: w.sum(axis=1), ["p", "p"], resamples=10)
    assert np.isnan(one_patient).all()
    assert not Estimate(0.5, *interval(one_patient)).has_interval


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="resamples must be at least 1; received 0"):
        bootstrap(lambda w: w, ["a"], resamples=0)
    with pytest.raises(ValueError, match="at least one case"):
        bootstrap(lambda w: w, [])
    with pytest.raises(ValueError, match=r"level must be between 0 and 1; received 95"):
        interval(np.zeros(3), level=95)


def test_intervals_cover_the_true_value():
    # The quick form of the benchmark: of 200 repeats, 95 % coverage gives 181 to 198 all but once in 1,000 times.
    spec = importlib.util.spec_from_file_location("interval_coverage", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    held = module.coverage(repeats=200, resamples=400)
    assert 0.905 <= held["independent cases"] <= 0.99
    assert 0.905 <= held["three cases a patient"] <= 0.99
