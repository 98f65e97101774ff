"""Label transforms: states of reports, and the numbers that a loss sees."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medvl.text import load_vocabulary
from medvl.transforms import ApplyLabelPolicy, ApplyLabelPolicyd, LabelPolicy, LabelReport, LabelReportd
from medvl.utils.errors import StudyError

STATES = [1.0, 0.0, -1.0, math.nan]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda x: np.array(x, dtype=np.float32)])
def test_policy_turns_each_state_into_its_number(kind):
    numbers = LabelPolicy(present=2, absent=-3, uncertain=0.5, missing=7)(kind(STATES))
    assert numbers.dtype == torch.float32
    assert numbers.tolist() == [2, -3, 0.5, 7]


def test_a_policy_and_numbers_exclude_each_other():
    assert ApplyLabelPolicy(LabelPolicy(absent=0))([0]).tolist() == [0]
    with pytest.raises(
        ValueError,
        match=r"^policy must come without other numbers, got LabelPolicy\(present=1.* and LabelPolicy\(.*\)\.$",
    ):
        ApplyLabelPolicyd("label", LabelPolicy(), absent=0)


def test_policy_keeps_shape_and_input():
    states = torch.tensor([STATES, STATES])
    before = states.clone()
    assert LabelPolicy()(states).tolist() == [[1, -1, 0, 0]] * 2
    assert torch.equal(states, before) or torch.equal(states.isnan(), before.isnan())
    assert LabelPolicy(missing=math.nan)(STATES).isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize("value", [2.0, 0.5, -2.0, math.inf])
def test_policy_rejects_what_is_no_state(value):
    with pytest.raises(ValueError, match=f"^states must be 1, 0, -1 or NaN, got {value:g}\\.$"):
        LabelPolicy()([1.0, value])


@pytest.mark.parametrize("value", ["0", None, True])
def test_policy_rejects_what_is_not_a_number(value):
    with pytest.raises(TypeError, match=f"^uncertain must be a number, got {value!r}\\.$"):
        LabelPolicy(uncertain=value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_policy_rejects_infinity(value):
    with pytest.raises(ValueError, match=f"^absent must be finite or NaN, got {value}\\.$"):
        LabelPolicy(absent=value)


def test_apply_policy():
    study = {"label": [1, 0], "text_label": [-1, 1], "study_id": "s1"}
    out = ApplyLabelPolicyd(["label", "text_label"], uncertain=0.25)(study)
    assert out["label"].tolist() == [1, -1]
    assert out["text_label"].tolist() == [0.25, 1]
    assert study["label"] == [1, 0]
    assert ApplyLabelPolicy(LabelPolicy(absent=0))([0.0]).tolist() == [0]
    with pytest.raises(StudyError, match="study 's1', label: states must be"):
        ApplyLabelPolicyd("label")({**study, "label": [3.0]})


def test_label_report_by_report_and_by_sentence():
    names = load_vocabulary("chexpert14").names
    edema, effusion = names.index("Edema"), names.index("Pleural Effusion")
    whole = LabelReport()("No edema. Small effusion.")
    assert whole.dtype == torch.float32
    assert (whole[edema], whole[effusion]) == (0, 1)
    rows = LabelReport(text_unit="sentence")("No edema. Small effusion.")
    assert rows[:, edema].tolist()[0] == 0
    assert rows[:, effusion].tolist()[1] == 1
    assert rows[0, effusion].isnan()
    assert LabelReport(text_unit="sentence")(["No edema.", "Small effusion."]).nan_to_num(9).equal(rows.nan_to_num(9))
    assert LabelReport()(["No edema.", "Small effusion."]).nan_to_num(9).equal(whole.nan_to_num(9))
    assert LabelReport(text_unit="sentence")("").shape == (0, 14)
    assert LabelReport("chest_ct")("No lymphadenopathy.").shape == (len(load_vocabulary("chest_ct").names),)
    with pytest.raises(ValueError, match=r"^text_unit must be one of 'report', 'sentence', got 'word'\.$"):
        LabelReport(text_unit="word")


def test_dictionary_form_in_a_bundle_and_pickled():
    config = {"label": {"_target_": "medvl.transforms.LabelReportd", "keys": "sentences", "text_unit": "sentence"}}
    transform = pickle.loads(pickle.dumps(ConfigParser(config).get_parsed_content("label")))
    assert transform({"sentences": ["No edema."]})["text_label"].shape == (1, 14)
    assert LabelReportd(label_key="y")({"report": "No edema."})["y"].shape == (14,)
