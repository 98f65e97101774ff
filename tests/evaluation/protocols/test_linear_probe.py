"""Linear probe and fine-tuning against scikit-learn, patients kept apart, and cases with nothing to learn."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from medvl.evaluation import BootstrapConfig, Embeddings, fine_tune, linear_probe
from medvl.evaluation.protocols.linear_probe import patient_subset

NAMES = ["Edema", "Fracture"]
AXES = torch.randn(2, 12, generator=torch.Generator().manual_seed(9))


def studies(first, number, noise=2.0):
    generator = torch.Generator().manual_seed(first)
    labels = (torch.rand(number, 2, generator=generator) < 0.4).float()
    image = (2 * labels - 1) @ AXES + noise * torch.randn(number, 12, generator=generator)
    labels[torch.rand(number, 2, generator=generator) < 0.15] = torch.nan
    labels[torch.rand(number, 2, generator=generator) < 0.05] = -1
    return Embeddings(image, image, labels=labels, patient_ids=[f"p{first + i // 2}" for i in range(number)])


def sets():
    return studies(0, 400), studies(1000, 120), studies(2000, 160)


def test_all_labels_equal_scikit_learn_with_the_strength_that_validation_chooses():
    train, validation, test = sets()
    result = linear_probe(
        train,
        validation,
        test,
        NAMES,
        fractions=[1.0],
        c_values=[0.001, 0.1, 10.0],
        bootstrap=BootstrapConfig(n_resamples=50),
    )
    part = result.fractions[1.0]
    scaler = StandardScaler().fit(train.image.double().numpy())
    features = [scaler.transform(given.image.double().numpy()) for given in (train, validation, test)]
    for column, name in enumerate(NAMES):
        labels = [given.labels[:, column].numpy() for given in (train, validation, test)]
        known = [(given == 0) | (given == 1) for given in labels]
        tried = {}
        for strength in (0.001, 0.1, 10.0):
            model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(
                features[0][known[0]], labels[0][known[0]]
            )
            tried[strength] = roc_auc_score(labels[1][known[1]], model.decision_function(features[1])[known[1]]), model
        best = max(tried, key=lambda strength: tried[strength][0])
        assert part.c_values[0, column] == best
        scores = tried[best][1].decision_function(features[2])[known[2]]
        finding = part.findings[name]
        assert finding.auroc.value == pytest.approx(roc_auc_score(labels[2][known[2]], scores), abs=2e-3)
        assert finding.auprc.value == pytest.approx(average_precision_score(labels[2][known[2]], scores), abs=2e-3)
        rows = part.case_table().query("finding == @name")
        assert f1_score(rows.target, rows.prediction) == pytest.approx(finding.f1.value)
        assert finding.auroc.low < finding.auroc.value < finding.auroc.high
    assert part.seed_auroc == (pytest.approx(part.macro["auroc"].value),)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["1"]["train_studies"] == 400
    assert "100 % of labels" in result.table()


def test_seeds_are_averaged_and_more_labels_help():
    result = linear_probe(
        *sets(), NAMES, fractions=[0.05, 1.0], seeds=[0, 1, 2], bootstrap=BootstrapConfig(n_resamples=30)
    )
    few, all_labels = result.fractions[0.05], result.fractions[1.0]
    assert few.train_studies == 20
    assert len(few.seed_auroc) == 3
    assert len(set(few.seed_auroc)) == 3
    assert few.macro["auroc"].value == pytest.approx(np.mean(few.seed_auroc))
    assert len(all_labels.seed_auroc) == 1
    assert all_labels.macro["auroc"].value > few.macro["auroc"].value
    again = linear_probe(*sets(), NAMES, fractions=[0.05], seeds=[0, 1, 2], bootstrap=BootstrapConfig(n_resamples=30))
    assert again.fractions[0.05].to_dict() == few.to_dict()


def test_subsets_are_of_whole_patients_and_nested():
    patients = [f"p{i // 3}" for i in range(90)]
    small, large = patient_subset(patients, 0.1, seed=4), patient_subset(patients, 0.5, seed=4)
    assert len(small) == 9
    assert len({patients[row] for row in small}) == 3
    assert set(small) <= set(large)
    assert set(small) != set(patient_subset(patients, 0.1, seed=5))
    assert len(patient_subset(["a", "b"], 0.01, seed=0)) == 1


def test_findings_that_a_subset_does_not_know_are_counted_and_left_out():
    train, validation, test = sets()
    train.labels[:, 1] = 0
    with pytest.warns(RuntimeWarning, match=r"1 of 2 classifiers at 100 % of the labels were not trained, .* Fracture"):
        part = linear_probe(
            train, validation, test, NAMES, fractions=[1.0], bootstrap=BootstrapConfig(n_resamples=5)
        ).fractions[1.0]
    assert math.isnan(part.findings["Fracture"].auroc.value)
    assert part.macro["auroc"].value == part.findings["Edema"].auroc.value
    json.dumps(part.to_dict(), allow_nan=False)
    train.labels[:, 1] = torch.nan
    assert list(
        linear_probe(train, validation, test, NAMES, fractions=[1.0], bootstrap=BootstrapConfig(n_resamples=5))
        .fractions[1.0]
        .findings
    ) == ["Edema"]
    test.labels[:, 0] = 1
    with pytest.warns(RuntimeWarning, match=r"^1 finding has one class only .* Edema"):
        result = linear_probe(train, validation, test, NAMES, fractions=[1.0], bootstrap=BootstrapConfig(n_resamples=5))
    assert math.isnan(result.fractions[1.0].macro["auroc"].value)
    assert [str(cell) for cell in result.tables()[0].rows[0].cells][1::3] == ["n/a", "n/a"]  # AUROC, and its range


def test_the_range_leaves_out_seeds_without_a_figure():
    result = linear_probe(*sets(), NAMES, fractions=[1.0], bootstrap=BootstrapConfig(n_resamples=5))
    part = dataclasses.replace(result.fractions[1.0], seed_auroc=(math.nan, 0.7, 0.6))
    table = dataclasses.replace(result, fractions={1.0: part}).tables()[0]
    assert str(table.rows[0].cells[-1]) == "0.600 to 0.700"


def test_wrong_arguments_are_named():
    train, validation, test = sets()
    with pytest.raises(ValueError, match=r"fractions must be above 0, got 0"):
        linear_probe(train, validation, test, NAMES, fractions=[0])
    with pytest.raises(ValueError, match="labels must have a column for each of the 1 names, got 2"):
        linear_probe(train, validation, test, NAMES[:1])
    with pytest.raises(ValueError, match=r"findings must be among .* got \['Nodule'\]"):
        linear_probe(train, validation, test, NAMES, findings=["Nodule"])
    test.patient_ids[0] = train.patient_ids[0]
    with pytest.raises(ValueError, match="train and test must have no patient in common, got 1, 'p0' first"):
        linear_probe(train, validation, test, NAMES)


class Encoder(torch.nn.Module):
    """Twelve pixels through a layer whose first weights hide what the image shows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(12, 6)
        self.dropout = torch.nn.Dropout(0.1)

    def encode_image(self, images):
        return torch.nn.functional.normalize(self.dropout(self.layer(images.flatten(1))), dim=1)


def loader(given, size=32):
    batches = []
    for start in range(0, len(given), size):
        rows = slice(start, start + size)
        batches.append(
            {
                "image": given.text[rows].reshape(-1, 1, 3, 4),
                "label": given.labels[rows],
                "study_id": [f"{given.patient_ids[0]}-{row}" for row in range(start, min(start + size, len(given)))],
                "patient_id": given.patient_ids[rows],
            }
        )
    return batches


def test_fine_tuning_learns_leaves_the_model_alone_and_repeats():
    train, validation, test = (loader(given) for given in sets())
    model = Encoder()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    options = {
        "epochs": 6,
        "learning_rate": 1e-2,
        "head_learning_rate": 1e-2,
        "bootstrap": BootstrapConfig(n_resamples=20),
    }
    tuned = fine_tune(model, train, validation, test, NAMES, **options)
    frozen = fine_tune(model, train, validation, test, NAMES, **{**options, "learning_rate": 0.0})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    auroc = tuned.result.macro["auroc"].value
    assert auroc > 0.75
    assert torch.equal(frozen.classifier.encoder.layer.weight, before["layer.weight"])
    assert not torch.equal(tuned.classifier.encoder.layer.weight, before["layer.weight"])
    assert tuned.best_epoch > 0
    assert tuned.history[tuned.best_epoch - 1]["auroc"] == max(epoch["auroc"] for epoch in tuned.history)
    logits = torch.cat([tuned.classifier(batch["image"]) for batch in test])
    np.testing.assert_allclose(tuned.result.cases.scores[0], logits.detach().numpy(), atol=1e-5)
    assert fine_tune(model, train, validation, test, NAMES, **options).result.macro["auroc"].value == auroc
    assert tuned.result.train_studies == 400
    json.dumps(tuned.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("aurocs", "best"), [([0.5, 0.6, 0.9, 0.7], 2), ([0.9] * 4, 0), ([math.nan] * 4, 3)])
def test_fine_tuning_keeps_the_weights_of_the_best_epoch(monkeypatch, aurocs, best):
    module = importlib.import_module("medvl.evaluation.protocols.fine_tune")
    score, given, weights = module._score, iter(aurocs), []

    def keep(function, batches, device):
        if isinstance(function, torch.nn.Module):  # the classifier; first with the linear probe as its head
            weights.append(copy.deepcopy(function.state_dict()))
        return score(function, batches, device)

    monkeypatch.setattr(module, "_score", keep)
    monkeypatch.setattr(module, "_macro_auroc", lambda scores, targets: next(given))
    tuned = fine_tune(
        Encoder(), *(loader(data) for data in sets()), NAMES, epochs=3, bootstrap=BootstrapConfig(n_resamples=2)
    )
    assert tuned.best_epoch == best
    assert all(torch.equal(value, weights[best][key]) for key, value in tuned.classifier.state_dict().items())
    assert not torch.equal(weights[2]["head.1.weight"], weights[3]["head.1.weight"])


def test_fine_tuning_starts_at_the_linear_probe():
    train, validation, test = sets()
    model = Encoder()
    still = {"epochs": 1, "learning_rate": 0.0, "head_learning_rate": 0.0, "bootstrap": BootstrapConfig(n_resamples=5)}
    start = fine_tune(model, loader(train), loader(validation), loader(test), NAMES, **still)
    assert start.best_epoch == 0
    model.eval()
    parts = []
    for given in (train, validation, test):
        with torch.no_grad():
            embeds = model.encode_image(given.text.reshape(-1, 1, 3, 4))
        embeds = torch.nn.functional.layer_norm(embeds, embeds.shape[-1:])
        parts.append(dataclasses.replace(given, image=embeds, text=embeds))
    probe = linear_probe(*parts, NAMES, fractions=[1.0], bootstrap=BootstrapConfig(n_resamples=5)).fractions[1.0]
    np.testing.assert_allclose(start.result.cases.scores[0], probe.cases.scores[0], rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(
        [found.f1.value for found in start.result.findings.values()],
        [found.f1.value for found in probe.findings.values()],
    )


def test_fine_tuning_names_what_is_wrong():
    train, validation, test = (loader(given) for given in sets())

    class Detached(Encoder):
        def encode_image(self, images):
            return super().encode_image(images).detach()

    with pytest.raises(RuntimeError, match="encode_image has no gradient"):
        fine_tune(Detached(), train, validation, test, NAMES, epochs=1)
    with pytest.raises(ValueError, match="train and validation must have no patient in common"):
        fine_tune(Encoder(), train, train, test, NAMES, epochs=1)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fine_tune(Encoder(), train, validation, test, NAMES, epochs=0)
    with pytest.raises(ValueError, match="batches must each hold image and label, got none, or one without"):
        fine_tune(Encoder(), [], validation, test, NAMES)
    with pytest.raises(ValueError, match="labels must have a column for each of the 1 names, got 2"):
        fine_tune(Encoder(), train, validation, test, NAMES[:1], epochs=1)
