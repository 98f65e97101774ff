"""Plans and scores of patches and sentences; semantic integrity."""

from __future__ import annotations

import pytest
import torch

from medvl.functional import patch_sentence_plan, patch_sentence_scores, semantic_integrity


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
def test_plans_sum_to_one_over_what_is_kept(alignment):
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(4, 6, 3, generator=generator) * 2 - 1
    patches = torch.tensor([[True] * 6, [True, False, True, False, False, True], [False] * 6, [True] * 6])
    sentences = torch.tensor([[True] * 3, [False, True, False], [True] * 3, [False] * 3])
    plan = patch_sentence_plan(similarity, patches, sentences, alignment)
    torch.testing.assert_close(plan.sum((1, 2)), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert plan[~(patches[:, :, None] & sentences[:, None])].abs().sum() == 0
    assert (plan >= 0).all()


def test_scores_of_one_patch_and_one_sentence_are_their_cosine():
    patch, sentence = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[5.0, 0.0]], [[0.0, -2.0]]])
    for alignment in ("transport", "attention", "max"):
        torch.testing.assert_close(
            patch_sentence_scores(patch, sentence, alignment=alignment), torch.tensor([[0.6, -0.8]])
        )


def test_max_matching_by_hand():
    patches = torch.eye(3)[None]
    sentences = torch.tensor([[[1.0, 0, 0], [0.6, 0.8, 0]]])
    by_patch, by_sentence = (1.0 + 0.8 + 0.0) / 3, (1.0 + 0.8) / 2
    score = patch_sentence_scores(patches, sentences, alignment="max").item()
    assert score == pytest.approx((by_patch + by_sentence) / 2, rel=1e-6)


def test_auto_tiles_only_what_is_large(monkeypatch):
    from medvl.functional import alignment

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


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^alignment must be one of 'transport', 'attention', 'max', got 'mean'\.$"):
        patch_sentence_scores(torch.ones(1, 2, 3), torch.ones(1, 2, 3), alignment="mean")
    message = r"^patch_embeds and sentence_embeds must have the same number of images and reports, got 1 and 2\.$"
    with pytest.raises(ValueError, match=message):
        semantic_integrity(torch.ones(1, 2, 3), torch.ones(2, 2, 3), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"^visible_mask must have shape \(1, 2\), got \(1, 3\)\.$"):
        semantic_integrity(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 3))
