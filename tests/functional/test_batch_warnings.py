"""A batch without a positive pair trains nothing: said once, with the reason where it is known."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch

from medvl.functional import batch
from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    SemanticMatchingLoss,
    SigmoidContrastiveLoss,
)

EMBEDS = torch.eye(3)[:2], torch.eye(3)[1:]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(batch, "_warned", set())
    monkeypatch.setattr(batch, "_checks", Counter())


def warned(loss, *arguments, **named):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(*EMBEDS, *arguments, **named)
    return [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]


SAID = "No image and text of a batch have equal ids, so no pair is a positive"


@pytest.mark.parametrize(
    ("image_ids", "text_ids", "why"),
    [
        (["1", "2"], [1, 2], ": image_ids are strings, text_ids integers"),
        (torch.tensor([1, 2]), ["1", "2"], ": image_ids are integers, text_ids strings"),
        (["a", "b"], ["a ", "B"], ""),
        (torch.tensor([1, 2]), torch.tensor([3, 4]), ""),
    ],
)
def test_a_batch_without_a_pair_is_said_once(image_ids, text_ids, why):
    loss = ImageTextContrastiveLoss()
    assert warned(loss, image_ids, text_ids) == [f"{SAID}{why}."]
    assert warned(loss, image_ids, text_ids) == []


@pytest.mark.parametrize(
    ("image_ids", "text_ids"),
    [
        (None, None),
        (["a", "b"], ["b", "c"]),
        (torch.tensor([1, 2]), [2, 2]),
        (["a", "b"], [batch.as_ids(["a"], "ids", 1, "cpu")[0], 7]),
    ],
)
def test_a_batch_with_a_pair_is_silent(image_ids, text_ids):
    assert warned(ImageTextContrastiveLoss(), image_ids, text_ids) == []


def test_one_cause_does_not_silence_another():
    ones = torch.ones(2, 1)
    named = {"image_labels": 0 * ones, "text_labels": ones}
    assert len(warned(SemanticMatchingLoss(), **named)) == 1
    assert warned(ImageTextContrastiveLoss(), ["a", "b"], ["c", "d"]) == [f"{SAID}."]
    why = ": image_ids are strings, text_ids integers"
    assert warned(ImageTextContrastiveLoss(), ["1", "2"], [1, 2]) == [f"{SAID}{why}."]
    assert warned(ImageTextContrastiveLoss(), ["1", "2"], [1, 2]) == []


def test_labels_are_positives_without_equal_ids():
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    named = {"image_labels": labels, "text_labels": labels}
    loss = ImageTextLabelContrastiveLoss()
    assert warned(loss, image_ids=["a", "b"], text_ids=["c", "d"], **named) == []
    assert len(warned(loss, image_ids=["1", "2"], text_ids=[1, 2], **named)) == 1


def test_processes_may_hold_each_others_pairs(monkeypatch):
    monkeypatch.setattr(batch, "get_world_size", lambda: 2)
    assert warned(ImageTextContrastiveLoss(), ["a", "b"], ["c", "d"]) == []


NO_POSITIVE = "No image and text of a batch have equal ids or labels that agree, so no pair is a positive."
NAN = float("nan")


@pytest.mark.parametrize(
    ("label_agreement", "image_labels", "text_labels"),
    [
        ("exact", [[1.0, 0.0], [1.0, NAN]], [[0.0, 1.0], [NAN, NAN]]),
        ("overlap", [[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [NAN, 1.0]]),
        ("soft", [[1.0, 0.0], [NAN, NAN]], [[0.0, 1.0], [-1.0, 0.0]]),
    ],
)
@pytest.mark.parametrize("tile_size", [None, 1])
def test_labels_that_make_no_pair_a_positive_are_said_once(label_agreement, image_labels, text_labels, tile_size):
    labels = {"image_labels": torch.tensor(image_labels), "text_labels": torch.tensor(text_labels)}
    loss = ImageTextLabelContrastiveLoss(label_agreement=label_agreement, tile_size=tile_size)
    assert warned(loss, **labels) == [NO_POSITIVE]
    assert warned(loss, **labels) == []


def test_a_sigmoid_loss_without_a_positive_is_said():
    labels = {"image_labels": torch.tensor([[1.0], [1.0]]), "text_labels": torch.tensor([[0.0], [0.0]])}
    assert warned(SigmoidContrastiveLoss(label_agreement="overlap"), **labels) == [NO_POSITIVE]


def test_one_label_that_agrees_is_silent():
    labels = {"image_labels": torch.tensor([[1.0], [0.0]]), "text_labels": torch.tensor([[1.0], [-1.0]])}
    assert warned(ImageTextLabelContrastiveLoss(label_agreement="overlap"), **labels) == []
    assert warned(ImageTextLabelContrastiveLoss(label_agreement="overlap", tile_size=1), **labels) == []


@pytest.mark.parametrize("tile_size", [None, 1])
@pytest.mark.parametrize("side", ["image", "text"])
def test_labels_that_tell_nothing_are_said_once(side, tile_size):
    labels = {
        "image_labels": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
        "text_labels": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    }
    loss = SemanticMatchingLoss(tile_size=tile_size)
    assert warned(loss, **labels) == []
    labels[f"{side}_labels"] = torch.tensor([[0.0, NAN], [0.0, 0.0]])
    assert warned(loss, **labels) == [
        f"All {side}_labels of a batch are 0 or unknown, so every pair has the same target."
    ]
    assert warned(loss, **labels) == []
