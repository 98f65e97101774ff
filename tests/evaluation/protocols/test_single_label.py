"""Balanced drawing, the single-label protocol against scikit-learn, and its traps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from medvl.evaluation import BootstrapConfig, Embeddings, exclusive_classes, zero_shot_single_label
from medvl.evaluation.protocols.single_label import classification_statistics

NAMES = ["No Finding", "Edema", "Fracture", "Pneumonia"]
PROMPTS = {"Fracture": ["fracture", "broken rib"], "Edema": ["edema"], "Pneumonia": ["pneumonia"]}
AXES = {"edema": 0, "fracture": 1, "broken rib": 1, "pneumonia": 2}


def encode(texts):
    return torch.stack([torch.eye(8)[AXES[text]] + 0.1 * (len(text) % 3) for text in texts])


def studies(number=300, seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, 4, generator=generator) < torch.tensor([0.0, 0.35, 0.25, 0.3])).float()
    labels[:, 0] = (labels[:, 1:].sum(1) == 0).float()
    image = labels[:, 1:] @ torch.eye(8)[:3] + noise * torch.randn(number, 8, generator=generator)
    labels[torch.rand(number, 4, generator=generator) < 0.15] = torch.nan
    labels[torch.rand(number, 4, generator=generator) < 0.05] = -1
    return Embeddings(image, image, labels=labels, patient_ids=[f"p{i // 2}" for i in range(number)])


@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_figures_equal_scikit_learn_on_the_definition_written_out(ensemble):
    embeddings = studies()
    result = zero_shot_single_label(
        embeddings, PROMPTS, encode, NAMES, per_class=20, ensemble=ensemble, bootstrap=BootstrapConfig(n_resamples=50)
    )
    row_of = {study: row for row, study in enumerate(embeddings.study_ids)}
    targets, predictions = [], []
    for study in result.study_ids:
        states = dict(zip(NAMES, embeddings.labels[row_of[study]].tolist(), strict=True))
        shown = [name for name in PROMPTS if states[name] == 1]
        assert len(shown) == 1
        assert all(math.isnan(states[name]) or states[name] == 0 for name in PROMPTS if name != shown[0])
        targets.append(shown[0])
        scores = {}
        for name, prompts in PROMPTS.items():
            units = torch.nn.functional.normalize(encode(prompts), dim=1)
            if ensemble == "mean":
                units = torch.nn.functional.normalize(units.mean(0, keepdim=True), dim=1)
            scores[name] = max(float(embeddings.image[row_of[study]] @ unit) for unit in units)
        predictions.append(max(scores, key=scores.get))
    classes = list(PROMPTS)
    assert result.values["accuracy"].value == pytest.approx(accuracy_score(targets, predictions))
    assert result.values["macro_f1"].value == pytest.approx(f1_score(targets, predictions, average="macro"))
    f1 = f1_score(targets, predictions, average=None, labels=classes)
    assert [result.class_f1[name].value for name in classes] == pytest.approx(f1.tolist())
    np.testing.assert_array_equal(result.confusion, confusion_matrix(targets, predictions, labels=classes))
    assert [targets.count(name) for name in classes] == [20, 20, 20]
    assert result.values["accuracy"].low < result.values["accuracy"].value < result.values["accuracy"].high
    table = result.case_table()
    assert accuracy_score(table.target, table.predicted) == pytest.approx(result.values["accuracy"].value)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["chance"]["accuracy"] == pytest.approx(1 / 3)
    assert "Accuracy" in result.table()


def test_weighted_figures_equal_scikit_learn():
    generator = np.random.default_rng(0)
    targets, predictions = generator.integers(0, 3, 50), generator.integers(0, 3, 50)
    weights = generator.integers(0, 3, size=(6, 50)).astype(np.float32)
    figures = classification_statistics(targets, predictions, "abc", weights)
    for row in range(6):
        expected = f1_score(targets, predictions, average="macro", sample_weight=weights[row])
        assert figures["macro_f1"][row] == pytest.approx(expected)
        assert figures["accuracy"][row] == pytest.approx(
            accuracy_score(targets, predictions, sample_weight=weights[row])
        )


def test_draws_depend_on_the_seed_alone():
    embeddings = studies()

    def drawn(seed):
        return zero_shot_single_label(
            embeddings, PROMPTS, encode, NAMES, per_class=10, seed=seed, bootstrap=BootstrapConfig(n_resamples=2)
        ).study_ids

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_collapsed_model_is_never_right_and_an_image_scores_alone():
    embeddings = studies()
    flat = Embeddings(torch.ones(300, 8), torch.ones(300, 8), labels=embeddings.labels)
    result = zero_shot_single_label(
        flat,
        PROMPTS,
        lambda texts: torch.ones(len(texts), 8),
        NAMES,
        per_class=10,
        bootstrap=BootstrapConfig(n_resamples=5),
    )
    assert result.values["accuracy"].value == 0
    many = zero_shot_single_label(
        embeddings, PROMPTS, encode, NAMES, per_class=None, bootstrap=BootstrapConfig(n_resamples=2)
    )
    row = embeddings.study_ids.index(many.study_ids[0])
    alone = Embeddings(embeddings.image[[row]], embeddings.text[[row]], labels=embeddings.labels[[row]])
    with pytest.warns(RuntimeWarning, match=r"^2 classes are shown alone by no study"):
        single = zero_shot_single_label(
            alone, PROMPTS, encode, NAMES, per_class=None, bootstrap=BootstrapConfig(n_resamples=2)
        )
    np.testing.assert_allclose(single.similarity[0], many.similarity[0], atol=1e-6)


def test_negative_similarities_are_compared_as_they_are():
    image = torch.tensor([[-1.0, -0.2], [-0.2, -1.0]])
    labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    result = zero_shot_single_label(
        Embeddings(image, image, labels=labels),
        {"a": ["a"], "b": ["b"]},
        lambda texts: torch.stack(
            [torch.tensor([1.0, 0.0]) if text == "a" else torch.tensor([0.0, 1.0]) for text in texts]
        ),
        ["a", "b"],
        per_class=1,
        bootstrap=BootstrapConfig(n_resamples=2),
    )
    assert (result.similarity < 0).all()
    assert result.values["accuracy"].value == 1


def test_fewer_cases_than_asked_stay_balanced_and_no_case_is_refused():
    embeddings = studies()
    numbers = exclusive_classes(embeddings, NAMES, list(PROMPTS))
    available = np.bincount(numbers[numbers >= 0], minlength=3)
    least, fewest = available.min(), list(PROMPTS)[available.argmin()]
    with pytest.warns(
        RuntimeWarning, match=f"{least} in place of 200 studies of each class, as there are no more of {fewest}"
    ):
        result = zero_shot_single_label(embeddings, PROMPTS, encode, NAMES, bootstrap=BootstrapConfig(n_resamples=2))
    assert result.confusion.sum(axis=1).tolist() == [least] * 3
    embeddings.labels[:, 3] = 0
    with pytest.raises(ValueError, match="No studies are left that show one class alone, of Pneumonia"):
        zero_shot_single_label(embeddings, PROMPTS, encode, NAMES)


def test_other_findings_may_be_excluded_as_well():
    labels = torch.tensor(
        [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, torch.nan], [0.0, 0.0, 1.0, -1.0], [1.0, 0.0, 0.0, 0.0]]
    )
    embeddings = Embeddings(torch.ones(4, 1), torch.ones(4, 1), labels=labels)
    assert exclusive_classes(embeddings, NAMES, ["Edema", "Fracture"]).tolist() == [0, 0, 1, -1]
    assert exclusive_classes(embeddings, NAMES, ["Edema", "Fracture"], among=NAMES).tolist() == [-1, 0, -1, -1]
    assert exclusive_classes(embeddings, NAMES, ["No Finding", "Edema"]).tolist() == [1, 1, -1, 0]


def test_wrong_arguments_are_named():
    embeddings = studies()
    with pytest.raises(ValueError, match=r"classes must be two or more .* got \['Nodule'\]"):
        zero_shot_single_label(embeddings, {"Edema": ["edema"], "Nodule": ["n"]}, encode, NAMES)
    with pytest.raises(ValueError, match=r"classes must be two or more .* got \['Edema'\]"):
        zero_shot_single_label(embeddings, {"Edema": ["edema"]}, encode, NAMES)
    for wrong in ("edema", [], {"present": ["edema"], "absent": ["no edema"]}):
        with pytest.raises(ValueError, match=r"class_prompts\['Edema'\] must be a list of at least one string, got "):
            zero_shot_single_label(embeddings, {"Edema": wrong, "Fracture": ["fracture"]}, encode, NAMES)
    with pytest.raises(ValueError, match="labels must have a column for each of the 2 names, got 4"):
        zero_shot_single_label(embeddings, PROMPTS, encode, NAMES[:2])
    with pytest.raises(ValueError, match="number of studies of each class must be at least 1, got 0"):
        zero_shot_single_label(embeddings, PROMPTS, encode, NAMES, per_class=0)
    odd = Embeddings(torch.ones(1, 1), torch.ones(1, 1), labels=torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"labels must be 1, 0, -1 or NaN, got 2"):
        exclusive_classes(odd, NAMES, ["Edema", "Fracture"])
    with pytest.raises(ValueError, match="prompt embeddings must be finite"):
        zero_shot_single_label(
            embeddings, PROMPTS, lambda texts: torch.full((len(texts), 8), torch.nan), NAMES, per_class=5
        )
