"""CombinedLoss: wiring by name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from medvl.engines import PrepareBatchImageText
from medvl.losses import (
    CombinedLoss,
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SigmoidContrastiveLoss,
)
from medvl.transforms import LabelPolicy


class Squares(nn.Module):
    def forward(self, image_embeds, target, power=2.0):
        return ((image_embeds - target) ** power).mean()


def embeds(n=3, d=4):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(n, d, generator=generator, requires_grad=True) for name in ("image_embeds", "text_embeds")
    }


def test_weighted_sum_and_terms():
    pred = embeds()
    batch = {"target": torch.zeros(3, 4), "image_ids": ["a", "b", "b"], "text_ids": ["a", "b", "b"]}
    loss = CombinedLoss({"global": (ImageTextContrastiveLoss(), 0.5), "local": [Squares(), 3.0], "bare": Squares()})
    total = loss(pred, batch)
    expected = ImageTextContrastiveLoss()(**pred, image_ids=batch["image_ids"], text_ids=batch["text_ids"])
    squares = pred["image_embeds"].square().mean()
    torch.testing.assert_close(total, 0.5 * expected + 4.0 * squares)
    assert list(loss.terms) == ["global", "local", "bare"]
    torch.testing.assert_close(loss.terms["global"], expected.detach())
    assert not any(term.requires_grad for term in loss.terms.values())
    total.backward()
    assert pred["image_embeds"].grad.abs().sum() > 0


def test_output_of_the_network_goes_before_the_batch_and_defaults_stay():
    pred = embeds() | {"power": None}
    loss = CombinedLoss({"squares": Squares()})
    batch = {"target": torch.zeros(3, 4), "image_embeds": torch.full((3, 4), torch.nan), "power": None}
    torch.testing.assert_close(loss(pred, batch), pred["image_embeds"].square().mean())


def test_logit_scale_is_passed_on():
    pred = embeds()
    loss = CombinedLoss({"global": ImageTextContrastiveLoss()})
    scaled = loss(pred | {"logit_scale": torch.tensor(20.0)}, {})
    torch.testing.assert_close(scaled, ImageTextContrastiveLoss(temperature=0.05)(**pred))


def test_missing_name_lists_what_there_was():
    loss = CombinedLoss({"local": Squares()})
    with pytest.raises(
        KeyError,
        match=r"loss 'local' \(Squares\) needs 'target'; the network's output has "
        r"\['image_embeds', 'text_embeds'\] and the batch has \['report'\]",
    ):
        loss(embeds(), {"report": ["text"]})


def test_names_may_be_anything():
    loss = CombinedLoss({"keys": Squares(), "a.b": Squares()})
    loss(embeds(), {"target": torch.zeros(3, 4)})
    assert set(loss.terms) == {"keys", "a.b"}


@pytest.mark.parametrize("term", [(Squares(),), (1.0, Squares()), "loss", (Squares(), "heavy")])
def test_wrong_terms(term):
    message = f"losses['x'] must be a loss or a (loss, weight) pair, got {term!r}."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        CombinedLoss({"x": term})


def test_no_terms():
    with pytest.raises(ValueError, match=r"^losses must hold at least one loss, got none\.$"):
        CombinedLoss({})


def test_not_a_dictionary():
    with pytest.raises(TypeError, match=r"^pred must be a dictionary, got Tensor\.$"):
        CombinedLoss({"x": Squares()})(torch.zeros(1), {})
    with pytest.raises(TypeError, match=r"^batch must be a dictionary, got list\.$"):
        CombinedLoss({"x": Squares()})({}, [])


def test_arguments_under_another_name():
    pred = embeds() | {"confidence": torch.tensor([1.0, 2.0, 3.0])}
    loss = CombinedLoss({"global": ImageTextContrastiveLoss()}, argument_names={"weights": "confidence"})
    expected = ImageTextContrastiveLoss()(pred["image_embeds"], pred["text_embeds"], weights=pred["confidence"])
    torch.testing.assert_close(loss(pred, {}), expected)
    assert not torch.isclose(expected, ImageTextContrastiveLoss()(pred["image_embeds"], pred["text_embeds"]))
    with pytest.raises(KeyError, match=r"needs 'goal'; the network's output has"):
        CombinedLoss({"squares": Squares()}, argument_names={"target": "goal"})(pred, {"target": 0.0})
    with pytest.raises(ValueError, match=r"^argument_names must name arguments of the losses, got 'weight'\.$"):
        CombinedLoss({"global": ImageTextContrastiveLoss()}, argument_names={"weight": "confidence"})


LABELS = {"label": torch.tensor([[1.0], [-1.0], [0.0]]), "text_label": torch.tensor([[1.0], [0.0], [0.0]])}


@pytest.mark.parametrize(
    "loss",
    [ImageTextLabelContrastiveLoss(), SigmoidContrastiveLoss(), SemanticMatchingLoss()],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("given", ["label", "text_label"])
def test_labels_of_a_batch_are_never_ignored_silently(loss, given):
    argument = {"label": "image_labels", "text_label": "text_labels"}[given]
    with pytest.raises(
        ValueError,
        match=rf"^loss 'labels' \({type(loss).__name__}\) takes {argument}, and the batch has '{given}': give "
        r"PrepareBatchImageText a label_policy, such as LabelPolicy\(\), or, to train without, "
        rf"argument_names=\{{'{argument}': None\}}\.$",
    ):
        # A loss that needs labels says what else is missing only once it has the first.
        CombinedLoss({"labels": loss}, {"image_labels": None} if given == "text_label" else None)(
            embeds(), {given: LABELS[given]}
        )


def test_labels_that_a_policy_has_turned_to_numbers_are_used():
    batch = PrepareBatchImageText(label_policy=LabelPolicy())(LABELS)[1]
    loss = CombinedLoss({"labels": ImageTextLabelContrastiveLoss()})
    expected = ImageTextLabelContrastiveLoss()(
        **embeds(), image_labels=torch.tensor([[1.0], [0.0], [-1.0]]), text_labels=torch.tensor([[1.0], [-1.0], [-1.0]])
    )
    torch.testing.assert_close(loss(embeds(), batch), expected)
    without = CombinedLoss({"labels": ImageTextLabelContrastiveLoss()}, {"image_labels": None, "text_labels": None})
    torch.testing.assert_close(without(embeds(), batch), ImageTextLabelContrastiveLoss()(**embeds()))
    torch.testing.assert_close(without(embeds(), LABELS), ImageTextLabelContrastiveLoss()(**embeds()))


def test_a_loss_without_labels_does_not_ask_for_them():
    assert torch.isfinite(CombinedLoss({"pairs": ImageTextContrastiveLoss()})(embeds(), LABELS))


@pytest.mark.parametrize(
    ("argument", "output", "value"),
    [
        ("weights", "semantic_integrity", torch.tensor([1.0, 2.0, 3.0])),
        ("patch_mask", "visible_mask", torch.ones(3, 4) > 0),
    ],
)
def test_what_masking_gives_is_never_ignored_silently(argument, output, value):
    parts = {"patch_embeds": torch.randn(3, 4, 5), "sentence_embeds": torch.randn(3, 2, 5), output: value}
    losses = {"local": PatchSentenceMatchingLoss()}
    with pytest.raises(
        ValueError,
        match=rf"^loss 'local' \(PatchSentenceMatchingLoss\) takes {argument}, and the network's output has '{output}': give "
        rf"CombinedLoss argument_names=\{{'{argument}': '{output}'\}}, or, to train without, "
        rf"argument_names=\{{'{argument}': None\}}\.$",
    ):
        CombinedLoss(losses)(parts, {})
    assert torch.isfinite(CombinedLoss(losses, {argument: output})(parts, {}))
    assert torch.isfinite(CombinedLoss(losses, {argument: None})(parts, {}))


def test_the_names_that_are_used():
    losses = {"a": ImageTextContrastiveLoss(), "b": (SigmoidContrastiveLoss(bias=-5.0), 0.5), "off": None}
    loss = CombinedLoss(losses, {"weights": "semantic_integrity", "text_ids": None})
    assert list(loss.weights) == ["a", "b"]
    used = loss.used_names()
    assert {"image_embeds", "semantic_integrity", "logit_scale", "image_ids"} <= used
    assert not used & {"weights", "text_ids", "logit_bias", "patch_embeds"}
    assert "logit_scale" not in CombinedLoss({"a": ImageTextContrastiveLoss(temperature=0.1)}).used_names()


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_finite(weight):
    with pytest.raises(ValueError, match=r"^the weight of losses\['x'\] must be finite, got "):
        CombinedLoss({"x": (ImageTextContrastiveLoss(), weight)})
