"""Paired comparison of two models: by hand and against its definition."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from medvl.evaluation.statistics.bootstrap import BootstrapConfig, Estimate, bootstrap_distribution, percentile_interval
from medvl.evaluation.statistics.comparison import (
    COMPARISON_BOOTSTRAP,
    CaseMeans,
    Comparison,
    PairedDifference,
    _p_value,
    compare,
    p_value_text,
)
from medvl.evaluation.statistics.curves import auroc_and_average_precision


def exactly(text):
    return f"^{re.escape(text)}$"


class Scored:
    def __init__(self, scores, targets, patients):
        self.scores, self.targets = np.array(scores, float), np.array(targets)
        self.study_ids, self.patient_ids = [str(i) for i in range(len(targets))], patients

    def statistics(self, weights):
        return {"auroc": auroc_and_average_precision(self.scores, self.targets, weights)[0]}


def pair(number=120, seed=0, gain=1.0):
    generator = np.random.default_rng(seed)
    targets = generator.random(number) < 0.4
    noise = generator.normal(size=number)
    patients = [f"p{i // 2}" for i in range(number)]
    strong = Scored(noise + 0.3 * generator.normal(size=number) + (1 + gain) * targets, targets, patients)
    return strong, Scored(noise + 0.3 * generator.normal(size=number) + targets, targets, patients)


def test_difference_interval_and_p_value_are_those_of_the_definition():
    strong, weak = pair()
    found = compare(strong, weak, bootstrap=BootstrapConfig(n_resamples=500, seed=3)).differences["auroc"]
    rows = {patient: [i for i, p in enumerate(strong.patient_ids) if p == patient] for patient in strong.patient_ids}
    values = [auroc_and_average_precision(model.scores, model.targets)[0][0] for model in (strong, weak)]
    assert (found.first, found.second) == (pytest.approx(values[0]), pytest.approx(values[1]))
    assert found.difference.value == pytest.approx(values[0] - values[1])
    generator, drawn, patients = np.random.default_rng(8), [], list(rows)
    for _ in range(500):
        chosen = [i for p in generator.integers(0, len(patients), len(patients)) for i in rows[patients[p]]]
        one, other = (
            auroc_and_average_precision(model.scores[chosen], model.targets[chosen])[0][0] for model in (strong, weak)
        )
        drawn.append(one - other)
    assert found.difference.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.02)
    assert found.difference.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.02)
    assert found.p_value < 0.02
    backward = compare(weak, strong, bootstrap=BootstrapConfig(n_resamples=500, seed=3)).differences["auroc"]
    assert backward.difference.value == -found.difference.value
    assert backward.p_value == found.p_value


def test_pairing_narrows_the_interval():
    strong, weak = pair()
    paired = compare(strong, weak, bootstrap=BootstrapConfig(n_resamples=500)).differences["auroc"].difference
    shuffled = Scored(weak.scores, weak.targets, weak.patient_ids)
    order = np.random.default_rng(0).permutation(len(weak.targets))
    order = np.concatenate([order[weak.targets[order]], order[~weak.targets[order]]])
    place = np.concatenate([np.flatnonzero(weak.targets), np.flatnonzero(~weak.targets)])
    shuffled.scores = np.empty_like(weak.scores)
    shuffled.scores[place] = weak.scores[order]  # as good, but hard on other cases
    apart = compare(strong, shuffled, bootstrap=BootstrapConfig(n_resamples=500)).differences["auroc"].difference
    assert apart.value == pytest.approx(paired.value)
    assert apart.high - apart.low > 1.3 * (paired.high - paired.low)


def test_equal_models_differ_in_nothing_and_few_patients_prove_nothing():
    strong, _ = pair()
    same = compare(strong, strong, bootstrap=BootstrapConfig(n_resamples=50)).differences["auroc"]
    assert (same.difference.value, same.p_value) == (0, 1)
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    targets, patients = [False, False, False, True, True, True], list("abcdef")
    few = compare(Scored(scores, targets, patients), Scored(scores[::-1], targets, patients)).differences["auroc"]
    assert few.difference.value == 1
    assert few.p_value == 2.0**-5
    one = compare(Scored(scores, targets, ["a"] * 6), Scored(scores[::-1], targets, ["a"] * 6))
    assert math.isnan(one.differences["auroc"].p_value)
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["auroc"]["p_value"] is None
    assert "n/a" in one.table()
    assert one.settings == {"cases": 6, "patients": 1, "bootstrap": COMPARISON_BOOTSTRAP.to_dict()}


def test_means_of_case_values_are_compared_without_those_that_are_not_defined():
    generator = np.random.default_rng(0)
    ids = [str(i) for i in range(60)]
    hits = (generator.random(60) < 0.5).astype(float)
    hits[:10] = np.nan
    better = np.where(generator.random(60) < 0.4, 1.0, hits)
    better[:10] = np.nan
    first, second = (CaseMeans({"hit": values}, ids, ids) for values in (better, hits))
    found = compare(first, second, bootstrap=BootstrapConfig(n_resamples=500)).differences["hit"]
    assert found.first == pytest.approx(np.nanmean(better))
    assert found.difference.value == pytest.approx(np.nanmean(better - hits))
    # The interval of a paired mean, from the normal distribution.
    half = 1.96 * np.nanstd(better - hits) / np.sqrt(50)
    assert found.difference.high - found.difference.low == pytest.approx(2 * half, rel=0.15)
    with pytest.raises(ValueError, match=exactly("hit must have one entry for each of the 60 cases, got 10.")):
        CaseMeans({"hit": hits[:10]}, ids, ids)


def test_lengths_of_case_values_are_checked():
    with pytest.raises(ValueError, match=exactly("patient_ids must have one entry for each of the 2 cases, got 1.")):
        CaseMeans({"hit": np.zeros(2)}, ["a", "b"], ["p"])


def test_weighted_case_means_by_hand():
    means = CaseMeans({"a": np.array([1.0, 3.0]), "b": np.array([math.nan, 2.0])}, ["s", "t"], ["p", "q"])
    found = means.statistics(np.array([[1, 1], [3, 1], [1, 0]], np.float32))
    np.testing.assert_allclose(found["a"], [2.0, 1.5, 1.0])
    np.testing.assert_allclose(found["b"], [2.0, 2.0, math.nan])


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([1, 2, 3], 2 * 1 / 4),  # none at or below 0
        ([-1, -2, -3], 2 * 1 / 4),
        ([-1, 1, 2, 3], 2 * 2 / 5),
        ([-1, -2, -3, 4], 2 * 2 / 5),
        ([0, 1, 2, 3], 2 * 2 / 5),  # 0 counts on both sides
        ([0, -1, -2, -3], 2 * 2 / 5),
        ([-1, 1], 1),  # at most 1
        ([0, 0, 0], 1),
        ([1, 2, 3, math.nan], 2 * 1 / 4),  # what is undefined is left out
    ],
)
def test_p_values_by_hand(drawn, expected):
    assert _p_value(np.array(drawn, float)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(math.nan, "n/a"), (0.0009, "< 0.001"), (0.001, "0.001"), (0.12345, "0.123"), (1, "1.000")]
)
def test_p_values_as_text(value, expected):
    assert p_value_text(value) == expected


@pytest.mark.parametrize("patients", [4, 30])
def test_the_whole_comparison_by_its_definition(patients):
    generator = np.random.default_rng(patients)
    ids = [str(i) for i in range(patients)]
    values = generator.normal(size=(2, patients))
    first, second = (CaseMeans({"x": row, "y": row + 1}, ids, ids) for row in values)
    config = BootstrapConfig(n_resamples=300, confidence_level=0.9, seed=2)
    found = compare(first, second, bootstrap=config)
    drawn = bootstrap_distribution(lambda w: w.astype(float) @ (values[0] - values[1]) / w.sum(axis=1), ids, config)
    low, high = percentile_interval(drawn, 0.9)
    for name in ("x", "y"):
        part = found.differences[name]
        assert part.first == pytest.approx(values[0].mean() + (name == "y"))
        assert part.second == pytest.approx(values[1].mean() + (name == "y"))
        assert part.difference.value == pytest.approx((values[0] - values[1]).mean())
        assert (part.difference.low, part.difference.high) == (pytest.approx(float(low)), pytest.approx(float(high)))
        tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
        assert part.p_value == pytest.approx(max(min(1, 2 * (1 + tail) / 301), 2.0 ** (1 - patients)))
    assert found.settings == {"cases": patients, "patients": patients, "bootstrap": config.to_dict()}


def test_defaults_are_two_thousand_resamples_at_95_percent():
    assert BootstrapConfig(n_resamples=2000, confidence_level=0.95, seed=0) == COMPARISON_BOOTSTRAP
    strong, weak = pair(20)
    assert compare(strong, weak).to_dict() == compare(strong, weak, bootstrap=COMPARISON_BOOTSTRAP).to_dict()


def test_the_table_and_the_dictionary():
    parts = {
        "auroc": PairedDifference(0.75, 0.5, Estimate(0.25, 0.125, 0.375), 0.0004),
        "f1": PairedDifference(math.nan, 0.5, Estimate(math.nan), math.nan),
    }
    found = Comparison(parts, {"cases": 3})
    assert found.table(("Ours", "Theirs")).splitlines() == [
        "Statistic   Ours  Theirs            Difference        p",
        "---------  -----  ------  --------------------  -------",
        "auroc      0.750   0.500  0.250 [0.125, 0.375]  < 0.001",
        "f1           nan   0.500                   n/a      n/a",
    ]
    assert found.table().splitlines()[0].split() == ["Statistic", "First", "Second", "Difference", "p"]
    assert found.to_dict() == {
        "auroc": {"first": 0.75, "second": 0.5, "p_value": 0.0004, "difference": parts["auroc"].difference.to_dict()},
        "f1": {"first": None, "second": 0.5, "p_value": None, "difference": {"value": None, "interval": None}},
        "settings": {"cases": 3},
    }


def test_models_are_asked_for_float32_weights_of_one_then_for_the_resamples():
    ids, seen = ["a", "b", "c"], []

    class Recorded(CaseMeans):
        def statistics(self, weights):
            seen.append(weights)
            return super().statistics(weights)

    first, second = (Recorded({"x": np.arange(3.0)}, ids, ids) for _ in range(2))
    compare(first, second, bootstrap=BootstrapConfig(n_resamples=7))
    assert [(weights.dtype, weights.shape) for weights in seen[:4]] == [(np.float32, (n, 3)) for n in (1, 1, 7, 7)]
    assert {(weights.dtype, weights.shape[1]) for weights in seen} == {(np.dtype(np.float32), 3)}
    assert seen[0].tolist() == seen[1].tolist() == [[1.0, 1.0, 1.0]]
    np.testing.assert_array_equal(seen[2], seen[3])


def test_only_the_names_asked_for_are_compared():
    ids = ["a", "b", "c"]
    first = CaseMeans({"x": np.arange(3.0), "y": np.ones(3), "z": np.ones(3)}, ids, ids)
    second = CaseMeans({"z": np.ones(3), "y": np.ones(3), "x": np.ones(3)}, ids, ids)
    assert list(compare(first, second).differences) == ["x", "y", "z"]
    assert list(compare(first, second, names=["z", "x"]).differences) == ["z", "x"]


def test_missing_statistics_are_named():
    strong, _ = pair()
    with pytest.raises(ValueError, match=exactly("Both results must have auprc, f1, got auroc in common.")):
        compare(strong, strong, names=["auprc", "auroc", "f1"])
    ids = ["a", "b"]
    both = CaseMeans({"x": np.ones(2), "y": np.ones(2)}, ids, ids)
    with pytest.raises(ValueError, match=exactly("Both results must have z, got x, y in common.")):
        compare(both, both, names=["x", "z"])
    first, second = (CaseMeans({name: np.ones(2)}, ids, ids) for name in ("x", "y"))
    message = "Both results must have at least one statistic in common, got nothing in common."
    with pytest.raises(ValueError, match=exactly(message)):
        compare(first, second)


@pytest.mark.parametrize(
    "attribute", ["study_ids", "patient_ids", "classes", "targets", "candidate_ids", "candidate_groups"]
)
def test_other_cases_are_refused(attribute):
    first, second = pair(20)
    setattr(first, attribute, np.array([1.0, math.nan]))
    text = f"Two models are compared on the same cases in the same order, but their {attribute} differ"
    for given, suffix in (([1.0, 2.0], "."), (["1.0", "nan"], "."), ([1.0], ": 2 and 1."), (None, ".")):
        setattr(second, attribute, given)
        with pytest.raises(ValueError, match=exactly(text + suffix)):
            compare(first, second)


def test_undefined_targets_are_equal_to_each_other():
    first, second = pair(20)
    first.scores = second.scores
    for model in (first, second):
        model.classes = np.array([1.0, math.nan])
    assert compare(first, second, bootstrap=BootstrapConfig(n_resamples=5)).differences["auroc"].p_value == 1


@pytest.mark.parametrize(("number", "smallest"), [(3, 0.25), (5, 0.0625), (8, 0.0078125)])
def test_a_p_value_counts_the_patients_that_have_a_value(number, smallest):
    """Patients without a region, or a positive case, are no evidence: a sign test has only the others."""
    ids = [str(i) for i in range(100)]
    good, poor = (
        CaseMeans({"dice": np.where(np.arange(100) < number, value, np.nan), "all": np.full(100, value)}, ids, ids)
        for value in (1.0, 0.0)
    )
    found = compare(good, poor).differences
    assert found["dice"].p_value == pytest.approx(max(smallest, 2 / 2001))
    assert found["all"].p_value == pytest.approx(2 / 2001)


def test_means_over_other_cases_are_refused():
    ids = ["a", "b", "c", "d"]
    one = CaseMeans({"dice": np.array([1.0, np.nan, 0.5, 0.5])}, ids, ids)
    other = CaseMeans({"dice": np.array([1.0, 0.5, np.nan, 0.5])}, ids, ids)
    with pytest.raises(
        ValueError, match=r"on the same cases, but 2 of 4 have a value of dice in one result alone; give"
    ):
        compare(one, other)
    assert compare(one, one).differences["dice"].difference.value == 0
