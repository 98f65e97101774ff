"""Tiled equals plain to rounding, value and gradient, for every kind of target."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from medvl.functional import tiled
from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SigmoidContrastiveLoss,
)

KINDS = {
    "hard": (ImageTextContrastiveLoss, {}, False),
    "multi-positive": (ImageTextContrastiveLoss, {}, True),
    "cosine": (SemanticMatchingLoss, {}, False),
    "sharp cosine": (SemanticMatchingLoss, {"target_temperature": 0.01}, False),
    "dot": (SemanticMatchingLoss, {"similarity": "dot"}, False),
    "jaccard": (SemanticMatchingLoss, {"similarity": "jaccard"}, False),
    "callable": (SemanticMatchingLoss, {"similarity": lambda a, b: -torch.cdist(a, b)}, False),
    "exact": (ImageTextLabelContrastiveLoss, {"label_agreement": "exact"}, True),
    "overlap": (ImageTextLabelContrastiveLoss, {"label_agreement": "overlap"}, True),
    "soft": (ImageTextLabelContrastiveLoss, {"label_agreement": "soft"}, True),
    "sigmoid": (SigmoidContrastiveLoss, {"label_agreement": "soft"}, True),
}


def arguments(kind, n, m, generator):
    loss, _, shared = KINDS[kind]
    ids = [torch.randint(0, 3, (k,), generator=generator) if shared else torch.arange(k) for k in (n, m)]
    labels = [torch.randint(-1, 2, (k, 3), generator=generator).float() for k in (n, m)]
    weights = torch.rand(n, generator=generator)
    by_ids, by_labels = {"image_ids": ids[0], "text_ids": ids[1]}, {"image_labels": labels[0], "text_labels": labels[1]}
    if loss is ImageTextContrastiveLoss:
        return by_ids | {"weights": weights}
    return by_labels if loss is SemanticMatchingLoss else by_ids | by_labels


def value_and_gradients(loss, embeds, scale, extra):
    leaves = [x.clone().requires_grad_() for x in (*embeds, scale)]
    value = loss(*leaves[:2], **extra, logit_scale=leaves[2])
    value.sum().backward()
    return value.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=settings.default.max_examples // 4)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(2, 5),
    tile_size=st.integers(1, 14),
    images_at_once=st.integers(1, 14),
    scale=st.sampled_from([0.5, 10.0, 39.0, 41.0, 100.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    zero_length=st.booleans(),
    seed=st.integers(0, 2**16),
)
@example(11, 3, 4, 1, 1, 0.5, "mean", False, 5)
@example(2, 12, 2, 1, 1, 0.5, "mean", False, 1)  # orthogonal labels whose cosine is rounded to above 0
def test_tiled_equals_plain(kind, n, m, d, tile_size, images_at_once, scale, reduction, zero_length, seed):
    generator = torch.Generator().manual_seed(seed)
    embeds = [torch.randn(k, d, generator=generator) for k in (n, m)]
    if zero_length:
        embeds[0][0] = 0.0
    extra = arguments(kind, n, m, generator)
    loss, options, _ = KINDS[kind]
    scale = torch.tensor(scale)
    plain, plain_grads = value_and_gradients(loss(reduction=reduction, **options), embeds, scale, extra)
    with pytest.MonkeyPatch.context() as patch:
        # So small a batch would be one tile of images.
        patch.setattr(tiled, "CPU_TILE_ELEMENTS", images_at_once * tile_size)
        tiled_loss = loss(reduction=reduction, tile_size=tile_size, **options)
        value, grads = value_and_gradients(tiled_loss, embeds, scale, extra)
    # A logit is rounded to 1e-7 of the scale, and gradients by that share of what they are sums of: at most twice the
    # scale for every term, over the length of the embedding.
    count = n + m if reduction != "mean" else 1
    sharpness = max(1.0, 0.1 / options.get("target_temperature", 1.0))
    torch.testing.assert_close(value, plain, rtol=1e-5, atol=4e-7 * float(scale) * sharpness)
    bounds = [2 * float(scale) / x.norm(dim=1, keepdim=True).clamp_min(1e-3) for x in embeds] + [torch.tensor(2.0)]
    for got, expected, bound in zip(grads, plain_grads, bounds, strict=True):
        assert torch.isfinite(got).all()
        assert ((got - expected).abs() <= 1e-6 * (1 + float(scale) / 10) * count * bound).all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("scale", [10.0, 100.0])  # 100: the exponentials are not bounded
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_some_images_and_some_texts_equal_plain(kind, scale, reduction, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    embeds = [torch.randn(k, 3, generator=generator) for k in (5, 7)]
    extra = arguments(kind, 5, 7, generator)
    loss, options, _ = KINDS[kind]
    plain, plain_grads = value_and_gradients(loss(reduction=reduction, **options), embeds, torch.tensor(scale), extra)
    monkeypatch.setattr(tiled, "CPU_TILE_ELEMENTS", 2 * 3)  # two images at a time
    tiled_loss = loss(reduction=reduction, tile_size=3, **options)
    value, grads = value_and_gradients(tiled_loss, embeds, torch.tensor(scale), extra)
    torch.testing.assert_close(value, plain, rtol=1e-5, atol=1e-6 * scale)
    for got, expected in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
@settings(max_examples=settings.default.max_examples // 10)
@given(
    n=st.integers(1, 5),
    m=st.integers(1, 5),
    p=st.integers(1, 6),
    s=st.integers(1, 4),
    tile_size=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_tiled_patch_sentence_equals_plain(alignment, n, m, p, s, tile_size, seed):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(n, p, 4, generator=generator), torch.randn(m, s, 4, generator=generator)
    extra = {
        "patch_mask": torch.rand(n, p, generator=generator) < 0.7,
        "sentence_mask": torch.rand(m, s, generator=generator) < 0.7,
        "image_ids": torch.randint(0, 3, (n,), generator=generator),
        "text_ids": torch.randint(0, 3, (m,), generator=generator),
    }
    results = [
        value_and_gradients(
            PatchSentenceMatchingLoss(alignment=alignment, tile_size=size), embeds, torch.tensor(10.0), extra
        )
        for size in (None, tile_size)
    ]
    # Plans of one tile may stop some iterations before those of the whole, within sinkhorn's tolerance.
    torch.testing.assert_close(results[0][0], results[1][0], rtol=2e-5, atol=1e-6)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


class Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_grows_with_n_times_m(kind, monkeypatch):
    monkeypatch.setattr(tiled, "CPU_TILE_ELEMENTS", 64)
    generator = torch.Generator().manual_seed(0)
    embeds = [torch.randn(100, 4, generator=generator) for _ in range(2)]
    extra = arguments(kind, 100, 100, generator)
    loss, options, _ = KINDS[kind]
    largest = {}
    for tile_size in (None, 8):
        with Largest() as mode:
            value_and_gradients(loss(tile_size=tile_size, **options), embeds, torch.tensor(10.0), extra)
        largest[tile_size] = mode.elements
    assert largest[None] == 100 * 100
    assert largest[8] <= 100 * 8


@pytest.mark.parametrize("tile_size", [0, -1, 2.5, True, "large"])
def test_wrong_tile_size(tile_size):
    with pytest.raises(ValueError, match=rf"tile_size must be a positive integer, 'auto' or None, got {tile_size!r}"):
        SemanticMatchingLoss(tile_size=tile_size)


def test_auto_is_plain_where_the_batch_is_small(monkeypatch):
    def fail(*_args):
        raise AssertionError("tiled")

    monkeypatch.setattr(tiled.TiledContrast, "apply", fail)
    ImageTextContrastiveLoss(tile_size="auto")(torch.randn(256, 2), torch.randn(256, 2))
    with pytest.raises(AssertionError, match="tiled"):
        ImageTextContrastiveLoss(tile_size="auto")(torch.randn(2048, 2), torch.randn(2048, 2))
