"""Plans and scores of patches and sentences; semantic integrity."""

from __future__ import annotations

import re

import pytest
import torch

from medvl.functional import (
    alignment,
    patch_sentence_matching_loss,
    patch_sentence_plan,
    patch_sentence_scores,
    semantic_integrity,
)


@pytest.mark.parametrize("kind", ["transport", "attention", "max"])
def test_plans_sum_to_one_over_what_is_kept(kind):
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(4, 6, 3, generator=generator) * 2 - 1
    patches = torch.tensor([[True] * 6, [True, False, True, False, False, True], [False] * 6, [True] * 6])
    sentences = torch.tensor([[True] * 3, [False, True, False], [True] * 3, [False] * 3])
    plan = patch_sentence_plan(similarity, patches, sentences, kind)
    torch.testing.assert_close(plan.sum((1, 2)), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert plan[~(patches[:, :, None] & sentences[:, None])].abs().sum() == 0
    assert (plan >= 0).all()


def test_scores_of_one_patch_and_one_sentence_are_their_cosine():
    patch, sentence = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[5.0, 0.0]], [[0.0, -2.0]]])
    for kind in ("transport", "attention", "max"):
        torch.testing.assert_close(patch_sentence_scores(patch, sentence, alignment=kind), torch.tensor([[0.6, -0.8]]))


def test_max_matching_by_hand():
    patches = torch.eye(3)[None]
    sentences = torch.tensor([[[1.0, 0, 0], [0.6, 0.8, 0]]])
    by_patch, by_sentence = (1.0 + 0.8 + 0.0) / 3, (1.0 + 0.8) / 2
    score = patch_sentence_scores(patches, sentences, alignment="max").item()
    assert score == pytest.approx((by_patch + by_sentence) / 2, rel=1e-6)


def test_auto_tiles_only_what_is_large(monkeypatch):
    calls = []
    whole = alignment._score
    monkeypatch.setattr(alignment, "_score", lambda *a: calls.append(len(a[1])) or whole(*a))
    patches, sentences = torch.randn(2, 4, 3), torch.randn(5, 2, 3)
    expected = patch_sentence_scores(patches, sentences, tile_size="auto")
    assert calls == [5]
    monkeypatch.setattr(alignment, "TILE_ELEMENTS", 2 * 4 * 2 * 2)
    calls.clear()
    torch.testing.assert_close(patch_sentence_scores(patches, sentences, tile_size="auto"), expected)
    assert calls == [2, 2, 1]


def test_one_tile_more_is_made_only_past_the_limit(monkeypatch):
    calls, kept = [], []
    whole, forget = alignment._score, alignment.checkpoint
    monkeypatch.setattr(alignment, "_score", lambda *a: calls.append(len(a[1])) or whole(*a))
    monkeypatch.setattr(alignment, "checkpoint", lambda *a, **k: kept.append(1) or forget(*a, **k))
    patches, sentences = torch.randn(3, 4, 5), torch.randn(7, 2, 5)
    for limit, tile_size, expected, recomputed in (
        (3 * 4 * 2 * 7, "auto", [7], 0),
        (3 * 4 * 2 * 7 - 1, "auto", [6, 1], 2),
        (1, "auto", [1] * 7, 7),
        (1, 5, [5, 2], 2),
        (1, 100, [7], 1),
    ):
        monkeypatch.setattr(alignment, "TILE_ELEMENTS", limit)
        calls.clear()
        kept.clear()
        scores = patch_sentence_scores(patches, sentences, alignment="max", tile_size=tile_size)
        assert (calls, len(kept)) == (expected, recomputed)
        torch.testing.assert_close(scores, patch_sentence_scores(patches, sentences, alignment="max"))
    for empty in (patches[:0], patches[:, :0]):
        assert patch_sentence_scores(empty, sentences, tile_size="auto").shape == (len(empty), 7)


def test_defaults_of_plans_and_scores():
    generator = torch.Generator().manual_seed(0)
    patches, sentences = torch.randn(2, 4, 5, generator=generator), torch.randn(3, 2, 5, generator=generator)
    options = {"alignment": "transport", "epsilon": 0.05, "attention_temperature": 0.1}
    assert torch.equal(patch_sentence_scores(patches, sentences), patch_sentence_scores(patches, sentences, **options))
    similarity, masks = torch.rand(4, 2, generator=generator), (torch.ones(4) > 0, torch.ones(2) > 0)
    assert torch.equal(patch_sentence_plan(similarity, *masks), patch_sentence_plan(similarity, *masks, **options))
    for function, arguments in (
        (patch_sentence_plan, (similarity, *masks)),
        (patch_sentence_scores, (patches, sentences)),
    ):
        default = function(*arguments, alignment="attention")
        assert torch.equal(default, function(*arguments, **options | {"alignment": "attention"}))


def test_semantic_integrity_is_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    patches, sentences = torch.randn(2, 4, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    visible = torch.tensor([[True, False, True, False]] * 2)
    expected = semantic_integrity(patches, sentences, visible)
    assert torch.equal(semantic_integrity(patches, sentences, visible, temperature=0.1), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(semantic_integrity(patches, sentences, visible), expected)


def test_semantic_integrity_by_loop():
    generator = torch.Generator().manual_seed(0)
    patches, sentences = (torch.randn(3, n, 5, generator=generator, dtype=torch.float64) for n in (6, 4))
    visible = torch.rand(3, 6, generator=generator) < 0.5
    patch_mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] * 6])
    sentence_mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    got = semantic_integrity(patches, sentences, visible, patch_mask, sentence_mask, temperature=0.3)
    for i in range(3):
        weights = []
        for p in range(6):
            cosines = [
                torch.cosine_similarity(patches[i, p], sentences[i, s], dim=0) for s in range(4) if sentence_mask[i, s]
            ]
            best = max(cosines) if cosines else torch.zeros((), dtype=torch.float64)
            weights.append(torch.exp(best / 0.3) if patch_mask[i, p] else torch.zeros(()).double())
        share = sum(w for w, seen in zip(weights, visible[i], strict=True) if seen) / sum(weights)
        assert float(got[i]) == pytest.approx(float(share), rel=1e-9)
    assert not semantic_integrity(patches.requires_grad_(), sentences, visible).requires_grad

    nothing = semantic_integrity(patches, sentences[:, :0], visible)
    torch.testing.assert_close(nothing, visible.double().mean(1))


ONES = torch.ones(1, 2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: patch_sentence_plan(ONES, ONES[0], ONES[0], "mean"), ValueError,
         "alignment must be one of 'transport', 'attention', 'max', got 'mean'."),
        (lambda: patch_sentence_plan(ONES, ONES[0], ONES[0], attention_temperature=0), ValueError,
         "attention_temperature must be above 0, got 0."),
        (lambda: patch_sentence_scores(ONES[0], ONES), ValueError,
         "patch_embeds must have shape (N, P, D), got (2, 3)."),
        (lambda: patch_sentence_scores(ONES, ONES[0]), ValueError,
         "sentence_embeds must have shape (M, S, D), got (2, 3)."),
        (lambda: patch_sentence_scores(ONES, ONES, patch_mask=[True]), TypeError,
         "patch_mask must be of type Tensor, got list."),
        (lambda: patch_sentence_scores(ONES, ONES, sentence_mask=torch.ones(1, 3)), ValueError,
         "sentence_mask must have shape (1, 2), got (1, 3)."),
        (lambda: patch_sentence_scores(ONES, ONES, sentence_mask=torch.ones(1, 3), tile_size=1), ValueError,
         "sentence_mask must have shape (1, 2), got (1, 3)."),
        (lambda: patch_sentence_scores(ONES, ONES, tile_size=0), ValueError,
         "tile_size must be a positive integer, 'auto' or None, got 0."),
        (lambda: patch_sentence_matching_loss(ONES, ONES, image_weight=2), ValueError,
         "image_weight must be between 0 and 1, got 2."),
        (lambda: patch_sentence_matching_loss(ONES, ONES, temperature=0), ValueError,
         "temperature must be above 0, got 0."),
        (lambda: semantic_integrity(ONES, ONES, torch.ones(1, 2), temperature=0), ValueError,
         "temperature must be above 0, got 0."),
        (lambda: semantic_integrity(ONES, ONES, [True]), TypeError, "visible_mask must be of type Tensor, got list."),
        (lambda: semantic_integrity(ONES, ONES, torch.ones(1, 2), torch.ones(1, 3)), ValueError,
         "patch_mask must have shape (1, 2), got (1, 3)."),
        (lambda: semantic_integrity(ONES, ONES, torch.ones(1, 2), None, torch.ones(1, 3)), ValueError,
         "sentence_mask must have shape (1, 2), got (1, 3)."),
        (lambda: semantic_integrity(ONES[0], ONES, torch.ones(1, 2)), ValueError,
         "patch_embeds must have shape (N, P, D), got (2, 3)."),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^alignment must be one of 'transport', 'attention', 'max', got 'mean'\.$"):
        patch_sentence_scores(torch.ones(1, 2, 3), torch.ones(1, 2, 3), alignment="mean")
    message = r"^patch_embeds and sentence_embeds must have the same number of images and reports, got 1 and 2\.$"
    with pytest.raises(ValueError, match=message):
        semantic_integrity(torch.ones(1, 2, 3), torch.ones(2, 2, 3), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"^visible_mask must have shape \(1, 2\), got \(1, 3\)\.$"):
        semantic_integrity(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 3))
