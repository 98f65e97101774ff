"""The audit's expectations against counting pairs and against drawing batches."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from medvl.evaluation import audit_false_negatives

NAMES = ["No Finding", "Edema", "Fracture", "Pneumonia"]


def relation(a, b):
    """One pair, from the definition, finding by finding."""

    def present(s):
        return {k for k in range(1, 4) if s[k] == 1}

    def normal(s):
        if present(s):
            return False
        return s[0] == 1 or (any(s[k] == 0 for k in range(1, 4)) and not any(s[k] == -1 for k in range(1, 4)))

    p, q = present(a), present(b)
    if (p and p == q) or (normal(a) and normal(b)):
        return "all"
    if p & q:
        return "some"
    if any(b[k] == 0 for k in p) or any(a[k] == 0 for k in q) or (p and normal(b)) or (q and normal(a)):
        return "contradict"
    return "none"


def random_labels(n, seed):
    generator = np.random.default_rng(seed)
    return generator.choice([1, 0, -1, np.nan], size=(n, 4), p=[0.25, 0.3, 0.1, 0.35])


@pytest.mark.parametrize("seed", range(4))
def test_shares_equal_counting_every_pair(seed):
    labels = random_labels(40, seed)
    ids = [f"s{i // 2}" if i < 12 else f"t{i}" for i in range(40)]
    found = audit_false_negatives(labels, 8, NAMES, ids)
    counts = dict.fromkeys(found.shares, 0)
    for i, j in itertools.permutations(range(40), 2):
        if ids[i] != ids[j]:
            counts[relation(labels[i], labels[j])] += 1
    assert all(counts.values())
    for name, count in counts.items():
        assert found.shares[name] == pytest.approx(count / (40 * 39), abs=1e-12)
        assert found.pairs[name] == pytest.approx(8 * 7 * count / (40 * 39), abs=1e-9)


def test_affected_images_equal_all_batches():
    labels = random_labels(9, 7)
    labels[3] = labels[1] = [np.nan, 1, 0, np.nan]
    found = audit_false_negatives(labels, 3, NAMES)
    hit = [
        any(relation(labels[i], labels[j]) == "all" for j in batch if j != i)
        for batch in itertools.combinations(range(9), 3)
        for i in batch
    ]
    assert 0 < np.mean(hit) < 1
    assert found.affected[3] == pytest.approx(np.mean(hit), abs=1e-12)
    assert list(found.affected) == [2, 3, 4, 8]


def test_views_of_a_study_are_no_negatives():
    found = audit_false_negatives([[1, 0], [1, 0], [0, 1]], 2, ["Edema", "Fracture"], ["a", "a", "b"])
    assert found.shares["all"] == 0
    assert found.affected[2] == 0


def test_many_studies_of_one_diagnosis(tmp_path):
    labels = np.zeros((5000, 4), np.float32)
    labels[:4500, 0], labels[4500:, 3] = 1, 1
    found = audit_false_negatives(labels, 64, NAMES)
    same = (4500 * 4499 + 500 * 499) / (5000 * 4999)
    assert found.shares == pytest.approx({"all": same, "some": 0, "contradict": 1 - same, "none": 0})
    assert found.affected[64] > 0.99
    assert found.common == [("normal", 4500), ("Pneumonia", 500)]
    assert "Of the 4032 off-diagonal pairs of a batch of 64" in found.table()
    saved = json.loads(found.save(tmp_path / "out" / "audit.json").read_text())
    assert saved["pairs"]["all"] == pytest.approx(64 * 63 * same)
    assert found.plot(tmp_path / "audit.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 0]] * 3, 4), r"^batch_size must be between 2 and the number of studies, 3, got 4\.$"),
        (([[1, 2]] * 3, 2), r"^labels must be 1, 0, -1 or NaN, got 2\.$"),
        (([1, 0], 2), r"^labels must have shape \(studies, findings\), got \(2,\)\.$"),
        (([[1, 0]] * 3, 2, ["Edema"]), r"^names must have one entry for each of the 2 findings, got 1\.$"),
        (([[1, 0]] * 3, 2, (), ["a"]), r"^study_ids must have one entry for each of the 3 studies, got 1\.$"),
    ],
)
def test_clear_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        audit_false_negatives(*arguments)
