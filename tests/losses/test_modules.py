"""What every loss owes its users: gradients, autocast, compile, copies, errors, extreme inputs."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from medvl.functional import alignment, contrastive, sentence_matching, sigmoid, tiled
from medvl.functional import batch as batch_module
from medvl.losses import (
    CombinedLoss,
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    MaskedPatchLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
    SigmoidContrastiveLoss,
)

N, M, D, K = 4, 5, 6, 3


class BySentence(SemanticSentenceLoss):
    """The loss with the labels of every sentence."""

    def forward(
        self,
        patch_embeds,
        sentence_embeds,
        image_labels,
        sentence_labels,
        patch_mask=None,
        sentence_mask=None,
        weights=None,
        logit_scale=None,
    ):
        return super().forward(
            patch_embeds,
            sentence_embeds,
            image_labels,
            sentence_labels,
            patch_mask,
            sentence_mask,
            None,
            weights,
            logit_scale,
        )


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    return {
        "image_embeds": draw(N, D),
        "text_embeds": draw(M, D),
        "patch_embeds": draw(N, 4, D),
        "sentence_embeds": draw(M, 3, D),
        "logit_scale": torch.tensor(7.0, dtype=dtype, requires_grad=True),
        "patch_prediction": draw(N, 4, 4),
        "image": draw(N, 1, 4, 4).detach(),
        "visible_mask": torch.tensor([[True, False, True, False]] * N),
        "image_ids": ["a", "b", "b", "c"],
        "text_ids": ["a", "b", "c", "c", "d"],
        "image_labels": torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1], [1, -1, 0]]),
        "text_labels": torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0], [-1, 1, 1]]),
        "sentence_labels": torch.tensor(
            [
                [[1.0, 0, 1], [0, 0, 0], [1, 1, 1]],
                [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
                [[0, 1, 1], [1, 0, 0], [1, 0, 0]],
                [[0, 0, 0], [1, -1, 0], [0, 1, 0]],
                [[-1, 1, 1], [1, 0, 0], [1, 0, 0]],
            ]
        ),
        "sentence_mask": torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool(),
    }


LOSSES = {
    "pairs": lambda **k: ImageTextContrastiveLoss(**k),
    "semantic": lambda **k: SemanticMatchingLoss(**k),
    "semantic dot": lambda **k: SemanticMatchingLoss(similarity="dot", target_temperature=0.02, **k),
    "labels": lambda **k: ImageTextLabelContrastiveLoss(label_agreement="soft", **k),
    "sigmoid": lambda **k: SigmoidContrastiveLoss(bias=-1.0, **k),
    "transport": lambda **k: PatchSentenceMatchingLoss(epsilon=0.2, **k),
    "attention": lambda **k: PatchSentenceMatchingLoss(alignment="attention", **k),
    "max": lambda **k: PatchSentenceMatchingLoss(alignment="max", **k),
    "pooled pairs": lambda **k: ImageTextContrastiveLoss(pool_texts=True, paired_only=True, **k),
    "sharp labels": lambda **k: ImageTextLabelContrastiveLoss(label_agreement="soft", agreement_temperature=0.1, **k),
    "sentences": lambda **k: SemanticSentenceLoss(target_temperature=0.5, **k),
    "best patch": lambda **k: BySentence(alignment="max", **k),
    "transported sentences": lambda **k: BySentence(alignment="transport", epsilon=0.2, **k),
    "masked": lambda **_: MaskedPatchLoss(2),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
plain_and_tiled = pytest.mark.parametrize("tile_size", [None, 2])


def leaves(values):
    return {name: x for name, x in values.items() if isinstance(x, torch.Tensor) and x.requires_grad}


def wired(loss, values):
    arguments = {key: value for key, value in values.items() if key in inspect.signature(loss.forward).parameters}
    return CombinedLoss({"loss": loss})(arguments, {})


@every_loss
@plain_and_tiled
def test_gradcheck(name, tile_size):
    values = batch(torch.float64)
    loss = LOSSES[name](tile_size=tile_size)
    used = {k: x for k, x in leaves(values).items() if k in inspect.signature(loss.forward).parameters}

    def function(*tensors):
        return wired(loss, values | dict(zip(used, tensors, strict=True)))

    assert torch.autograd.gradcheck(function, tuple(used.values()), atol=1e-6, rtol=1e-4, fast_mode=True)


@every_loss
@plain_and_tiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast(name, tile_size, dtype):
    values = batch()
    loss = LOSSES[name](tile_size=tile_size)
    exact = wired(loss, values)
    half = values | {k: x.detach().to(dtype).requires_grad_() for k, x in leaves(values).items()}
    with torch.autocast("cpu", dtype):
        value = wired(loss, half)
        value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=2e-2, atol=2e-2)
    assert all(torch.isfinite(x.grad).all() for x in leaves(half).values() if x.grad is not None)


@every_loss
@plain_and_tiled
def test_autocast_does_not_change_float32(name, tile_size):
    results = []
    for enabled in (False, True):
        values = batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = wired(LOSSES[name](tile_size=tile_size), values)
        value.backward()
        results.append([value.detach(), *(x.grad for x in leaves(values).values() if x.grad is not None)])
    assert all(torch.equal(left, right) for left, right in zip(*results, strict=True))


OPTIONS = {
    "pairs": (ImageTextContrastiveLoss, {"temperature": 0.3, "image_weight": 0.2}),
    "semantic": (SemanticMatchingLoss, {"temperature": 0.3, "target_temperature": 0.4, "similarity": "jaccard"}),
    "labels": (
        ImageTextLabelContrastiveLoss,
        {"temperature": 0.3, "label_agreement": "soft", "image_weight": 0.2},
    ),
    "sigmoid": (SigmoidContrastiveLoss, {"temperature": 0.3, "bias": -1.0, "label_agreement": "soft"}),
    "transport": (PatchSentenceMatchingLoss, {"temperature": 0.3, "epsilon": 0.5, "image_weight": 0.2}),
    "attention": (
        PatchSentenceMatchingLoss,
        {"temperature": 0.3, "alignment": "attention", "attention_temperature": 0.5, "image_weight": 0.2},
    ),
    "pooled pairs": (ImageTextContrastiveLoss, {"temperature": 0.3, "image_weight": 0.2, "pool_texts": True}),
    "pairs alone": (ImageTextContrastiveLoss, {"temperature": 0.3, "image_weight": 0.2, "paired_only": True}),
    "sentences": (
        SemanticSentenceLoss,
        {"temperature": 0.3, "target_temperature": 0.4, "similarity": "jaccard", "attention_temperature": 0.5},
    ),
    "all sentences": (BySentence, {"temperature": 0.3, "target_temperature": 0.4, "present_only": False}),
    "transported sentences": (BySentence, {"temperature": 0.3, "alignment": "transport", "epsilon": 0.5}),
}


def every_argument(loss):
    """Every argument that ``loss`` takes."""
    values = batch() | {
        "weights": torch.tensor([0.5, 2.0, 1.0, 3.0]),
        "patch_mask": torch.tensor([[True, True, False, True]] * N),
        "image_label_mask": torch.tensor([[True, True, False]] * N),
        "text_label_mask": torch.tensor([[True, False, True]] * M),
        "logit_bias": torch.tensor(0.5),
    }
    return {name: values[name] for name in inspect.signature(loss().forward).parameters}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("without", [(), ("logit_scale", "logit_bias")], ids=["scale given", "temperature"])
@pytest.mark.parametrize("way", [{"gather": True}, {"tile_size": "auto"}], ids=["gather", "auto"])
def test_one_process_and_a_small_batch_take_the_plain_path(name, reduction, without, way):
    loss, options = OPTIONS[name]
    arguments = {key: value for key, value in every_argument(loss).items() if key not in without}
    expected = loss(**options, reduction=reduction)(**arguments)
    assert torch.equal(loss(**options, reduction=reduction, **way)(**arguments), expected)


@pytest.mark.parametrize("name", OPTIONS)
@plain_and_tiled
def test_every_argument_and_every_option_counts(name, tile_size):
    loss, options = OPTIONS[name]
    arguments = every_argument(loss)
    without_scale = {key: value for key, value in options.items() if key not in ("temperature", "bias")}
    value = loss(**without_scale, tile_size=tile_size)(**arguments)
    for key in (
        "logit_scale",
        "weights",
        "patch_mask",
        "sentence_mask",
        "image_label_mask",
        "text_label_mask",
        "logit_bias",
    ):
        if key in arguments:
            fewer = {k: v for k, v in arguments.items() if k != key}
            assert not torch.isclose(loss(**without_scale, tile_size=tile_size)(**fewer), value, rtol=1e-4), key
    value = loss(**options, tile_size=tile_size)(**arguments)
    for key in options:
        # "attention" alone makes its temperature count.
        fewer = {k: v for k, v in options.items() if k != key}
        assert not torch.isclose(loss(**fewer, tile_size=tile_size)(**arguments), value, rtol=1e-4), key


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("way", [{}, {"tile_size": 2}, {"gather": True}], ids=["plain", "tiled", "gather"])
def test_a_temperature_that_is_given_is_used_whatever_the_networks_scale(name, way):
    loss, options = OPTIONS[name]
    arguments = every_argument(loss)
    scale, bias = arguments.pop("logit_scale").detach(), arguments.pop("logit_bias", None)
    expected = loss(**options, **way)(**arguments)
    network = {"logit_scale": scale.clone().requires_grad_()}
    if bias is not None:
        network["logit_bias"] = bias.clone().requires_grad_()
    value = loss(**options, **way)(**arguments, **network)
    assert torch.equal(value, expected)
    value.backward()
    assert all(x.grad is None for x in network.values())
    # Without one, it is the network's scale; without either, the published default.
    free = {key: value for key, value in options.items() if key not in ("temperature", "bias")}
    given = {"temperature": 1 / float(scale)} | ({} if bias is None else {"bias": float(bias)})
    torch.testing.assert_close(loss(**free, **way)(**arguments, **network), loss(**free, **given, **way)(**arguments))
    default = {"temperature": 0.07 if name in ("semantic", "labels", "sharp labels") else 0.1} | (
        {} if bias is None else {"bias": -10.0}
    )
    assert torch.equal(loss(**free, **way)(**arguments), loss(**free, **default, **way)(**arguments))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (ImageTextContrastiveLoss(),
         "temperature=None, image_weight=0.75, pool_texts=False, paired_only=False, "
         "reduction='mean', gather=False, tile_size=None"),
        (SemanticSentenceLoss(alignment="max"),
         "temperature=None, target_temperature=0.1, similarity='cosine', alignment='max', epsilon=0.05, "
         "attention_temperature=0.1, present_only=True, reduction='mean', gather=False, tile_size=None"),
        (SigmoidContrastiveLoss(tile_size="auto"),
         "temperature=None, bias=None, label_agreement='exact', reduction='mean', gather=False, tile_size='auto'"),
        (MaskedPatchLoss([2, 3]), "patch_size=(2, 3), normalize=True, reduction='mean', gather=False"),
        (CombinedLoss({"a": (MaskedPatchLoss(), 0.25), "b": MaskedPatchLoss()}), "a=0.25, b=1"),
    ],
)  # fmt: skip
def test_repr_shows_the_options(loss, expected):
    assert loss.extra_repr() == expected


@pytest.mark.parametrize(
    ("name", "tile_size"),
    [
        ("pairs", None),
        ("labels", None),
        ("sigmoid", None),
        ("transport", None),
        ("masked", None),
        ("semantic", 2),
        ("pooled pairs", None),
        ("sharp labels", None),
        ("sentences", None),
        ("best patch", None),
    ],
)
def test_compile(name, tile_size):
    values = batch()
    loss = LOSSES[name](tile_size=tile_size)
    expected = wired(loss, values)
    expected.backward()
    grads = {k: x.grad for k, x in leaves(values).items() if x.grad is not None}
    torch._dynamo.reset()
    again = batch()
    value = torch.compile(loss, backend="eager")(
        **{k: v for k, v in again.items() if k in inspect.signature(loss.forward).parameters}
    )
    value.backward()
    torch.testing.assert_close(value, expected)
    for k, grad in grads.items():
        torch.testing.assert_close(again[k].grad, grad, rtol=1e-4, atol=1e-6)


@every_loss
@plain_and_tiled
def test_copies_and_state(name, tile_size):
    values = batch()
    loss = LOSSES[name](tile_size=tile_size)
    expected = wired(loss, values)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(file, weights_only=False)):
        assert wired(twin, values) == expected
        assert repr(twin) == repr(loss)
    assert not list(loss.parameters())
    combined = CombinedLoss({"term": (loss, 0.5)})
    combined({key: value for key, value in values.items() if key != "visible_mask" or name == "masked"}, {})
    combined.load_state_dict(copy.deepcopy(combined).state_dict())
    assert combined.state_dict() == {}


@every_loss
@plain_and_tiled
def test_inputs_are_left_alone(name, tile_size):
    values = batch()
    before = copy.deepcopy({k: x.detach() if isinstance(x, torch.Tensor) else x for k, x in values.items()})
    wired(LOSSES[name](tile_size=tile_size), values).backward()
    for key, value in values.items():
        assert torch.equal(value, before[key]) if isinstance(value, torch.Tensor) else value == before[key]


EXTREMES = {
    "zero length": lambda x: x * 0,
    "some zero length": lambda x: x * (torch.arange(len(x)) > 0).reshape(-1, *[1] * (x.ndim - 1)),
    "tiny": lambda x: x * 1e-25,
    "huge": lambda x: x * 1e15,
    "all the same": lambda x: torch.ones_like(x),
    "opposite": lambda x: x.sign(),
}


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "masked"])
@plain_and_tiled
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_nan_or_infinity(name, tile_size, extreme, scale):
    values = batch()
    for key in ("image_embeds", "text_embeds", "patch_embeds", "sentence_embeds"):
        values[key] = EXTREMES[extreme](values[key].detach()).requires_grad_()
    values["logit_scale"] = torch.tensor(scale, requires_grad=True)
    value = wired(LOSSES[name](tile_size=tile_size), values)
    value.backward()
    assert torch.isfinite(value)
    for key, x in leaves(values).items():
        assert x.grad is None or torch.isfinite(x.grad).all(), key
        if extreme == "zero length" and "embeds" in key and x.grad is not None:
            assert x.grad.abs().max() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@every_loss
def test_sum_is_the_sum_of_none(name, reduction):
    if name == "masked":
        values, losses = batch(), {r: MaskedPatchLoss(2, reduction=r) for r in ("none", "sum")}
    else:
        values, losses = batch(), {r: LOSSES[name](reduction=r) for r in ("none", "sum")}
    arguments = {k: v for k, v in values.items() if k in inspect.signature(losses["sum"].forward).parameters}
    torch.testing.assert_close(losses["none"](**arguments).sum(), losses["sum"](**arguments))


def test_metatensor_is_stripped():
    MetaTensor = pytest.importorskip("monai.data").MetaTensor
    values = batch()
    assert type(MetaTensor(values["image_embeds"]).norm() + 1) is MetaTensor  # it does survive where nothing strips it
    expected = ImageTextContrastiveLoss()(values["image_embeds"], values["image_embeds"])
    wrapped = MetaTensor(values["image_embeds"].detach()).requires_grad_()
    value = ImageTextContrastiveLoss()(wrapped, wrapped)
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, expected)


def embeds(n=2, d=3, dtype=torch.float32):
    return torch.ones(n, d).to(dtype)


@pytest.mark.parametrize(
    ("loss", "arguments", "error", "message"),
    [
        (ImageTextContrastiveLoss, {"image_embeds": embeds(dtype=torch.int64)}, TypeError,
         r"image_embeds must be floating point, got torch.int64"),
        (ImageTextContrastiveLoss, {"text_embeds": [[1.0]]}, TypeError,
         r"text_embeds must be a tensor \(M, D\), got list"),
        (ImageTextContrastiveLoss, {"image_embeds": torch.ones(3)}, ValueError,
         r"image_embeds must have shape \(N, D\), got \(3,\)"),
        (ImageTextContrastiveLoss, {"text_embeds": embeds(d=4)}, ValueError,
         r"image_embeds and text_embeds must have the same width D, got 3 and 4"),
        (ImageTextContrastiveLoss, {"text_embeds": embeds(3)}, ValueError,
         r"image_ids and text_ids must be given if the numbers of images and texts differ, got 2 images and 3 texts"),
        (ImageTextContrastiveLoss, {"image_ids": ["a", "b"]}, ValueError,
         r"image_ids and text_ids must be given together, got no text_ids"),
        (ImageTextContrastiveLoss, {"image_ids": ["a"], "text_ids": ["a", "b"]}, ValueError,
         r"image_ids must have shape \(2,\), one for each row of the embeddings, got \(1,\)"),
        (ImageTextContrastiveLoss, {"image_ids": torch.ones(2), "text_ids": ["a", "b"]}, TypeError,
         r"image_ids must be integers or strings, got torch.float32"),
        (ImageTextContrastiveLoss, {"image_ids": [0.5, 1.0], "text_ids": ["a", "b"]}, TypeError,
         r"image_ids must be integers or strings, got an element of type float"),
        (ImageTextContrastiveLoss, {"weights": torch.ones(3)}, ValueError,
         r"weights must have shape \(2,\), one for each image, got \(3,\)"),
        (ImageTextContrastiveLoss, {"logit_scale": torch.ones(2)}, ValueError,
         r"logit_scale must be a single number, got shape \(2,\)"),
        (SemanticMatchingLoss, {"image_labels": embeds(2, 4), "text_labels": embeds(2, 5)}, ValueError,
         r"image_labels and text_labels must have the same width K, got 4 and 5"),
        (SemanticMatchingLoss, {"image_labels": embeds(3, 4), "text_labels": embeds(2, 4)}, ValueError,
         r"image_labels must have 2 rows, one for each row of the embeddings, got 3"),
        (SemanticMatchingLoss, {"image_labels": torch.ones(2), "text_labels": embeds(2, 4)}, ValueError,
         r"image_labels must have shape \(rows, K\) with K at least 1, got \(2,\)"),
        (SemanticMatchingLoss, {"image_labels": embeds(), "text_labels": embeds(), "image_label_mask": embeds(2, 1)},
         ValueError, r"image_label_mask must have shape \(2, 3\), got \(2, 1\)"),
        (ImageTextLabelContrastiveLoss, {"image_labels": embeds()}, ValueError,
         r"image_labels and text_labels must be given together, got no text_labels"),
        (SigmoidContrastiveLoss, {"image_label_mask": embeds()}, ValueError,
         r"image_label_mask must come with image_labels, got no image_labels"),
        (SemanticMatchingLoss, {"image_labels": embeds(), "text_labels": embeds(), "text_label_mask": [[True]]},
         TypeError, r"text_label_mask must be of type Tensor, got list"),
        (ImageTextLabelContrastiveLoss, {"image_labels": embeds(2, 0), "text_labels": embeds(2, 0)}, ValueError,
         r"image_labels must have shape \(rows, K\) with K at least 1, got \(2, 0\)"),
        (ImageTextContrastiveLoss, {"logit_scale": "14"}, TypeError, "logit_scale must be a number, got '14'"),
    ],
)  # fmt: skip
def test_errors_name_argument_received_and_expected(loss, arguments, error, message):
    for tile_size in (None, 2):
        with pytest.raises(error, match=rf"^{message}\.$"):
            loss(tile_size=tile_size)(**{"image_embeds": embeds(), "text_embeds": embeds()} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_embeds": torch.ones(2, 3)}, r"patch_embeds must have shape \(N, P, D\), got \(2, 3\)"),
        ({"sentence_embeds": torch.ones(2, 1, 5)}, r"patch_embeds and sentence_embeds must have the same width D, got 3 and 5"),
        ({"patch_mask": torch.ones(2, 5)}, r"patch_mask must have shape \(2, 4\), got \(2, 5\)"),
        ({"sentence_mask": torch.ones(2)}, r"sentence_mask must have shape \(2, 2\), got \(2,\)"),
    ],
)  # fmt: skip
def test_patch_sentence_errors(arguments, message):
    given = {"patch_embeds": torch.ones(2, 4, 3), "sentence_embeds": torch.ones(2, 2, 3)} | arguments
    labels = {"image_labels": torch.ones(2, 3), "text_labels": torch.ones(2, 2, 3)}
    for loss in (PatchSentenceMatchingLoss(), lambda **parts: SemanticSentenceLoss()(**parts, **labels)):
        with pytest.raises(ValueError, match=rf"^{message}\.$"):
            loss(**given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patch_embeds": [1.0]}, TypeError, r"patch_embeds must be a tensor \(N, P, D\), got list"),
        ({"image_labels": [1.0]}, TypeError, r"image_labels must be a tensor \(rows, K\), got list"),
        ({"image_labels": torch.ones(3, 3)}, ValueError,
         r"image_labels must have 2 rows, one for each row of the embeddings, got 3"),
        ({"text_labels": [1.0]}, TypeError, r"text_labels must be a tensor \(rows, K\), got list"),
        ({"text_labels": torch.ones(2, 3, 3)}, ValueError,
         r"text_labels must have shape \(2, 2, K\), one row for each sentence, got \(2, 3, 3\)"),
        ({"text_labels": torch.ones(3, 3)}, ValueError,
         r"text_labels must have shape \(2, K\), one row for each text, got \(3, 3\)"),
        ({"text_labels": torch.ones(2, 2, 4)}, ValueError,
         r"image_labels and text_labels must have the same width K, got 3 and 4"),
        ({"weights": torch.ones(3)}, ValueError, r"weights must have shape \(2,\), one for each image, got \(3,\)"),
    ],
)  # fmt: skip
def test_semantic_sentence_errors(arguments, error, message):
    right = {
        "patch_embeds": torch.ones(2, 4, 3), "sentence_embeds": torch.ones(2, 2, 3),
        "image_labels": torch.ones(2, 3), "text_labels": torch.ones(2, 2, 3),
    }  # fmt: skip
    with pytest.raises(error, match=rf"^{message}\.$"):
        SemanticSentenceLoss()(**right | arguments)


def test_ids_of_sentences_are_checked_where_they_share_a_plan():
    parts = torch.ones(2, 4, 3), torch.ones(2, 1, 3), torch.ones(2, 3), torch.ones(2, 3)
    with pytest.raises(
        ValueError, match=r"^text_ids must have shape \(2,\), one for each row of the embeddings, got \(1,\)\.$"
    ):
        SemanticSentenceLoss(alignment="transport")(*parts, text_ids=["a"])


def test_pooled_texts_need_their_ids():
    message = r"^text_ids must be given where pool_texts is True, got None\.$"
    with pytest.raises(ValueError, match=message):
        ImageTextContrastiveLoss(pool_texts=True)(embeds(), embeds())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patch_prediction": torch.ones(1, 4, 5)}, ValueError,
         r"patch_prediction must have shape \(1, 4, 4\) for image \(1, 1, 4, 4\) in patches of 2, got \(1, 4, 5\)"),
        ({"image": torch.ones(1, 1, 5, 4)}, ValueError,
         r"patch_size must divide every spatial axis of image \(1, 1, 5, 4\), got 2"),
        ({"image": torch.ones(1, 1, 4, 4).int()}, TypeError, r"image must be a floating point tensor, got torch.int32"),
        ({"image": [[1.0]]}, TypeError, "image must be a floating point tensor, got list"),
        ({"visible_mask": torch.ones(1, 3)}, ValueError, r"visible_mask must have shape \(1, 4\), got \(1, 3\)"),
        ({"visible_mask": [[True] * 4]}, TypeError, "visible_mask must be of type Tensor, got list"),
    ],
)  # fmt: skip
def test_masked_patch_errors(arguments, error, message):
    right = {"patch_prediction": torch.ones(1, 4, 4), "image": torch.ones(1, 1, 4, 4), "visible_mask": torch.ones(1, 4)}
    with pytest.raises(error, match=rf"^{message}\.$"):
        MaskedPatchLoss(2)(**right | arguments)


def test_a_visible_patch_may_be_anything():
    image = torch.ones(1, 1, 4, 4)
    image[..., 0, 0] = torch.nan
    prediction = torch.ones(1, 4, 4, requires_grad=True)
    loss = MaskedPatchLoss(2, normalize=False)(prediction, image * 3, torch.tensor([[True, False, False, False]]))
    loss.backward()
    assert loss.item() == 4
    assert prediction.grad[0, 0].tolist() == [0, 0, 0, 0]
    assert prediction.grad[0, 1:].flatten().tolist() == pytest.approx([-1 / 3] * 12)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (ImageTextContrastiveLoss, {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        (ImageTextContrastiveLoss, {"image_weight": 1.5}, "image_weight must be between 0 and 1, got 1.5"),
        (ImageTextContrastiveLoss, {"reduction": "max"}, "reduction must be one of 'mean', 'sum', 'none', got 'max'"),
        (SemanticMatchingLoss, {"similarity": "l2"}, "similarity must be one of 'cosine', 'dot', 'jaccard', got 'l2'"),
        (SemanticMatchingLoss, {"target_temperature": -1}, "target_temperature must be above 0, got -1"),
        (SigmoidContrastiveLoss, {"label_agreement": "any"},
         "label_agreement must be one of 'exact', 'overlap', 'soft', got 'any'"),
        (PatchSentenceMatchingLoss, {"alignment": "min"},
         "alignment must be one of 'transport', 'attention', 'max', got 'min'"),
        (PatchSentenceMatchingLoss, {"epsilon": 0}, "epsilon must be above 0, got 0"),
        (MaskedPatchLoss, {"reduction": "all"}, "reduction must be one of 'mean', 'sum', 'none', got 'all'"),
    ],
)  # fmt: skip
def test_unknown_options(loss, options, message):
    with pytest.raises(ValueError, match=rf"^{message}\.$"):
        loss(**options)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (ImageTextContrastiveLoss, {"temperature": "1e-1"}, "temperature must be a number, got '1e-1'"),
        (ImageTextContrastiveLoss, {"image_weight": None}, "image_weight must be a number, got None"),
        # It would be used and never learned.
        (
            SemanticMatchingLoss,
            {"temperature": torch.tensor(0.5)},
            r"temperature must be a number, got tensor\(0.5000\)",
        ),
        (PatchSentenceMatchingLoss, {"epsilon": "0.05"}, "epsilon must be a number, got '0.05'"),
        (MaskedPatchLoss, {"patch_size": 2.0}, "patch_size must be an integer or one for each axis, got 2.0"),
        (CombinedLoss, {"losses": [MaskedPatchLoss()]}, "losses must be a dictionary of losses by name, got list"),
    ],
)
def test_options_that_are_no_numbers(loss, options, message):
    with pytest.raises(TypeError, match=rf"^{message}\.$"):
        loss(**options)


@plain_and_tiled
@pytest.mark.parametrize(("images", "texts"), [(0, 0), (0, 2), (2, 0)])
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "masked"])
def test_a_side_without_rows_teaches_nothing(name, images, texts, tile_size):
    rows = {
        "image_embeds": torch.ones(images, 3),
        "text_embeds": torch.ones(texts, 3),
        "patch_embeds": torch.ones(images, 4, 3),
        "sentence_embeds": torch.ones(texts, 2, 3),
        "image_ids": torch.arange(images),
        "text_ids": torch.arange(texts),
        "image_labels": torch.ones(images, 2),
        "text_labels": torch.ones(texts, 2),
        "sentence_labels": torch.ones(texts, 2, 2),
    }
    leaves = [value.requires_grad_() for key, value in rows.items() if key.endswith("embeds")]
    loss = CombinedLoss({"only": LOSSES[name](tile_size=tile_size)})(rows, {})
    loss.backward()
    assert loss.item() == 0 or (name == "sigmoid" and loss.item() > 0)
    assert all(leaf.grad is None or not leaf.grad.abs().sum() for leaf in leaves)


@plain_and_tiled
@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
@pytest.mark.parametrize(("patches", "sentences"), [(0, 2), (3, 0)])
def test_a_batch_without_any_patch_or_sentence_teaches_nothing(alignment, patches, sentences, tile_size):
    """What a network gives for a batch whose texts are all empty."""
    loss = PatchSentenceMatchingLoss(alignment=alignment, tile_size=tile_size)
    embeds = [torch.ones(2, count, 5, requires_grad=True) for count in (patches, sentences)]
    value = loss(*embeds)
    value.backward()
    assert value.item() == 0
    assert all(part.grad is None or not part.grad.abs().sum() for part in embeds)


def test_tiny_weights_are_scaled_like_any():
    given = batch()
    arguments = [given[key] for key in ("image_embeds", "text_embeds", "image_ids", "text_ids")]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = ImageTextContrastiveLoss()
    torch.testing.assert_close(loss(*arguments, weights * 1e-15), loss(*arguments, weights))
    assert loss(*arguments, weights * 0).item() == 0


class Ranks:
    """The collective operations of several processes, each of them a thread."""

    def __init__(self, size):
        self.size, self.local, self.box = size, threading.local(), [None] * size
        self.barrier = threading.Barrier(size, timeout=850)  # only ends what would never end

    def exchange(self, value):
        self.box[self.local.rank] = value
        self.barrier.wait()
        values = list(self.box)
        self.barrier.wait()
        return values

    def patch(self, monkeypatch):
        replaced = {
            "is_distributed": lambda: True,
            "get_rank": lambda: self.local.rank,
            "all_gather_with_grad": lambda x: torch.cat(self.exchange(x)),
            "all_reduce_sum": lambda value, device: sum(self.exchange(value)),
            "all_reduce_max": lambda value, device: max(self.exchange(value)),
        }
        for module in (alignment, batch_module, contrastive, sentence_matching, sigmoid, tiled):
            for name, function in replaced.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, function)

    def run(self, function):
        def work(rank):
            self.local.rank = rank
            try:
                return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_tile_size_makes_tiles(name, monkeypatch):
    def fail(*_args, **_options):
        raise AssertionError("tiled")

    monkeypatch.setattr(tiled.TiledContrast, "apply", fail)
    monkeypatch.setattr(alignment, "checkpoint", fail)
    loss, options = OPTIONS[name]
    loss(**options)(**every_argument(loss))
    with pytest.raises(AssertionError, match=r"^tiled$"):
        loss(**options, tile_size=2)(**every_argument(loss))


@pytest.mark.parametrize("size", [(2, 3), [2, 3]])
def test_a_patch_may_have_a_size_for_each_axis(size):
    loss = MaskedPatchLoss(size)
    assert loss.patch_size == (2, 3)
    assert loss(torch.ones(1, 4, 6), torch.ones(1, 1, 4, 6), torch.zeros(1, 4)).item() == 1
    assert CombinedLoss({"a": loss}).terms == {}


def test_errors_before_a_gather(monkeypatch):
    monkeypatch.setattr(alignment, "is_distributed", lambda: True)
    right = {"patch_embeds": torch.ones(2, 4, 3), "sentence_embeds": torch.ones(2, 2, 3)}
    for arguments, message in (
        ({"patch_embeds": torch.ones(2, 3)}, "patch_embeds must have shape (N, P, D), got (2, 3)."),
        ({"patch_mask": torch.ones(2, 5)}, "patch_mask must have shape (2, 4), got (2, 5)."),
        ({"sentence_mask": torch.ones(2)}, "sentence_mask must have shape (2, 2), got (2,)."),
        ({"weights": torch.ones(3)}, "weights must have shape (2,), one for each image, got (3,)."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            PatchSentenceMatchingLoss(gather=True)(**right | arguments)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("tile_size", [None, 2, "auto"])
def test_gathered_over_unequal_processes_equals_the_whole_batch(name, reduction, tile_size, monkeypatch):
    loss, options = OPTIONS[name]
    arguments = every_argument(loss)
    order = [0, 2, 1, 3, 4]  # the texts of the first process have two sentences at most
    if "text_ids" in arguments and options.get("pool_texts"):
        # The texts of a study are of one process, and those of the first process have the lower ids, as whole batches do.
        arguments |= {"image_ids": [0, 1, 1, 2], "text_ids": [0, 1, 0, 2, 2]}
    parts = [{}, {}]
    for key, value in arguments.items():
        if key in ("logit_scale", "logit_bias"):
            parts[0][key] = parts[1][key] = value
            continue
        count = 1
        if len(value) == M:
            value = value[order] if isinstance(value, torch.Tensor) else [value[k] for k in order]
            count = 2
        arguments[key], parts[0][key], parts[1][key] = value, value[:count], value[count:]
    for key in ("sentence_embeds", "sentence_mask", "sentence_labels"):
        if key in arguments:
            parts[0][key] = parts[0][key][:, :2]
    expected = loss(**options, reduction=reduction)(**arguments)
    ranks = Ranks(2)
    ranks.patch(monkeypatch)
    gathered = loss(**options, reduction=reduction, gather=True, tile_size=tile_size)
    with torch.no_grad():
        results = ranks.run(lambda rank: gathered(**parts[rank]))
    for value in results:
        torch.testing.assert_close(value, expected.detach(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (ImageTextLabelContrastiveLoss, {"label_agreement": "any"},
         "label_agreement must be one of 'exact', 'overlap', 'soft', got 'any'."),
        (ImageTextLabelContrastiveLoss, {"label_agreement": "soft", "agreement_temperature": 0.0},
         "agreement_temperature must be above 0, got 0.0."),
        (ImageTextLabelContrastiveLoss, {"agreement_temperature": 0.1},
         "agreement_temperature must be None unless label_agreement is 'soft', got 0.1."),
        (SemanticSentenceLoss, {"target_temperature": 0.0}, "target_temperature must be above 0, got 0.0."),
        (SemanticSentenceLoss, {"similarity": "l2"}, "similarity must be one of 'cosine', 'dot', 'jaccard', got 'l2'."),
        (SemanticSentenceLoss, {"alignment": "min"}, "alignment must be one of 'transport', 'attention', 'max', got 'min'."),
        (SemanticSentenceLoss, {"epsilon": -1.0}, "epsilon must be above 0, got -1.0."),
        (SemanticSentenceLoss, {"attention_temperature": 0.0}, "attention_temperature must be above 0, got 0.0."),
        (PatchSentenceMatchingLoss, {"attention_temperature": 0.0}, "attention_temperature must be above 0, got 0.0."),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_named_when_the_loss_is_made(loss, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss(**options)


@pytest.mark.parametrize("ids", [["a", 1], [1, "a"], ["1", torch.tensor(1)]])
def test_ids_of_two_kinds_in_one_list_are_an_error(ids):
    with pytest.raises(TypeError, match=r"^image_ids must be all integers or all strings, got both\.$"):
        ImageTextContrastiveLoss()(torch.eye(2), torch.eye(2), image_ids=ids, text_ids=["a", "b"])


@pytest.mark.parametrize("loss", [ImageTextContrastiveLoss, SemanticMatchingLoss, PatchSentenceMatchingLoss])
def test_a_temperature_is_finite(loss):
    with pytest.raises(ValueError, match=r"^temperature must be finite, got inf\.$"):
        loss(temperature=math.inf)
