"""What the measures count, on embeddings whose figures are known; and a real training, measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from evidence import measures, training
from evidence.arms import ARMS, AUGMENTATION
from evidence.data import EvidenceData, LungCases, has_real
from evidence.measures import WORDINGS, measure, same_diagnosis
from evidence.scales import SCALES
from evidence.training import PooledSegmenter, Segmenter, augment_with_mask, known_labels_loss, train_arm
from medvl.data import StudyDataset
from medvl.evaluation import Embeddings, segmentation_loss
from medvl.networks import convirt

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
    assert known_labels_loss(logits, labels).item() == pytest.approx(expected)
    assert known_labels_loss(logits, torch.tensor([[1.0, 0.0, -1.0]])).item() == pytest.approx(expected)


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
        losses = [known_labels_loss(trained.classifier(batch["image"]), batch["label"]) for trained in (short, long)]
    assert losses[1] < losses[0]
    figures = measure(long, {"classifier", "probe"})
    assert set(figures) == {"classifier/auroc", "probe/1", "probe/10", "probe/100"}
    assert 0 < figures["classifier/auroc"] <= 1


@pytest.mark.parametrize("name", ["masks-findings", "masks-lungs", "masks-lungs-pooled", "masks-real"])
def test_an_encoder_learns_masks_in_the_steps_of_the_others(name, tmp_path, monkeypatch):
    if not has_real(ARMS[name]):
        pytest.skip("the real images with lung masks are not there")
    kind = PooledSegmenter if ARMS[name].settings.get("pooled") else Segmenter
    segmenters = []

    class Recorded(kind):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            segmenters.append(self)

    monkeypatch.setattr(training, kind.__name__, Recorded)
    data = EvidenceData(SCALE, tmp_path)
    data.prepare()
    short, again, long = (
        train_arm(ARMS[name], replace(SCALE, epochs=epochs), 0, data, tmp_path / "run") for epochs in (1, 1, 24)
    )
    assert (short.steps, long.steps) == (1, 24)
    assert all(torch.equal(a, b) for a, b in zip(short.model.parameters(), again.model.parameters(), strict=True))
    test = short.test
    if name == "masks-real":
        cases, _ = LungCases(test.prepare, test.image_size).split()
        images, masks = (torch.stack([cases[row][key] for row in range(16)]) for key in ("image", "mask"))
    elif name in ("masks-lungs", "masks-lungs-pooled"):
        studies = [test.prepare(study) for study in test.studies("train")]
        images = torch.stack([study["image"] for study in studies])
        masks = torch.stack([data.lungs(study) for study in studies])
    else:
        batch = next(iter(test.mask_loader(test.studies("train"))))
        images, masks = batch["image"], batch["mask"]
    with torch.inference_mode():
        losses = [segmentation_loss(network.eval()(images), masks.float()).item() for network in segmenters]
    assert losses[2] < losses[0] - 0.1
    learned, none = measure(long, {"own_masks"}), measure(short, {"own_masks"})
    if (
        name == "masks-findings"
    ):  # which are small: in a few steps the decoder marks none, and no pixel is one in most images
        assert learned["own_masks/constant_dice"] == 0
    else:
        assert learned["own_masks/dice"] > none["own_masks/dice"] + 0.03
        assert 0.4 < learned["own_masks/constant_dice"] < 1
    # The model that is measured holds the encoder that was trained, and no decoder.
    assert next(long.model.image_encoder.parameters()) is next(segmenters[2].encoder.parameters())
    assert long.classifier is None


@pytest.mark.parametrize("name", ["supervised", "masks-lungs", "masks-lungs-pooled"])
def test_a_training_of_images_alone_begins_with_the_weights_of_random_filters(name, tmp_path, monkeypatch):
    data = EvidenceData(SCALE, tmp_path)
    data.prepare()
    random = train_arm(ARMS["untrained"], SCALE, 3, data, tmp_path / "run").model.image_encoder.state_dict()
    monkeypatch.setattr(training, "_fit", lambda *arguments: 0)
    begun = train_arm(ARMS[name], SCALE, 3, data, tmp_path / "run").model.image_encoder.state_dict()
    assert begun.keys() == random.keys()
    assert all(torch.equal(begun[key], random[key]) for key in random)


def test_masks_from_pooled_features_know_nothing_but_the_mean_of_the_cells():
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    segmenter = PooledSegmenter(convirt("small", image_size=32, embed_dim=32), 3).eval()
    with torch.inference_mode():
        masks, found = segmenter(images), segmenter.encoder(images)
        assert masks.shape == (2, 3, 32, 32)
        assert torch.allclose(found["patches"].mean(1), found["embed"], atol=1e-5)
        segmenter.encoder.register_forward_hook(lambda *_: {"embed": found["embed"]})
        assert torch.equal(segmenter(torch.zeros_like(images)), masks)


@pytest.mark.skipif(not has_real(ARMS["masks-real"]), reason="the real images with lung masks are not there")
def test_training_on_real_masks_sees_no_test_patient_and_every_other_case(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_fit", lambda *arguments: seen.append(arguments[3]) or 0)
    scale = replace(SCALE, studies=200)
    data = EvidenceData(scale, tmp_path)
    data.prepare()
    test = train_arm(ARMS["masks-real"], scale, 0, data, tmp_path / "run").test
    cases, held_out = LungCases(test.prepare, test.image_size).split()
    (studies,) = seen
    assert len(studies) == len(test.studies("train")) > len(cases)
    assert not {study["patient_id"] for study in studies} & {study["patient_id"] for study in held_out.studies}
    counts = Counter(study["study_id"] for study in studies)
    assert counts.keys() == {study["study_id"] for study in cases.studies}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_dice_of_own_masks_is_known():
    first = torch.tensor([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0], [0, 0]]])
    second = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    masks = torch.stack([first, second], 1)
    studies = [{"study_id": f"s{row}", "image": mask - 0.5, "mask": mask} for row, mask in enumerate(masks)]
    everywhere = torch.nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        everywhere.weight.fill_(0)
        everywhere.bias.fill_(1)
    of_first, of_second = (2 / 3 + 2 / 5 + 1 + 2 / 5) / 4, 2 / 5  # the second structure is in one image
    for segmenter, dice in ((torch.nn.Identity(), 1.0), (everywhere, (of_first + of_second) / 2)):
        segmenter.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
        trained = SimpleNamespace(segmenter=segmenter, masked_test=lambda: StudyDataset(studies))
        figures = measures.own_masks(SimpleNamespace(trained=trained))
        assert figures["dice"] == pytest.approx(dice)
        # The upper left pixel is in all images, the upper right one in half of them, and so both are in the one mask for all.
        assert figures["constant_dice"] == pytest.approx((1 + 2 / 3 + 2 / 3 + 2 / 3) / 4 / 2)
    with pytest.raises(ValueError, match="Only a training on masks has a decoder"):
        measures.own_masks(SimpleNamespace(trained=SimpleNamespace(segmenter=None, masked_test=None)))


def test_few_labeled_cases_are_measured_where_the_model_is(monkeypatch):
    calls = []
    macro = {5: SimpleNamespace(value=0.5)}
    monkeypatch.setattr(
        measures, "segmentation", lambda *_, **options: calls.append(options) or SimpleNamespace(macro=macro)
    )
    trained = SimpleNamespace(model=torch.nn.Linear(1, 1, device="meta"), scale=SCALE)
    assert measures._few_shot_dice(SimpleNamespace(trained=trained), [], [], ["lungs"], 4) == {"dice_5": 0.5}
    assert calls[0]["seeds"] == 4 * SCALE.draws
    assert calls[0]["device"] == torch.device("meta")


def test_a_mask_is_moved_as_its_image_is():
    square = torch.zeros(1, 32, 32)
    square[:, 6:18, 9:25] = 1
    augment = augment_with_mask(32, AUGMENTATION).set_random_state(0)
    for _ in range(20):
        view = augment({"image": square, "mask": square[0][None].bool()})
        assert set(view["mask"].unique().tolist()) == {0.0, 1.0}
        assert not torch.equal(view["mask"], square)
        bright = view["image"] >= view["image"].max() / 2
        assert (bright == view["mask"].bool()).float().mean() > 0.99


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
