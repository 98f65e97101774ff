"""Zero-shot classification against scikit-learn and by hand, and its traps."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from medvl.evaluation import BootstrapConfig, Embeddings, Evaluation, evaluate, zero_shot

NAMES = ["Edema", "Pleural Effusion", "Fracture"]
PROMPTS = {
    name: {"present": [f"{name} is seen", f"{name}"], "absent": [f"no {name}", f"{name} is absent"]} for name in NAMES
}


class FakeModel:
    """Text directions of its own for each prompt; images near the directions of what they show."""

    def __init__(self, width=24, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.vectors = {}
        for name in NAMES:
            axis = torch.randn(width, generator=generator)
            for side, sign in (("present", 1.0), ("absent", -1.0)):
                for prompt in PROMPTS[name][side]:
                    self.vectors[prompt] = sign * axis + 0.5 * torch.randn(width, generator=generator)
        self.calls = 0

    def encode_text(self, texts):
        self.calls += 1
        return torch.nn.functional.normalize(torch.stack([self.vectors[text] for text in texts]), dim=1)


def studies(model, number=60, seed=1, noise=6.0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(number, 3, generator=generator) < 0.4).float()
    axes = torch.stack([model.vectors[PROMPTS[name]["present"][0]] for name in NAMES])
    image = (2 * labels - 1) @ axes + noise * torch.randn(number, axes.shape[1], generator=generator)
    labels[torch.rand(number, 3, generator=generator) < 0.2] = torch.nan
    labels[torch.rand(number, 3, generator=generator) < 0.1] = -1
    return Embeddings(image, torch.full_like(image, torch.nan), labels=labels)


def expected_margin(model, image, name, ensemble):
    """The definition written out for one image and one finding."""
    similarities = {}
    for side in ("present", "absent"):
        vectors = [v / v.norm() for v in (model.vectors[p].double() for p in PROMPTS[name][side])]
        if ensemble == "mean":
            mean = sum(vectors) / len(vectors)
            vectors = [mean / mean.norm()]
        similarities[side] = max(float(image @ v) for v in vectors)
    return similarities["present"] - similarities["absent"]


@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_figures_equal_scikit_learn_on_the_definition_written_out(ensemble):
    model = FakeModel()
    embeddings = studies(model)
    result = zero_shot(
        embeddings, PROMPTS, model, NAMES, ensemble=ensemble, logit_scale=3.0, bootstrap=BootstrapConfig(n_resamples=20)
    )
    aurocs = []
    for column, name in enumerate(NAMES):
        margins = [expected_margin(model, image, name, ensemble) for image in embeddings.image.double()]
        np.testing.assert_allclose(result.margins[:, column], margins, atol=1e-6)
        probability = [
            math.exp(3 * m) / (math.exp(3 * m) + 1)
            for m in margins  # softmax over the pair, shifted by the absent logit
        ]
        np.testing.assert_allclose(result.probabilities[:, column], probability, atol=1e-6)
        labels = embeddings.labels[:, column]
        kept = (labels == 0) | (labels == 1)
        finding = result.findings[name]
        assert finding.positives == int((labels == 1).sum())
        assert finding.negatives == int((labels == 0).sum())
        truth, scores = labels[kept], np.array(margins)[kept.numpy()]
        assert finding.auroc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
        assert finding.auprc.value == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
        assert finding.auroc.low < finding.auroc.value < finding.auroc.high
        aurocs.append(finding.auroc.value)
    assert result.macro["auroc"].value == pytest.approx(np.mean(aurocs))
    assert model.calls == 1


def test_f1_is_at_the_threshold_of_the_validation_studies_and_calibration_is_of_the_probabilities():
    model = FakeModel()
    test, validation = studies(model), studies(model, seed=2)
    result = zero_shot(
        test, PROMPTS, model, NAMES, validation=validation, logit_scale=4.0, bootstrap=BootstrapConfig(n_resamples=20)
    )
    for column, name in enumerate(NAMES):
        margins = np.array([expected_margin(model, image, name, "mean") for image in validation.image.double()])
        labels = validation.labels[:, column].numpy()
        known = (labels == 0) | (labels == 1)
        # Every cut between two neighboring scores, and the best of them.
        cuts = np.sort(margins[known])
        cuts = np.concatenate([cuts[:1], (cuts[1:] + cuts[:-1]) / 2])
        scored = [f1_score(labels[known], margins[known] >= cut) for cut in cuts]
        threshold = result.settings["thresholds"][name]
        assert f1_score(labels[known], margins[known] >= threshold) == pytest.approx(max(scored))
        truth = test.labels[:, column].numpy()
        known = (truth == 0) | (truth == 1)
        finding = result.findings[name]
        assert finding.f1.value == pytest.approx(f1_score(truth[known], result.margins[known, column] >= threshold))
        assert finding.f1.low <= finding.f1.value <= finding.f1.high
        probability = result.probabilities[known, column]
        assert finding.brier.value == pytest.approx(brier_score_loss(truth[known], probability))
        curve = result.reliability(name)
        assert curve.counts.sum() == known.sum()
        assert finding.ece.value == curve.error
        assert not finding.ece.has_interval
    assert result.macro["f1"].value == pytest.approx(np.mean([result.findings[name].f1.value for name in NAMES]))
    assert "F1" in result.table()
    table = result.case_table()
    assert len(table) == int(np.isin(test.labels.numpy(), (0, 1)).sum())
    edema = table[table.finding == "Edema"]
    assert f1_score(edema.target, edema.prediction) == pytest.approx(result.findings["Edema"].f1.value)
    without = zero_shot(test, PROMPTS, model, NAMES, logit_scale=4.0, bootstrap=BootstrapConfig(n_resamples=20))
    assert math.isnan(without.macro["f1"].value)
    assert without.case_table().prediction.isna().all()
    assert without.findings["Edema"].auroc == result.findings["Edema"].auroc


def test_validation_shares_no_patient_and_may_lack_a_finding():
    model = FakeModel()
    test, validation = studies(model), studies(model, seed=2)
    test.patient_ids = [f"p{row}" for row in range(60)]
    validation.patient_ids = [f"p{row + 59}" for row in range(60)]
    with pytest.raises(ValueError, match="validation and test must have no patient in common, got 1, 'p59' first"):
        zero_shot(test, PROMPTS, model, NAMES, validation=validation)
    validation.patient_ids = [f"v{row}" for row in range(60)]
    validation.labels[:, 0] = 0
    with pytest.warns(RuntimeWarning, match=r"^1 finding has no present case in validation and therefore no F1: Edema"):
        result = zero_shot(test, PROMPTS, model, NAMES, validation=validation, bootstrap=BootstrapConfig(n_resamples=5))
    assert math.isnan(result.findings["Edema"].f1.value)
    assert result.settings["thresholds"]["Edema"] is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_score_does_not_depend_on_the_other_test_images():
    model = FakeModel()
    everything = studies(model)
    alone = Embeddings(everything.image[:1], everything.text[:1], labels=everything.labels[:1])
    full = zero_shot(everything, PROMPTS, model, NAMES, bootstrap=BootstrapConfig(n_resamples=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        single = zero_shot(alone, PROMPTS, model, NAMES, bootstrap=BootstrapConfig(n_resamples=1))
    np.testing.assert_allclose(single.probabilities[0], full.probabilities[0], atol=1e-6)


def test_a_large_scale_does_not_make_ties():
    model = FakeModel()
    embeddings = studies(model)
    small = zero_shot(embeddings, PROMPTS, model, NAMES, logit_scale=1.0, bootstrap=BootstrapConfig(n_resamples=1))
    huge = zero_shot(embeddings, PROMPTS, model, NAMES, logit_scale=1e4, bootstrap=BootstrapConfig(n_resamples=1))
    assert huge.macro["auroc"].value == small.macro["auroc"].value
    assert np.isfinite(huge.probabilities).all()


@pytest.mark.parametrize(
    ("uncertain", "positives", "negatives"), [("exclude", 1, 2), ("present", 3, 2), ("absent", 1, 4)]
)
def test_uncertain_labels_follow_the_policy_and_missing_ones_never_count(uncertain, positives, negatives):
    model = FakeModel()
    labels = torch.tensor([[1.0], [0.0], [0.0], [-1.0], [-1.0], [torch.nan]])
    image = torch.randn(6, 24)
    embeddings = Embeddings(image, image, labels=labels)
    class_prompts = {"Edema": PROMPTS["Edema"]}
    finding = zero_shot(
        embeddings, class_prompts, model, ["Edema"], uncertain=uncertain, bootstrap=BootstrapConfig(n_resamples=5)
    ).findings["Edema"]
    assert (finding.positives, finding.negatives) == (positives, negatives)


def test_one_class_only_is_nan_counted_named_and_left_out():
    model = FakeModel()
    embeddings = studies(model)
    embeddings.labels[:, 2] = torch.where(embeddings.labels[:, 2] == 1, torch.nan, embeddings.labels[:, 2])
    with pytest.warns(RuntimeWarning, match=r"^1 finding has one class only .* Fracture"):
        result = zero_shot(embeddings, PROMPTS, model, NAMES, bootstrap=BootstrapConfig(n_resamples=50))
    assert result.left_out == ("Fracture",)
    assert math.isnan(result.findings["Fracture"].auroc.value)
    rest = [result.findings[name].auroc.value for name in NAMES[:2]]
    assert result.macro["auroc"].value == pytest.approx(np.mean(rest))
    as_dict = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_dict["findings"]["Fracture"]["auroc"] == {"value": None, "interval": None}
    assert as_dict["left_out"] == ["Fracture"]
    assert "n/a" in result.table()


def test_no_finding_with_two_classes_gives_no_macro():
    model = FakeModel()
    image = torch.randn(4, 24)
    with pytest.warns(RuntimeWarning, match=r"^3 findings have"):
        result = zero_shot(
            Embeddings(image, image, labels=torch.ones(4, 3)),
            PROMPTS,
            model,
            NAMES,
            bootstrap=BootstrapConfig(n_resamples=5),
        )
    assert math.isnan(result.macro["auroc"].value)


@pytest.mark.parametrize(("patients", "stated"), [(1, False), (2, False), (5, True)])
def test_a_class_of_one_or_two_patients_has_a_value_and_no_interval(patients, stated):
    # Every case's weight varies, but the few positives that decide the curve are always the same ones.
    model = FakeModel()
    embeddings = studies(model)
    embeddings.labels = torch.zeros(60, 1)
    embeddings.labels[: 2 * patients] = 1
    embeddings.patient_ids = [f"p{row // 2}" for row in range(60)]
    result = zero_shot(
        embeddings, {"Edema": PROMPTS["Edema"]}, model, ["Edema"], bootstrap=BootstrapConfig(n_resamples=500)
    )
    assert 0 <= result.findings["Edema"].auroc.value <= 1
    assert result.findings["Edema"].auroc.has_interval == stated
    assert result.macro["auroc"].has_interval == stated


def test_labels_are_found_by_name_and_not_by_position():
    model = FakeModel()
    embeddings = studies(model)
    forward = zero_shot(embeddings, PROMPTS, model, NAMES, bootstrap=BootstrapConfig(n_resamples=5))
    turned = Embeddings(embeddings.image, embeddings.text, labels=embeddings.labels[:, [2, 0, 1]])
    backward = zero_shot(
        turned, PROMPTS, model, ["Fracture", "Edema", "Pleural Effusion"], bootstrap=BootstrapConfig(n_resamples=5)
    )
    for name in NAMES:
        assert backward.findings[name].auroc.value == forward.findings[name].auroc.value
    some = zero_shot(
        embeddings, {"Fracture": PROMPTS["Fracture"]}, model, NAMES, bootstrap=BootstrapConfig(n_resamples=5)
    )
    assert list(some.findings) == ["Fracture"]
    assert some.findings["Fracture"].auroc == forward.findings["Fracture"].auroc


def test_the_scale_comes_from_the_model_where_it_has_one():
    model = FakeModel()
    embeddings = studies(model)
    assert (
        zero_shot(embeddings, PROMPTS, model.encode_text, NAMES, bootstrap=BootstrapConfig(n_resamples=1)).settings[
            "logit_scale"
        ]
        == 1 / 0.07
    )
    model.logit_scale = torch.tensor(12.0)
    assert (
        zero_shot(embeddings, PROMPTS, model, NAMES, bootstrap=BootstrapConfig(n_resamples=1)).settings["logit_scale"]
        == 12.0
    )


def test_wrong_arguments_are_named():
    model = FakeModel()
    embeddings = studies(model)
    with pytest.raises(ValueError, match="labels must have a column for each of the 2 names, got 3"):
        zero_shot(embeddings, PROMPTS, model, NAMES[:2])
    with pytest.raises(ValueError, match=r"class_prompts must be of findings among .* got \['Nodule'\]"):
        zero_shot(embeddings, {"Nodule": PROMPTS["Edema"]}, model, NAMES)
    with pytest.raises(
        ValueError, match=r"class_prompts\['Edema'\]\['absent'\] must be a list of at least one string, got \[\]"
    ):
        zero_shot(embeddings, {"Edema": {"present": ["a"], "absent": []}}, model, NAMES)
    with pytest.raises(
        ValueError, match=r"class_prompts\['Edema'\] must be a dictionary of 'present' and 'absent' prompts"
    ):
        zero_shot(embeddings, {"Edema": ["a"]}, model, NAMES)
    with pytest.raises(ValueError, match="ensemble must be one of 'mean', 'max', got 'sum'"):
        zero_shot(embeddings, PROMPTS, model, NAMES, ensemble="sum")
    with pytest.raises(ValueError, match="uncertain must be one of 'exclude', 'present', 'absent', got 'ones'"):
        zero_shot(embeddings, PROMPTS, model, NAMES, uncertain="ones")
    with pytest.raises(ValueError, match=r"labels must be 1, 0, -1 or NaN, got 0.5"):
        zero_shot(Embeddings(torch.eye(3), torch.eye(3), labels=torch.full((3, 3), 0.5)), PROMPTS, model, NAMES)
    with pytest.raises(ValueError, match=r"embeddings.labels must hold the labels of the studies, got None"):
        zero_shot(Embeddings(torch.eye(3), torch.eye(3)), PROMPTS, model, NAMES)
    with pytest.raises(ValueError, match=r"prompt embeddings must be finite, got 12 of 12 rows that are not"):
        zero_shot(embeddings, PROMPTS, lambda texts: torch.full((len(texts), 24), torch.nan), NAMES)
    with pytest.raises(ValueError, match=r"encode_text must give shape \(12, 24\) for 12 prompts, got \(12, 5\)"):
        zero_shot(embeddings, PROMPTS, lambda texts: torch.ones(len(texts), 5), NAMES)


def test_an_evaluation_writes_the_structure_that_the_run_folder_promises(tmp_path):
    model = FakeModel()
    embeddings = studies(model)
    embeddings = Embeddings(embeddings.image, embeddings.image, labels=embeddings.labels)
    untrained = evaluate(
        embeddings, FakeModel(seed=9), class_prompts=PROMPTS, names=NAMES, bootstrap=BootstrapConfig(n_resamples=20)
    )
    evaluation = evaluate(
        embeddings,
        model,
        class_prompts=PROMPTS,
        names=NAMES,
        untrained=untrained,
        bootstrap=BootstrapConfig(n_resamples=20),
    )
    content = json.loads(evaluation.save(tmp_path / "run" / "evaluation.json").read_text())
    for part in (content, content["untrained"]):
        low, high = part["zero_shot"]["macro"]["auroc"]["interval"]
        assert low <= part["zero_shot"]["macro"]["auroc"]["value"] <= high
        assert set(part["zero_shot"]["findings"]) == set(NAMES)
        for direction in ("image_to_text", "text_to_image"):
            figures = part["retrieval"][direction]
            for name in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank", "mean_rank"):
                assert set(figures[name]) == {"value", "interval"}
                assert figures["chance"][name] is not None
                assert set(figures["shuffled"][name]) == {"value", "interval"}
    assert "Untrained" in evaluation.table()
    assert Evaluation().to_dict() == {}
