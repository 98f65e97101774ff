"""Label agreement: exact values against scikit-learn, thresholds of the validation studies, undefined values."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from medvl.evaluation import BootstrapConfig, Embeddings, compare, label_agreement, registered_protocols, zero_shot
from medvl.evaluation.protocols.label_agreement import METRICS, agreement_statistics

NAMES = ["Edema", "Fracture", "Pneumonia"]
PROMPTS = {name: {"present": [name], "absent": [f"no {name}"]} for name in NAMES}
SHORT = BootstrapConfig(n_resamples=30)


def encode(texts):
    return torch.stack([(-1 if t.startswith("no") else 1) * torch.eye(6)[NAMES.index(t.split()[-1])] for t in texts])


def studies(seed, number=80, noise=1.0, first=0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, 3, generator=generator) < 0.35).float()
    image = (2 * labels - 1) @ torch.eye(6)[:3] + noise * torch.randn(number, 6, generator=generator)
    labels[torch.rand(number, 3, generator=generator) < 0.15] = torch.nan
    labels[torch.rand(number, 3, generator=generator) < 0.05] = -1
    patients = [f"p{first + row // 2}" for row in range(number)]
    return Embeddings(image, image, labels=labels, patient_ids=patients)


def reference(predictions, targets, weights):
    """The five metrics of one finding by scikit-learn, for one row of weights."""
    known = ~np.isnan(targets)
    truth, predicted, weights = targets[known] == 1, predictions[known], weights[known]
    options = {"sample_weight": weights, "zero_division": np.nan}
    return {
        "sensitivity": recall_score(truth, predicted, **options),
        "specificity": recall_score(truth, predicted, pos_label=False, **options),
        "ppv": precision_score(truth, predicted, **options),
        "npv": precision_score(truth, predicted, pos_label=False, **options),
        "f1": f1_score(truth, predicted, **options),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_scikit_learn(weighted):
    result = label_agreement(studies(0), PROMPTS, encode, NAMES, bootstrap=SHORT)
    weights = np.random.default_rng(0).integers(1, 4, (3, 80)).astype(np.float32) if weighted else np.ones((1, 80))
    found = result.statistics(weights)
    for row, given in enumerate(weights):
        expected = [reference(result.predictions[:, f], result.targets[:, f], given) for f in range(3)]
        for metric in METRICS:
            for f, name in enumerate(NAMES):
                assert found[f"{metric}/{name}"][row] == pytest.approx(expected[f][metric])
            assert found[metric][row] == pytest.approx(np.mean([part[metric] for part in expected]))
    if not weighted:
        assert result.macro["f1"].value == pytest.approx(found["f1"][0])
        assert result.findings["Edema"]["ppv"].value == pytest.approx(found["ppv/Edema"][0])


def test_by_hand():
    predictions = np.array([[True], [True], [True], [False], [False], [False], [False]])
    targets = np.array([[1.0], [1.0], [0.0], [1.0], [0.0], [0.0], [math.nan]])
    found = agreement_statistics(predictions, targets, ["Edema"], np.ones((1, 7)))
    expected = {"sensitivity": 2 / 3, "specificity": 2 / 3, "ppv": 2 / 3, "npv": 2 / 3, "f1": 2 / 3}
    assert {name: pytest.approx(found[name][0]) for name in METRICS} == expected
    found = agreement_statistics(predictions, targets, ["Edema"], np.array([[3, 1, 2, 1, 5, 0, 9]]))
    assert [found[name][0] for name in METRICS] == pytest.approx([4 / 5, 5 / 7, 4 / 6, 5 / 6, 8 / 11])


def test_thresholds_are_those_of_zero_shot_on_validation():
    test, validation = studies(1), studies(2, first=1000)
    result = label_agreement(test, PROMPTS, encode, NAMES, validation=validation, bootstrap=SHORT)
    other = zero_shot(test, PROMPTS, encode, NAMES, validation=validation, bootstrap=SHORT)
    assert result.thresholds.tolist() == list(other.settings["thresholds"].values())
    assert result.macro["f1"].value == pytest.approx(other.macro["f1"].value)
    assert result.findings["Edema"]["f1"].low == pytest.approx(other.findings["Edema"].f1.low)
    assert result.without_threshold == ()
    assert result.notes() == []


def test_without_validation_the_threshold_is_a_probability_of_one_half():
    result = label_agreement(studies(1), PROMPTS, encode, NAMES, bootstrap=SHORT)
    other = zero_shot(studies(1), PROMPTS, encode, NAMES, bootstrap=SHORT)
    np.testing.assert_array_equal(result.predictions, other.probabilities >= 0.5)
    assert result.without_threshold == tuple(NAMES)
    assert "a probability of 0.5" in result.tables()[0].description
    assert result.notes() == []  # the table says it of all findings
    # A finding without a present case in validation falls back alone.
    validation = studies(2, first=1000)
    validation.labels[:, 1] = 0
    result = label_agreement(studies(1), PROMPTS, encode, NAMES, validation=validation, bootstrap=SHORT)
    assert result.without_threshold == ("Fracture",)
    assert result.notes() == [
        "Predicted present at a probability of 0.5, without a threshold from validation: Fracture."
    ]
    assert result.thresholds[1] == 0


def test_undefined_metrics_are_nan_and_one_class_is_left_out():
    embeddings = studies(3)
    embeddings.labels[:, 2] = 0
    with pytest.warns(RuntimeWarning, match="1 finding has one class only .*: Pneumonia"):
        result = label_agreement(embeddings, PROMPTS, encode, NAMES, bootstrap=SHORT)
    assert result.left_out == ("Pneumonia",)
    assert math.isnan(result.findings["Pneumonia"]["sensitivity"].value)
    assert math.isnan(result.findings["Pneumonia"]["f1"].value)
    assert result.findings["Pneumonia"]["specificity"].value > 0
    mean = np.mean([result.findings[name]["specificity"].value for name in NAMES[:2]])
    assert result.macro["specificity"].value == pytest.approx(mean)
    assert "Left out of label agreement's macro means" in result.notes()[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        never = agreement_statistics(
            np.zeros((2, 1), bool), np.array([[1.0], [0.0]]), ["A"], np.array([[1, 1], [0, 1]])
        )
    np.testing.assert_array_equal(never["ppv"], [math.nan, math.nan])
    np.testing.assert_array_equal(never["npv/A"], [0.5, 1])
    np.testing.assert_array_equal(never["f1"], [0, math.nan])


def test_outputs():
    result = label_agreement(studies(0), PROMPTS, encode, NAMES, bootstrap=SHORT)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    edema = content["findings"]["Edema"]
    counted = sum(edema[key] for key in ("true_positives", "false_positives", "false_negatives", "true_negatives"))
    assert counted == int((~np.isnan(result.targets[:, 0])).sum())
    assert edema["sensitivity"]["interval"][0] <= edema["sensitivity"]["value"] <= edema["sensitivity"]["interval"][1]
    assert (edema["threshold"], content["cases"]) == (0.0, 80)
    lines = result.table(result).splitlines()
    assert lines[0].split()[:6] == ["Finding", "Present", "Absent", "Sensitivity", "Specificity", "PPV"]
    assert lines[0].endswith("Untrained specificity")
    assert lines[-1].startswith("Macro")
    assert [figure.name for figure in result.key_figures()] == ["Macro sensitivity", "Macro specificity"]
    table = result.case_table()
    assert len(table) == int((~np.isnan(result.targets)).sum())
    assert (table.prediction[table.finding == "Edema"]).sum() == edema["true_positives"] + edema["false_positives"]


def test_it_says_where_the_thresholds_come_from():
    chosen = label_agreement(studies(0), PROMPTS, encode, NAMES, validation=studies(1, first=100), bootstrap=SHORT)
    assert "the one that maximizes F1 on the validation split" in chosen.tables()[0].description
    assert {figure.cell.note for figure in chosen.key_figures()} == {"at the validation threshold"}
    assert "the threshold chosen on the validation split" in chosen.explanations()["F1"]
    unchosen = label_agreement(studies(0), PROMPTS, encode, NAMES, bootstrap=SHORT)
    assert "There are no validation cases to choose thresholds on." in unchosen.tables()[0].description
    assert "maximizes" not in unchosen.tables()[0].description
    assert {figure.cell.note for figure in unchosen.key_figures()} == {"at a probability of 0.5"}
    assert "F1" not in unchosen.explanations()


def test_uncertain_labels_and_comparison():
    embeddings = studies(0)
    excluded = label_agreement(embeddings, PROMPTS, encode, NAMES, bootstrap=SHORT)
    present = label_agreement(embeddings, PROMPTS, encode, NAMES, uncertain="present", bootstrap=SHORT)
    assert (present.targets == 1).sum() == (excluded.targets == 1).sum() + (embeddings.labels == -1).sum()
    noisy = label_agreement(
        Embeddings(
            studies(9, noise=9.0).image, embeddings.text, labels=embeddings.labels, patient_ids=embeddings.patient_ids
        ),
        PROMPTS,
        encode,
        NAMES,
        bootstrap=SHORT,
    )
    assert compare(excluded, noisy, names=["f1"]).differences["f1"].difference.low > 0


def test_wrong_arguments_are_named():
    embeddings = studies(0)
    with pytest.raises(ValueError, match=r"^findings must be among .*, got \['Nodule'\]\.$"):
        label_agreement(embeddings, {"Nodule": PROMPTS["Edema"]}, encode, NAMES)
    with pytest.raises(ValueError, match=r"^class_prompts must be of at least one finding, got none\.$"):
        label_agreement(embeddings, {}, encode, NAMES)
    with pytest.raises(ValueError, match=r"^validation and test must have no patient in common, got 40, 'p0' first\.$"):
        label_agreement(embeddings, PROMPTS, encode, NAMES, validation=studies(1))


def test_it_is_registered():
    (protocol,) = (protocol for protocol in registered_protocols() if protocol.name == "label-agreement")
    assert (protocol.key, list(protocol.requires), protocol.on_request) == ("label_agreement", ["labels"], False)
