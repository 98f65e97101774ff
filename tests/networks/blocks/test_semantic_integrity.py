"""Integrity of masked images, from report and from pixels, against loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from medvl.networks import PatchContrastIntegrity, SemanticIntegrity


def cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_the_share_of_attention_on_visible_patches(temperature):
    generator = torch.Generator().manual_seed(0)
    patches, sentences = torch.randn(3, 5, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    visible = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).bool()
    patch_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    sentence_mask = torch.tensor([[1, 1], [0, 1], [0, 0]]).bool()
    result = SemanticIntegrity(temperature)(patches, sentences, visible, patch_mask, sentence_mask)
    for n in range(3):
        spoken = [s for s in range(2) if sentence_mask[n, s]]
        best = [
            max((cosine(patches[n, p].tolist(), sentences[n, s].tolist()) for s in spoken), default=0.0)
            for p in range(5)
        ]
        weights = [math.exp(b / temperature) if patch_mask[n, p] else 0.0 for p, b in enumerate(best)]
        expected = sum(w for p, w in enumerate(weights) if visible[n, p]) / sum(weights)
        assert result[n].item() == pytest.approx(expected, abs=1e-5)
    assert result[2].item() == pytest.approx(1)


def test_it_gives_no_gradient_and_stands_bfloat16_and_a_batch_of_one():
    patches, sentences = torch.randn(1, 4, 3, requires_grad=True), torch.randn(1, 2, 3, requires_grad=True)
    visible = torch.tensor([[True, False, False, False]])
    result = SemanticIntegrity()(patches, sentences, visible)
    assert not result.requires_grad
    half = SemanticIntegrity()(patches.bfloat16(), sentences.bfloat16(), visible)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(result.item(), abs=0.05)


def test_contrast_is_the_share_of_the_patches_deviations():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 4, 6, generator=generator)
    image[:, :, :2, :2] = 0.5
    visible = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0]]).bool()
    result = PatchContrastIntegrity(2)(image, visible)
    for n in range(2):
        spread = [
            statistics.pstdev(image[n, 0, r : r + 2, c : c + 2].flatten().tolist()) for r in (0, 2) for c in (0, 2, 4)
        ]
        expected = sum(s for s, v in zip(spread, visible[n].tolist(), strict=True) if v) / sum(spread)
        assert result[n].item() == pytest.approx(expected, abs=1e-5)
    assert result[1].item() == pytest.approx(0, abs=1e-6)  # only a patch of one shade is left


def test_contrast_of_an_image_of_one_shade_counts_patches_and_volumes_are_taken():
    visible = torch.zeros(1, 8, dtype=torch.bool)
    visible[0, :2] = True
    assert PatchContrastIntegrity((2, 2, 2))(torch.full((1, 1, 4, 4, 4), 0.3), visible).item() == pytest.approx(0.25)
    assert not PatchContrastIntegrity(2)(torch.rand(1, 1, 4, 8, requires_grad=True), visible).requires_grad


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SemanticIntegrity(0)
    with pytest.raises(ValueError, match=r"^visible_mask must have shape \(1, 4\), got \(1, 5\)\.$"):
        PatchContrastIntegrity(2)(torch.zeros(1, 1, 4, 4), torch.ones(1, 5))
    with pytest.raises(ValueError, match="patch_size must divide every spatial axis"):
        PatchContrastIntegrity(3)(torch.zeros(1, 1, 4, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match="same number of images and reports, got 2 and 1"):
        SemanticIntegrity()(torch.ones(2, 3, 4), torch.ones(1, 3, 4), torch.ones(2, 3))
