"""Augmentation: other words, the same states."""

from __future__ import annotations

import random

import numpy as np
import pytest

from medvl.data import OpenIReports
from medvl.text import Vocabulary, augment_text, label_report

REPORT = (
    "FINDINGS: Small left pleural effusion. No pneumothorax. Trachea is midline. Heart is normal. This is unchanged.\n"
    "IMPRESSION: 1. Small effusion. 2. Possible atelectasis."
)


def test_seeds_repeat_and_differ():
    assert augment_text(REPORT, random.Random(3)) == augment_text(REPORT, random.Random(3))
    assert len({augment_text(REPORT, random.Random(seed)) for seed in range(30)}) > 20


def test_each_step_does_what_it_says():
    swapped = augment_text(REPORT, random.Random(0), synonym_prob=1, shuffle_prob=0, drop_prob=0)
    assert "pleural effusion" not in swapped
    assert swapped.count(".") == REPORT.count(".")
    dropped = augment_text(REPORT, random.Random(0), synonym_prob=0, shuffle_prob=0, drop_prob=1)
    assert "Trachea" not in dropped
    assert "No pneumothorax. Heart is normal." in dropped
    shuffled = {augment_text(REPORT, random.Random(s), synonym_prob=0, shuffle_prob=1, drop_prob=0) for s in range(20)}
    assert len(shuffled) > 5
    assert {"".join(sorted(text)) for text in shuffled} == {"".join(sorted(REPORT))}
    for text in shuffled:
        assert text.startswith("FINDINGS:")
        assert text.endswith("IMPRESSION: 1. Small effusion. 2. Possible atelectasis.")


def test_nothing_asked_nothing_done():
    assert augment_text(REPORT, random.Random(0), synonym_prob=0, shuffle_prob=0, drop_prob=0) == REPORT
    assert augment_text("", random.Random(0)) == ""


def test_states_stay_on_real_reports(shared_data):
    # Each report with one of the seeds here; all reports with 20 seeds each in the benchmark.
    changed = 0
    for seed, study in enumerate(OpenIReports(shared_data / "openi-reports.tgz")):
        text = augment_text(study["report"], random.Random(seed % 20))
        changed += text != study["report"]
        np.testing.assert_array_equal(label_report(text), label_report(study["report"]))
    assert changed > 2000


@pytest.mark.parametrize("name", ["synonym_prob", "shuffle_prob", "drop_prob"])
def test_probabilities_are_checked(name):
    with pytest.raises(ValueError, match=rf"^{name} must be between 0 and 1, got 2\.$"):
        augment_text(REPORT, random.Random(0), **{name: 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SMALL PLEURAL EFFUSION.", "SMALL EFFUSION."),
        ("Pleural effusion.", "Effusion."),
        ("No pleural effusion.", "No effusion."),
    ],
)
def test_a_synonym_takes_the_case_of_the_mention(text, expected):
    synonyms = {
        "Pleural Effusion": {"terms": ["pleural effusion", "effusion"], "synonyms": [["pleural effusion", "effusion"]]}
    }
    vocabulary = Vocabulary({"version": 1, "findings": synonyms})
    options = {"synonym_prob": 1, "shuffle_prob": 0, "drop_prob": 0}
    assert augment_text(text, random.Random(0), vocabulary, **options) == expected


def test_a_synonym_that_changes_the_state_is_not_used():
    findings = {"A": {"terms": ["mass"], "synonyms": [["mass", "unknown word"]]}}
    vocabulary = Vocabulary({"version": 1, "findings": findings})
    assert (
        augment_text("A mass.", random.Random(0), vocabulary, synonym_prob=1, shuffle_prob=0, drop_prob=0) == "A mass."
    )
