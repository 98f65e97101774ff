"""Means of values that are not all defined, by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from medvl.evaluation.statistics.bootstrap import BootstrapConfig, bootstrap_distribution, percentile_interval
from medvl.evaluation.statistics.means import (
    mean_estimates,
    mean_of_means,
    nan_mean,
    weighted_mean_of_means,
    weighted_means,
)

NAN = math.nan
VALUES = np.array([[1.0, NAN, NAN], [3.0, 2.0, NAN], [5.0, 8.0, NAN]])
WEIGHTS = np.array([[1, 1, 1], [2, 0, 1], [1, 0, 0]], np.float32)
PATIENTS = ["p", "q", "r"]


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_weighted_means_ignore_what_is_undefined():
    expected = [[3.0, 5.0, NAN], [7 / 3, 8.0, NAN], [1.0, NAN, NAN]]
    means = weighted_means(VALUES)(WEIGHTS)
    np.testing.assert_allclose(means, expected)
    assert means.dtype == np.float64


def test_float32_weights_do_not_round_the_mean():
    value = 1 / 3
    assert weighted_means(np.full((3, 1), value))(WEIGHTS[:1])[0, 0] == value


def test_mean_of_means_ignores_columns_without_a_value():
    np.testing.assert_allclose(weighted_mean_of_means(VALUES)(WEIGHTS), [4.0, (7 / 3 + 8) / 2, 1.0])
    assert math.isnan(weighted_mean_of_means(VALUES[:, 2:])(WEIGHTS)[0])


def test_nan_mean():
    assert nan_mean(np.array([1.0, NAN, 2.0])) == 1.5
    assert isinstance(nan_mean(np.array([1.0])), float)
    assert math.isnan(nan_mean(np.array([NAN])))
    assert math.isnan(nan_mean(np.zeros(0)))


@pytest.mark.parametrize("config", [BootstrapConfig(), BootstrapConfig(n_resamples=77, confidence_level=0.8, seed=4)])
def test_estimates_have_the_interval_of_their_column(config):
    values = np.concatenate([VALUES, VALUES + 1, VALUES - 2])
    patients = [f"{patient}{part}" for part in range(3) for patient in PATIENTS]
    options = () if config == BootstrapConfig() else (config,)
    first, second, third = mean_estimates(values, patients, *options)
    assert (first.value, second.value) == (np.mean(values[:, 0]), np.nanmean(values[:, 1]))
    assert math.isnan(third.value)
    assert not third.has_interval
    drawn = bootstrap_distribution(weighted_means(values), patients, config)
    low, high = percentile_interval(drawn, config.confidence_level)
    assert (first.low, first.high, second.low, second.high) == (low[0], high[0], low[1], high[1])
    mean = mean_of_means(values, patients, *options)
    drawn = bootstrap_distribution(weighted_mean_of_means(values), patients, config)
    assert mean.value == (first.value + second.value) / 2
    assert (mean.low, mean.high) == tuple(map(float, percentile_interval(drawn, config.confidence_level)))


def test_nothing_defined_gives_nothing():
    mean = mean_of_means(np.full((2, 2), NAN), ["p", "q"])
    assert math.isnan(mean.value)
    assert not mean.has_interval
