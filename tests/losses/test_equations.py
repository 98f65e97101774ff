"""Every loss against the float64 loop written from its equation: value and gradient, plain and tiled."""

from __future__ import annotations

import math

import loss_reference as reference
import pytest
import torch

from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    MaskedPatchLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
    SigmoidContrastiveLoss,
)

NAN = math.nan


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(n * 31**k for k, n in enumerate(shape)))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def check(loss, expected_loss, embeds, arguments, scale=1.0, rtol=1e-5):
    """float32 value and gradients of ``loss`` equal the float64 reference's to ``rtol``, and everything is finite.

    Below one unit in the last place of a logit (1e-7 times the scale) a float32 loss has no digits.
    """
    exact = [x.clone().requires_grad_() for x in embeds]
    expected = expected_loss(*exact)
    single = [x.float().requires_grad_() for x in embeds]
    value = loss(*single, *arguments)
    assert value.dtype == torch.float32
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(value.double(), expected.detach(), rtol=rtol, atol=rtol * largest + 1e-7 * scale)
    weights = torch.linspace(1, 2, value.numel()).reshape(value.shape)
    (value * weights).sum().backward()
    if expected.requires_grad:
        (expected * weights.double()).sum().backward()
    for got, wanted in zip(single, exact, strict=True):
        grad = torch.zeros_like(wanted) if wanted.grad is None else wanted.grad
        assert torch.isfinite(got.grad).all()
        torch.testing.assert_close(got.grad.double(), grad, rtol=0, atol=rtol * float(grad.abs().max()) + 1e-8 * scale)


IDS = {
    "pairs": ([0, 1, 2, 3], [0, 1, 2, 3]),
    "views of one study": ([0, 0, 1, 2], [0, 1, 2]),
    "texts of one image": ([0, 1], [0, 0, 1, 0, 1]),
    "a row without a positive": ([0, 1, 5], [1, 0, 7, 1]),
    "no positive at all": ([0, 1], [2, 3, 4]),
    "all equal": ([3, 3, 3], [3, 3]),
    "a batch of one": ([0], [0]),
}
TILES = [None, 1, 2, 7]


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize("weighted", [False, True])
def test_image_text_contrastive(ids, scale, tile_size, weighted):
    image_ids, text_ids = ids
    embeds = draw(len(image_ids), 5), draw(len(text_ids), 5, seed=1)
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0][: len(image_ids)]) if weighted else None
    check(
        ImageTextContrastiveLoss(temperature=1 / scale, tile_size=tile_size),
        lambda v, t: reference.image_text_contrastive(
            v, t, image_ids, text_ids, None if weights is None else weights.tolist(), scale=scale
        ),
        embeds,
        (torch.tensor(image_ids), torch.tensor(text_ids), weights),
        scale,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("image_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tile_size", [None, 2])
def test_image_text_contrastive_options(reduction, image_weight, tile_size):
    image_ids, text_ids = ["a", "b", "b"], ["b", "a", "c", "b"]
    check(
        ImageTextContrastiveLoss(0.2, image_weight, reduction, tile_size=tile_size),
        lambda v, t: reference.image_text_contrastive(
            v, t, image_ids, text_ids, scale=5.0, image_weight=image_weight, reduction=reduction
        ),
        (draw(3, 4), draw(4, 4)),
        (image_ids, text_ids),
    )


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("tile_size", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_image_text_contrastive_with_pooled_texts(ids, reduction, tile_size, weighted):
    image_ids, text_ids = ids
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0][: len(image_ids)]) if weighted else None

    def expected(v, t):
        t, own = reference.pooled(t, text_ids)
        given = None if weights is None else weights.tolist()
        return reference.image_text_contrastive(v, t, image_ids, own, given, scale=10.0, reduction=reduction)

    check(
        ImageTextContrastiveLoss(0.1, reduction=reduction, tile_size=tile_size, pool_texts=True),
        expected,
        (draw(len(image_ids), 5), draw(len(text_ids), 5, seed=1)),
        (torch.tensor(image_ids), torch.tensor(text_ids), weights),
        scale=10.0,
    )


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("pool_texts", [False, True])
@pytest.mark.parametrize("tile_size", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_image_text_contrastive_of_pairs_alone(ids, pool_texts, tile_size, weighted):
    """Images and texts without a partner are no negatives either."""
    image_ids, text_ids = ids
    images = [k for k, own in enumerate(image_ids) if own in text_ids]
    texts = [k for k, own in enumerate(text_ids) if own in image_ids]
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0][: len(image_ids)]) if weighted else None

    def expected(v, t):
        if not images:
            return (v * 0).sum() + (t * 0).sum()
        own, t = [text_ids[k] for k in texts], t[texts]
        if pool_texts:
            t, own = reference.pooled(t, own)
        given = None if weights is None else weights[images].tolist()
        return reference.image_text_contrastive(v[images], t, [image_ids[k] for k in images], own, given, scale=10.0)

    check(
        ImageTextContrastiveLoss(0.1, tile_size=tile_size, pool_texts=pool_texts, paired_only=True),
        expected,
        (draw(len(image_ids), 5), draw(len(text_ids), 5, seed=1)),
        (torch.tensor(image_ids), torch.tensor(text_ids), weights),
        scale=10.0,
    )


LABELS = {
    "binary": (torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 0]]), torch.tensor([[1, 0, 1], [0, 0, 1]])),
    "states": (torch.tensor([[1.0, -1, 0], [-1, -1, 1]]), torch.tensor([[1.0, -1, 0], [0, 1, -1], [-1, 1, 1]])),
    "all equal": (torch.ones(3, 2), torch.ones(2, 2)),
    "all zero": (torch.zeros(2, 3), torch.zeros(3, 3)),
    "some zero": (torch.tensor([[0.0, 0], [1, 0]]), torch.tensor([[0.0, 0], [0, 1], [1, 1]])),
    "not known": (torch.tensor([[1.0, NAN], [NAN, NAN], [1, 0]]), torch.tensor([[1.0, NAN], [NAN, NAN], [1, 0.0]])),
    "probabilities": (torch.tensor([[0.2, 0.9], [0.7, 0.1]]), torch.tensor([[0.3, 0.3], [0.8, 0.0], [0.2, 0.9]])),
    "a batch of one": (torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]])),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("kind", ["cosine", "dot", "jaccard"])
@pytest.mark.parametrize("temperature", [1.0, 0.01])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("tile_size", [None, 1, 2])
def test_semantic_matching(labels, kind, temperature, scale, tile_size):
    check(
        SemanticMatchingLoss(1 / scale, temperature, kind, tile_size=tile_size),
        lambda v, t: reference.semantic_matching(
            v, t, *(x.double() for x in labels), scale=scale, temperature=temperature, kind=kind
        ),
        tuple(draw(len(x), 4, seed=k) for k, x in enumerate(labels)),
        labels,
        scale,
    )


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("tile_size", [None, 2])
def test_semantic_matching_reductions(reduction, tile_size):
    labels = LABELS["states"]
    check(
        SemanticMatchingLoss(0.1, reduction=reduction, tile_size=tile_size),
        lambda v, t: reference.semantic_matching(v, t, *labels, scale=10.0, reduction=reduction),
        (draw(2, 4), draw(3, 4)),
        labels,
    )


def test_semantic_matching_with_a_callable_on_distinct_labels():
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    asked = []

    def agree(a, b):
        asked.append((len(a), len(b)))
        return -(a[:, None] - b).abs().sum(2)

    for tile_size in (None, 3):
        loss = SemanticMatchingLoss(0.1, similarity=agree, tile_size=tile_size)
        value = loss(draw(4, 3).float(), draw(3, 3).float(), labels, labels[:3])
        logits = torch.nn.functional.normalize(draw(4, 3)) @ torch.nn.functional.normalize(draw(3, 3)).T * 10
        s = -(labels[:, None] - labels[:3]).abs().sum(2).double()
        terms = [-(s.softmax(k) * logits.log_softmax(k)).sum(k).mean() for k in (1, 0)]
        torch.testing.assert_close(value.double(), sum(terms) / 2, rtol=1e-5, atol=0)
    assert asked[0] == (2, 2)


def test_label_mask_is_a_label_that_is_not_known():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    unknown = labels.masked_fill(~mask, NAN)
    embeds = draw(2, 4).float(), draw(2, 4, seed=1).float()
    for loss in (
        SemanticMatchingLoss(),
        ImageTextLabelContrastiveLoss(label_agreement="soft"),
        SigmoidContrastiveLoss(),
    ):
        masked = loss(*embeds, image_labels=labels, text_labels=labels, image_label_mask=mask, text_label_mask=mask)
        torch.testing.assert_close(masked, loss(*embeds, image_labels=unknown, text_labels=unknown))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("label_agreement", ["exact", "overlap", "soft"])
@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("tile_size", [None, 2])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_image_text_label_and_sigmoid(labels, label_agreement, with_ids, tile_size, kind):
    ids = [[0, 1, 2][: len(x)] for x in labels] if with_ids else [None, None]
    exact = [x.double() for x in labels]
    embeds = tuple(draw(len(x), 4, seed=k) for k, x in enumerate(labels))
    tensors = [None if i is None else torch.tensor(i) for i in ids]
    if kind == "softmax":
        check(
            ImageTextLabelContrastiveLoss(0.05, label_agreement, 0.3, tile_size=tile_size),
            lambda v, t: reference.image_text_label_contrastive(
                v, t, *exact, *ids, scale=20.0, label_agreement=label_agreement, image_weight=0.3
            ),
            embeds,
            (*labels, *tensors),
            scale=20.0,
        )
    else:
        check(
            SigmoidContrastiveLoss(0.05, -3.0, label_agreement, tile_size=tile_size),
            lambda v, t: reference.sigmoid_contrastive(
                v, t, *exact, *ids, scale=20.0, bias=-3.0, label_agreement=label_agreement
            ),
            embeds,
            (*tensors, *labels),
        )


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 10.0), (0.1, 100.0), (0.02, 10.0)])
@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("tile_size", [None, 2])
def test_soft_agreement_with_a_temperature(labels, temperature, with_ids, tile_size, scale):
    ids = [[0, 1, 2][: len(x)] for x in labels] if with_ids else [None, None]
    check(
        ImageTextLabelContrastiveLoss(1 / scale, "soft", 0.3, tile_size=tile_size, agreement_temperature=temperature),
        lambda v, t: reference.image_text_label_contrastive(
            v,
            t,
            *(x.double() for x in labels),
            *ids,
            scale=scale,
            label_agreement="soft",
            agreement_temperature=temperature,
            image_weight=0.3,
        ),
        tuple(draw(len(x), 4, seed=k) for k, x in enumerate(labels)),
        (*labels, *(None if i is None else torch.tensor(i) for i in ids)),
        3 * scale,  # a tile's weights are rounded once more where they are normalized
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("tile_size", [None, 2])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sigmoid_options(reduction, tile_size, scale):
    ids = [0, 1, 1], [1, 0, 2, 1]
    check(
        SigmoidContrastiveLoss(1 / scale, reduction=reduction, tile_size=tile_size),
        lambda v, t: reference.sigmoid_contrastive(v, t, None, None, *ids, scale=scale, reduction=reduction),
        (draw(3, 4), draw(4, 4)),
        tuple(map(torch.tensor, ids)),
    )


MASKS = {
    "all": (torch.ones(3, 4), torch.ones(2, 3)),
    "ragged": (torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]]), torch.tensor([[1, 0, 0], [1, 1, 0]])),
    "one patch, one sentence": (torch.tensor([[0, 0, 1, 0]] * 3), torch.tensor([[1, 0, 0]] * 2)),
    "empty rows": (torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]), torch.tensor([[0, 0, 0], [1, 1, 0]])),
    "nothing": (torch.zeros(3, 4), torch.zeros(2, 3)),
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
@pytest.mark.parametrize("tile_size", [None, 1])
def test_patch_sentence_matching(masks, alignment, tile_size):
    patch_mask, sentence_mask = (mask.bool() for mask in masks)
    image_ids, text_ids = [0, 1, 1], [0, 1]
    weights = [0.5, 1.0, 2.0]
    check(
        PatchSentenceMatchingLoss(0.1, alignment, epsilon=0.1, tile_size=tile_size),
        lambda p, s: reference.patch_sentence_matching(
            p, s, patch_mask, sentence_mask, image_ids, text_ids, weights, scale=10.0, alignment=alignment, epsilon=0.1
        ),
        (draw(3, 4, 5), draw(2, 3, 5)),
        (patch_mask, sentence_mask, torch.tensor(image_ids), torch.tensor(text_ids), torch.tensor(weights)),
    )


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_patch_sentence_matching_options(reduction, scale):
    check(
        PatchSentenceMatchingLoss(1 / scale, "attention", 0.1, 0.01, 0.8, reduction),
        lambda p, s: reference.patch_sentence_matching(
            p,
            s,
            torch.ones(2, 3).bool(),
            torch.ones(2, 2).bool(),
            [0, 1],
            [0, 1],
            scale=scale,
            alignment="attention",
            attention_temperature=0.01,
            image_weight=0.8,
            reduction=reduction,
        ),
        (draw(2, 3, 4), draw(2, 2, 4)),
        (),
    )


SENTENCE_LABELS = {
    "states": (
        torch.tensor([[1.0, -1, 0], [-1, -1, 1], [0, 1, 1]]),
        torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 1], [0, -1, 0]]]),
    ),
    "unknown": (
        torch.tensor([[1.0, NAN, 0], [NAN, NAN, NAN], [0, 1, -1]]),
        torch.tensor([[[1.0, NAN, 0], [NAN, NAN, NAN], [NAN, 1, 1]], [[0, 1, NAN], [0, 0, 0], [-1, -1, NAN]]]),
    ),
    "nothing of images": (torch.zeros(3, 3), torch.ones(2, 3, 3)),
    "nothing of sentences": (torch.ones(3, 3), torch.full((2, 3, 3), NAN)),
    "denied alone": (torch.eye(3), -torch.ones(2, 3, 3)),
}


@pytest.mark.parametrize(
    ("masks", "labels"),
    [*((masks, "unknown") for masks in MASKS), *(("all", labels) for labels in SENTENCE_LABELS)],
)
@pytest.mark.parametrize(
    ("alignment", "tile_size"), [("transport", None), ("attention", None), ("max", None), ("attention", 1), ("max", 1)]
)
def test_semantic_sentence(masks, labels, alignment, tile_size):
    labels, (patch_mask, sentence_mask) = SENTENCE_LABELS[labels], (mask.bool() for mask in MASKS[masks])
    weights = [0.5, 1.0, 2.0]
    check(
        SemanticSentenceLoss(0.1, alignment=alignment, epsilon=0.1, tile_size=tile_size),
        lambda p, s: reference.semantic_sentence(
            p, s, *labels, patch_mask, sentence_mask, None, weights, scale=10.0, alignment=alignment, epsilon=0.1
        ),
        (draw(3, 4, 5), draw(2, 3, 5)),
        (*labels, patch_mask, sentence_mask, None, torch.tensor(weights)),
        scale=30.0,  # with one patch and one sentence, gradients are small differences
    )


@pytest.mark.parametrize(
    ("reduction", "kind", "scale"), [("mean", "jaccard", 1.0), ("sum", "dot", 100.0), ("none", "cosine", 10.0)]
)
@pytest.mark.parametrize("present_only", [False, True])
def test_semantic_sentence_options(reduction, kind, present_only, scale):
    images, texts = SENTENCE_LABELS["unknown"]
    patch_mask, sentence_mask = (mask.bool() for mask in MASKS["empty rows"])
    check(
        SemanticSentenceLoss(
            1 / scale,
            0.5,
            kind,
            attention_temperature=0.3,
            present_only=present_only,
            reduction=reduction,
        ),
        lambda p, s: reference.semantic_sentence(
            p,
            s,
            images,
            texts,
            patch_mask,
            sentence_mask,
            scale=scale,
            target_temperature=0.5,
            kind=kind,
            attention_temperature=0.3,
            present_only=present_only,
            reduction=reduction,
        ),
        (draw(3, 4, 5), draw(2, 3, 5)),
        (images, texts, patch_mask, sentence_mask),
        scale,
    )


@pytest.mark.parametrize(
    ("alignment", "reduction", "tile_size"),
    [("transport", "none", 2), ("transport", "mean", None), ("max", "none", None)],
)
def test_sentences_that_are_texts_of_their_own_share_a_plan_by_id(alignment, reduction, tile_size):
    images = SENTENCE_LABELS["states"][0]
    texts = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 1], [-1, 0, 0], [0, 1, 0], [1, 1, 0]])
    ids, mask = [7, 3, 7, 3, 9, 2], torch.tensor([[1], [1], [1], [1], [1], [0]]).bool()
    patch_mask = MASKS["ragged"][0].bool()
    check(
        SemanticSentenceLoss(0.1, alignment=alignment, epsilon=0.3, reduction=reduction, tile_size=tile_size),
        lambda p, s: reference.semantic_sentence(
            p,
            s,
            images,
            texts.unsqueeze(1),
            patch_mask,
            mask,
            ids if alignment == "transport" else None,
            scale=10.0,
            alignment=alignment,
            epsilon=0.3,
            reduction=reduction,
        ),
        (draw(3, 4, 5), draw(6, 1, 5)),
        (images, texts, patch_mask, mask, torch.tensor(ids)),
        scale=10.0,
    )


def test_a_label_of_the_whole_text_is_of_its_sentences_mean():
    images, texts = torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([[1.0, 0], [0, 1]])
    mask = MASKS["ragged"][1].bool()

    def expected(p, s):
        means = [sum(reference.unit(text[kept])) / kept.sum() for text, kept in zip(s, mask, strict=True)]
        kept = torch.ones(3, 4).bool(), torch.ones(2, 1).bool()
        return reference.semantic_sentence(
            p, torch.stack(means).unsqueeze(1), images, texts.unsqueeze(1), *kept, scale=10.0
        )

    check(SemanticSentenceLoss(), expected, (draw(3, 4, 5), draw(2, 3, 5)), (images, texts, None, mask), scale=10.0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("hidden", ["some", "none", "all", "all but one"])
def test_masked_patch(normalize, reduction, hidden):
    visible = {
        "some": torch.tensor([[1, 0, 0, 1, 0, 1], [0, 0, 1, 1, 1, 0]]),
        "none": torch.ones(2, 6),
        "all": torch.zeros(2, 6),
        "all but one": torch.tensor([[0, 0, 0, 0, 0, 1]] * 2),
    }[hidden].bool()
    image = draw(2, 3, 4, 6)
    image[0, :, :2, 2:4] = 0.5
    check(
        lambda x: MaskedPatchLoss(2, normalize, reduction)(x, image.float(), visible),
        lambda x: reference.masked_patch(x, image, visible, 2, normalize, reduction),
        (draw(2, 6, 12),),
        (),
        rtol=2e-5,
    )


@pytest.mark.parametrize("tile_size", [None, 1])
def test_a_small_sigmoid_loss_keeps_its_digits(tile_size):
    """Positives have the logit 10 and negatives -10: each of the four terms is log(1 + exp(-10))."""
    eye = torch.eye(2)
    loss = SigmoidContrastiveLoss(temperature=1 / 20, bias=-10.0, tile_size=tile_size)(eye, eye)
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-10)), rel=1e-5)


@pytest.mark.parametrize("tile_size", [None, 1])
@pytest.mark.parametrize("logit", [0.0, 15.0, 25.0, -25.0])
def test_sigmoid_gradients_are_exact_at_zero_and_at_large_logits(logit, tile_size):
    units, ids = torch.eye(4, dtype=torch.float64), torch.arange(4)
    bias = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    SigmoidContrastiveLoss(tile_size=tile_size)(units * 0, units, ids, ids, logit_bias=bias).backward()
    # Every logit is the bias; each image has one positive and three negatives.
    torch.testing.assert_close(bias.grad, 4 * bias.detach().sigmoid() - 1, rtol=1e-12, atol=1e-12)
