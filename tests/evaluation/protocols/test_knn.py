"""k nearest neighbors: votes against scikit-learn and by hand, the choice of k, findings of one class."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from medvl.evaluation import BootstrapConfig, Embeddings, compare, knn, registered_protocols
from medvl.evaluation.protocols import knn as module
from medvl.evaluation.protocols.knn import KS, neighbor_votes

NAMES = ["Edema", "Fracture"]
SHORT = BootstrapConfig(n_resamples=30)


def studies(seed, number=120, noise=1.0, missing=0.1):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, 2, generator=generator) < 0.4).float()
    image = (2 * labels - 1) @ torch.eye(8)[:2] + noise * torch.randn(number, 8, generator=generator)
    labels[torch.rand(number, 2, generator=generator) < missing] = torch.nan
    return Embeddings(image, image, labels=labels, patient_ids=[f"s{seed}-{row // 2}" for row in range(number)])


def reference(train, targets, images, k, temperature):
    """Votes for one finding by scikit-learn."""
    known = ~np.isnan(targets)
    model = KNeighborsClassifier(
        min(k, known.sum()), metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    )
    return model.fit(train[known], targets[known]).predict_proba(images)[:, 1]


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_equal_scikit_learn(temperature, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 32)  # 120 images are not a multiple of it
    train, test = studies(0), studies(1)
    targets = train.labels.numpy().astype(float)
    # scikit-learn divides by the lengths again, which float32 embeddings have rounded.
    images = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (train.image.double(), test.image.double())
    ]
    images = [np.asarray(part) for part in images]
    votes = neighbor_votes(images[0], targets, images[1], [1, 7, 40, 1000], temperature)
    for place, k in enumerate([1, 7, 40, 1000]):
        for finding in range(2):
            expected = reference(images[0], targets[:, finding], images[1], k, temperature)
            np.testing.assert_allclose(votes[place, :, finding], expected, atol=1e-9)


def test_metrics_and_the_chosen_k_are_those_of_scikit_learn():
    train, validation, test = studies(0), studies(1), studies(2)
    result = knn(train, validation, test, NAMES, ks=[40, 1, 7], temperature=0.5, bootstrap=SHORT)

    def macro(part, k):
        aurocs = []
        for f in range(2):
            votes = reference(train.image.numpy(), train.labels[:, f].numpy(), part.image.numpy(), k, 0.5)
            known = ~part.labels[:, f].isnan().numpy()
            aurocs.append(roc_auc_score(part.labels[known, f], votes[known]))
        return np.mean(aurocs)

    assert list(result.validation_auroc) == [1, 7, 40]
    for k, auroc in result.validation_auroc.items():
        assert auroc == pytest.approx(macro(validation, k), abs=1e-6)
    assert result.k == max(result.validation_auroc, key=result.validation_auroc.get)
    assert result.macro["auroc"].value == pytest.approx(macro(test, result.k), abs=1e-6)
    assert result.macro["auroc"].low < result.macro["auroc"].value < result.macro["auroc"].high
    assert result.findings["Edema"].f1.value > 0.6


def test_by_hand_with_extreme_temperatures():
    train = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    targets = np.array([[0.0], [1.0], [1.0]])
    image = np.array([[1.0, 0.0]])  # cosines 1, 0.8 and 0
    weights = np.exp(np.array([1, 0.8, 0]) / 0.5)
    votes = neighbor_votes(train, targets, image, [1, 2, 3], 0.5)[:, 0, 0]
    assert votes.tolist() == pytest.approx([0, weights[1] / weights[:2].sum(), weights[1:].sum() / weights.sum()])
    assert neighbor_votes(train, targets, image, [3], 1e-4)[0, 0, 0] == 0
    assert neighbor_votes(train, targets, image, [3], 1e9)[0, 0, 0] == pytest.approx(2 / 3)


def test_of_equal_numbers_of_neighbors_the_smallest_is_chosen():
    sets = [studies(seed, noise=0.01, missing=0) for seed in range(3)]
    result = knn(*sets, NAMES, ks=[9, 3, 3], bootstrap=SHORT)
    assert (result.k, result.validation_auroc) == (3, {3: 1.0, 9: 1.0})
    assert result.settings["ks"] == [3, 9]
    assert (knn(*sets, NAMES, bootstrap=SHORT).settings["ks"], KS) == (
        [5, 10, 20, 50, 100, 200],
        (5, 10, 20, 50, 100, 200),
    )
    # Validation of one class cannot choose: the smallest.
    sets[1].labels[:] = 1
    result = knn(*sets, NAMES, ks=[9, 3], bootstrap=SHORT)
    assert result.k == 3
    assert math.isnan(result.validation_auroc[3])
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["validation_auroc"] == {"3": None, "9": None}


def test_findings_of_one_class():
    train, validation, test = (studies(seed) for seed in range(3))
    train.labels[:, 1] = 0
    with pytest.warns(
        RuntimeWarning, match="1 finding is not classified, as the training labels are of one class: Fracture"
    ):
        result = knn(train, validation, test, NAMES, bootstrap=SHORT)
    assert math.isnan(result.findings["Fracture"].auroc.value)
    assert result.macro["auroc"].value == result.findings["Edema"].auroc.value
    train, test = studies(0), studies(2)
    test.labels[:, 1] = 1
    with pytest.warns(RuntimeWarning, match="1 finding has one class only among the labeled cases; .*: Fracture"):
        result = knn(train, validation, test, NAMES, bootstrap=SHORT)
    assert result.macro["auroc"].value == result.findings["Edema"].auroc.value
    train.labels[:, 0] = torch.nan
    assert list(knn(train, validation, studies(3), NAMES, bootstrap=SHORT).findings) == ["Fracture"]


def test_outputs_and_comparison():
    train, validation, test = (studies(seed) for seed in range(3))
    result = knn(train, validation, test, NAMES, bootstrap=SHORT)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(content["macro"]) == {"auroc", "auprc", "f1", "brier", "ece"}
    assert (content["k"], content["cases"]) == (result.k, 120)
    assert content["settings"]["temperature"] == 0.07
    lines = result.table(result).splitlines()
    assert lines[0].split() == ["Finding", "Present", "Absent", "AUROC", "AUPRC", "F1", "Untrained", "AUROC"]
    assert result.key_figures()[0].cell.note == f"with {result.k} neighbors"
    assert len(result.case_table()) == int((~test.labels.isnan()).sum())
    blind = [
        Embeddings(torch.randn(120, 8), torch.ones(120, 8), labels=part.labels, patient_ids=part.patient_ids)
        for part in (train, validation, test)
    ]
    difference = compare(result, knn(*blind, NAMES, bootstrap=SHORT), names=["auroc"]).differences["auroc"]
    assert difference.difference.low > 0


def test_wrong_arguments_are_named():
    train, validation, test = (studies(seed) for seed in range(3))
    with pytest.raises(ValueError, match=r"^ks must be at least 1, got 0\.$"):
        knn(train, validation, test, NAMES, ks=[0])
    with pytest.raises(ValueError, match=r"^ks must hold at least one number of neighbors, got none\.$"):
        knn(train, validation, test, NAMES, ks=[])
    with pytest.raises(TypeError, match=r"^ks must be an integer, got 2\.5\.$"):
        knn(train, validation, test, NAMES, ks=[2.5])
    with pytest.raises(ValueError, match=r"^temperature must be above 0, got 0\.$"):
        knn(train, validation, test, NAMES, temperature=0)
    with pytest.raises(ValueError, match=r"^train and test must have no patient in common, got 60, 's0-0' first\.$"):
        knn(train, validation, train, NAMES)


def test_it_is_registered():
    (protocol,) = (protocol for protocol in registered_protocols() if protocol.name == "knn")
    assert (protocol.key, protocol.on_request) == ("knn", False)
    assert list(protocol.requires) == ["labels", "training", "validation"]
