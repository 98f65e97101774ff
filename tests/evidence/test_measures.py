"""What the measures count, on embeddings whose figures are known; and a real training, measured."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from evidence import measures
from evidence.arms import ARMS
from evidence.data import EvidenceData
from evidence.measures import WORDINGS, measure, same_diagnosis
from evidence.scales import SCALES
from evidence.training import KnownLabelsLoss, train_arm
from medvl.evaluation import Embeddings

SCALE = replace(SCALES["quick"], studies=60)


def measured(image, text, labels, patients):
    embeddings = Embeddings(image, text, patient_ids=patients, labels=labels)
    context = SimpleNamespace(findings=["No Finding", "Edema", "Fracture"])
    return SimpleNamespace(embeddings=embeddings, labels=labels, findings=["Edema", "Fracture"], context=context)


def test_same_diagnosis_is_ranked_among_other_patients():
    labels = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
    text = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]])
    # Of the four images two have another patient with their diagnosis, and both place that report first.
    assert same_diagnosis(measured(text, text, labels, list("abcd")))["auroc"] == 1.0
    swapped = text[[0, 2, 1, 3]]  # now that report is the farther one for image 0
    assert same_diagnosis(measured(text, swapped, labels, list("abcd")))["auroc"] < 1.0
    # Studies of one patient do not count: image 0 has nobody left with its diagnosis.
    assert np.isnan(same_diagnosis(measured(text, text, labels, list("aacd")))["auroc"])


def test_same_diagnosis_is_asked_of_studies_without_a_report_too():
    labels = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]])
    image = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0], [1, 0]])
    text = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [np.nan, np.nan]])
    # Images 0 and 4 have the reports of their diagnosis first, image 2 too, and 1 and 3 last.
    assert same_diagnosis(measured(image, text, labels, list("abcde")))["auroc"] == pytest.approx(3 / 5)


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.3  # with ties
    assert measures._auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(measures._auroc(scores, np.ones(50, bool)))


def test_wordings_are_distinct_and_both_sides_name_the_finding():
    assert len({side for pair in WORDINGS for side in pair}) == 2 * len(WORDINGS)
    assert all(side.count("{}") == 1 for pair in WORDINGS for side in pair)


def test_unknown_labels_have_no_loss():
    logits = torch.tensor([[2.0, -1.0, 5.0]])
    labels = torch.tensor([[1.0, 0.0, float("nan")]])
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert KnownLabelsLoss()(logits, labels).item() == pytest.approx(expected)
    assert KnownLabelsLoss()(logits, torch.tensor([[1.0, 0.0, -1.0]])).item() == pytest.approx(expected)


def test_the_supervised_baseline_learns_and_is_measured(tmp_path):
    data = EvidenceData(SCALE, tmp_path)
    data.prepare()
    arm, longer = ARMS["supervised"], replace(SCALE, epochs=12)
    short, again, long = (train_arm(arm, scale, 0, data, tmp_path / "run") for scale in (SCALE, SCALE, longer))
    assert all(torch.equal(a, b) for a, b in zip(short.model.parameters(), again.model.parameters(), strict=True))
    studies = short.test.studies("train")
    assert (short.steps, long.steps) == (len(studies) // SCALE.batch_size, 12 * (len(studies) // SCALE.batch_size))
    batch = next(iter(short.test.loader(studies)))
    with torch.inference_mode():
        losses = [KnownLabelsLoss()(trained.classifier(batch["image"]), batch["label"]) for trained in (short, long)]
    assert losses[1] < losses[0]
    figures = measure(long, {"classifier", "probe"})
    assert set(figures) == {"classifier/auroc", "probe/1", "probe/10", "probe/100"}
    assert 0 < figures["classifier/auroc"] <= 1


def test_an_untrained_arm_is_measured_with_random_weights(tmp_path):
    data = EvidenceData(SCALE, tmp_path)
    data.prepare()
    trained, other = (train_arm(ARMS["untrained"], SCALE, seed, data, tmp_path / f"run-{seed}") for seed in (0, 1))
    assert trained.steps == 0
    assert not torch.equal(next(trained.model.parameters()), next(other.model.parameters()))
    names = {"zero_shot", "retrieval", "grounding", "wording", "few_shot"}
    figures = measure(trained, names)
    assert {name.partition("/")[0] for name in figures} == names
    assert figures["retrieval/image_to_text_chance"] > 0
    assert figures["wording/lowest"] <= figures["wording/mean"]
    assert 0 <= figures["few_shot/dice_10"] <= 1
