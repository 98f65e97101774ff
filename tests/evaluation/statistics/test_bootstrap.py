"""The bootstrap clustered by patient, its percentile intervals, and estimates."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from medvl.evaluation.statistics import bootstrap as module
from medvl.evaluation.statistics.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Estimate,
    bootstrap_distribution,
    bootstrap_estimates,
    percentile_interval,
)


def exactly(text):
    return f"^{re.escape(text)}$"


class TestBootstrapConfig:
    def test_defaults(self):
        expected = {"n_resamples": 1000, "confidence_level": 0.95, "seed": 0}
        assert BootstrapConfig().to_dict() == DEFAULT_BOOTSTRAP.to_dict() == expected
        with pytest.raises(dataclasses.FrozenInstanceError):
            DEFAULT_BOOTSTRAP.seed = 1

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"n_resamples": 0}, ValueError, "n_resamples must be at least 1, got 0."),
            ({"n_resamples": 10.0}, TypeError, "n_resamples must be an integer, got 10.0."),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1."),
            ({"seed": "a"}, TypeError, "seed must be an integer, got 'a'."),
            ({"confidence_level": 0}, ValueError, "confidence_level must be above 0 and below 1, got 0."),
            ({"confidence_level": 1.0}, ValueError, "confidence_level must be above 0 and below 1, got 1.0."),
            ({"confidence_level": "95"}, TypeError, "confidence_level must be a number, got '95'."),
        ],
    )
    def test_wrong_values_are_named(self, options, error, message):
        with pytest.raises(error, match=exactly(message)):
            BootstrapConfig(**options)

    def test_the_smallest_values_are_allowed(self):
        assert BootstrapConfig(n_resamples=1, confidence_level=0.001, seed=0).n_resamples == 1


class TestEstimate:
    def test_text_and_dictionary(self):
        assert str(Estimate(0.25, 0.125, 0.5)) == "0.250 [0.125, 0.500]"
        assert Estimate(3.14159, 3, 4).format(".1f") == "3.1 [3.0, 4.0]"
        assert str(Estimate(0.25, 0.125)) == "0.250"
        assert str(Estimate(math.nan, 0.1, 0.2)) == "n/a"
        assert str(Estimate(math.inf, 0.5, math.inf)) == "inf [0.500, inf]"
        assert Estimate(0.25, 0.125, 0.5).to_dict() == {"value": 0.25, "interval": [0.125, 0.5]}
        assert Estimate(math.nan, 0.1, math.nan).to_dict() == {"value": None, "interval": None}

    @pytest.mark.parametrize(("low", "high", "expected"), [(0, 1, True), (math.nan, 1, False), (0, math.nan, False)])
    def test_an_interval_has_two_ends(self, low, high, expected):
        assert Estimate(0.5, low, high).has_interval is expected
        assert math.isnan(Estimate(0.5).low)
        assert math.isnan(Estimate(0.5).high)


class TestDistribution:
    def test_weights_count_how_often_each_patient_was_drawn(self):
        groups = ["p", "q", "p", "r", "q"]
        weights = bootstrap_distribution(lambda w: w, groups, BootstrapConfig(n_resamples=300, seed=3))
        # The definition: three patients are drawn by their number, in alphabetical order.
        drawn = np.random.default_rng(3).integers(0, 3, size=(300, 3))
        expected = np.stack([(drawn == "pqr".index(group)).sum(axis=1) for group in groups], axis=1)
        np.testing.assert_array_equal(weights, expected)
        assert weights.dtype == np.float64

    def test_the_statistic_gets_float32_rows(self):
        seen = []

        def count(weights):
            seen.append((weights.dtype, weights.shape))
            return np.zeros(len(weights))

        assert bootstrap_distribution(count, ["a", "b"]).shape == (1000,)
        assert seen == [(np.dtype(np.float32), (1000, 2))]

    def test_resamples_depend_on_the_seed_and_not_on_the_block_size(self, monkeypatch):
        groups = np.arange(37) // 2
        configs = [BootstrapConfig(n_resamples=50, seed=seed) for seed in (1, 2)]
        first = bootstrap_distribution(lambda w: w, groups, configs[0])
        assert not np.array_equal(first, bootstrap_distribution(lambda w: w, groups, configs[1]))
        rows = []
        for elements, expected in ((100, [2] * 25), (5, [1] * 50), (37 * 20, [20, 20, 10])):
            monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
            rows.clear()
            again = bootstrap_distribution(lambda w: rows.append(len(w)) or w, groups, configs[0])
            np.testing.assert_array_equal(first, again)
            assert rows == expected

    def test_one_patient_has_no_spread_and_two_have(self):
        config = BootstrapConfig(n_resamples=10)
        values = bootstrap_distribution(lambda w: w.sum(axis=1), ["p", "p"], config)
        assert values.shape == (10,)
        assert np.isnan(values).all()
        assert bootstrap_distribution(lambda w: w.sum(axis=1), ["p", "q"], config).tolist() == [2.0] * 10

    def test_no_case_is_an_error(self):
        message = "groups must name the patient of at least one case, got none."
        with pytest.raises(ValueError, match=exactly(message)):
            bootstrap_distribution(lambda w: w, [])

    def test_correlated_cases_widen_the_interval(self):
        generator = np.random.default_rng(0)
        patients = np.repeat(np.arange(30), 10)
        values = generator.normal(size=30)[patients]

        def width(groups):
            low, high = percentile_interval(bootstrap_distribution(lambda w: w @ values / w.sum(axis=1), groups))
            return high - low

        assert width(patients) > 2.5 * width(np.arange(300))


class TestPercentileInterval:
    def test_ends_are_quantiles(self):
        low, high = percentile_interval(np.arange(101.0), confidence_level=0.8)
        assert (low, high) == (pytest.approx(10.0), pytest.approx(90.0))
        low, high = percentile_interval(np.arange(1001.0))
        assert (low, high) == (pytest.approx(25.0), pytest.approx(975.0))

    def test_each_column_has_an_interval_of_its_own(self):
        values = np.arange(20.0)[:, None] * [1.0, -2.0]
        low, high = percentile_interval(values, 0.5)
        np.testing.assert_allclose(low, [4.75, -28.5])
        np.testing.assert_allclose(high, [14.25, -9.5])

    def test_undefined_resamples_are_ignored_up_to_a_tenth(self):
        values = np.tile(np.arange(20.0)[:, None], 4)
        values[-1:, 1] = values[-2:, 2] = values[-3:, 3] = np.nan
        low, high = percentile_interval(values, confidence_level=0.5)
        np.testing.assert_allclose(low, [4.75, 4.5, 4.25, np.nan])
        np.testing.assert_allclose(high, [14.25, 13.5, 12.75, np.nan])

    def test_the_level_is_checked(self):
        with pytest.raises(ValueError, match=exactly("confidence_level must be above 0 and below 1, got 95.")):
            percentile_interval(np.zeros(3), confidence_level=95)


class TestEstimates:
    def test_values_are_those_of_all_cases_and_intervals_those_of_the_distribution(self):
        # Enough different values for the seed and the number of resamples to move the ends.
        cases, groups = np.arange(21.0) ** 2 / 4, np.arange(21) // 2

        def statistics(weights):
            return {"mean": weights @ cases / weights.sum(axis=1), "total": weights @ cases}

        config = BootstrapConfig(n_resamples=200, confidence_level=0.8, seed=5)
        found = bootstrap_estimates(statistics, groups, config)
        assert list(found) == ["mean", "total"]
        assert (found["mean"].value, found["total"].value) == (cases.mean(), cases.sum())
        for name, estimate in found.items():
            drawn = bootstrap_distribution(lambda w, n=name: statistics(w)[n], groups, config)
            assert (estimate.low, estimate.high) == tuple(np.quantile(drawn, [(1 - 0.8) / 2, (1 + 0.8) / 2]))

    def test_defaults_are_a_thousand_resamples_at_95_percent(self):
        cases = np.arange(30.0)
        found = bootstrap_estimates(lambda w: {"mean": w @ cases / w.sum(axis=1)}, range(30))["mean"]
        drawn = bootstrap_distribution(lambda w: w @ cases / w.sum(axis=1), range(30), BootstrapConfig(1000, 0.95, 0))
        assert (found.low, found.high) == tuple(np.quantile(drawn, [0.025, 0.975]))

    def test_unity_weights_are_float32(self):
        seen = []
        bootstrap_estimates(
            lambda w: seen.append(w) or {"n": w.sum(axis=1)}, ["a", "b"], BootstrapConfig(n_resamples=1)
        )
        assert seen[0].dtype == np.float32
        assert seen[0].tolist() == [[1.0, 1.0]]


def test_statistics_need_numpy_alone():
    modules = ("bootstrap", "calibration", "comparison", "curves", "means")
    imports = "; ".join(f"import medvl.evaluation.statistics.{name}" for name in modules)
    code = f"{imports}; import sys; print([m for m in ('torch', 'monai', 'sklearn', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
