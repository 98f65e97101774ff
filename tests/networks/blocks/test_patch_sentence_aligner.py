"""The aligner against plans and maps written out with loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from medvl.functional import patch_sentence_scores
from medvl.networks import PatchSentenceAligner


def make(n: int = 2, p: int = 6, s: int = 3, d: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, d, generator=generator), torch.randn(n, s, d, generator=generator)


def cosine(a, b) -> float:
    norm = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm


def loop_plan(c: list[list[float]], alignment: str, epsilon: float, tau: float) -> list[list[float]]:
    """The plan over the kept patches and sentences."""
    rows, columns = len(c), len(c[0])
    if alignment == "transport":
        kernel = [[math.exp((x - 1) / epsilon) for x in row] for row in c]
        u, v = [1.0] * rows, [1.0] * columns
        for _ in range(3000):
            u = [1 / rows / sum(k * w for k, w in zip(row, v, strict=True)) for row in kernel]
            v = [1 / columns / sum(kernel[i][j] * u[i] for i in range(rows)) for j in range(columns)]
        return [[u[i] * kernel[i][j] * v[j] for j in range(columns)] for i in range(rows)]
    if alignment == "attention":
        sums = [sum(math.exp(c[i][j] / tau) for i in range(rows)) for j in range(columns)]
        return [[math.exp(c[i][j] / tau) / sums[j] / columns for j in range(columns)] for i in range(rows)]
    plan = [[0.0] * columns for _ in range(rows)]
    for i in range(rows):
        plan[i][max(range(columns), key=lambda j: c[i][j])] += 0.5 / rows
    for j in range(columns):
        plan[max(range(rows), key=lambda i: c[i][j])][j] += 0.5 / columns
    return plan


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
def test_scores_and_maps_are_those_of_the_equations(alignment):
    patches, sentences = make()
    patch_mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]]).bool()
    sentence_mask = torch.tensor([[1, 0, 1], [1, 1, 1]]).bool()
    aligner = PatchSentenceAligner(alignment, epsilon=0.2, attention_temperature=0.3)
    output = aligner(patches.double(), sentences.double(), (2, 3), patch_mask, sentence_mask)
    assert output["maps"].shape == (2, 3, 2, 3)
    for n in range(2):
        kept_p = patch_mask[n].nonzero().flatten().tolist()
        kept_s = sentence_mask[n].nonzero().flatten().tolist()
        c = [[cosine(patches[n, p].tolist(), sentences[n, s].tolist()) for s in kept_s] for p in kept_p]
        plan = loop_plan(c, alignment, 0.2, 0.3)
        score = sum(t * x for row, xs in zip(plan, c, strict=True) for t, x in zip(row, xs, strict=True))
        assert output["scores"][n].item() == pytest.approx(score, abs=1e-5)
        expected = torch.zeros(3, 6, dtype=torch.float64)
        for j, s in enumerate(kept_s):
            weights = [plan[i][j] * (1 + c[i][j]) for i in range(len(kept_p))]
            for i, p in enumerate(kept_p):
                expected[s, p] = weights[i] / sum(weights)
        assert torch.allclose(output["maps"][n].flatten(1), expected, atol=1e-5)
        mean = sum(expected[kept_s[0], p] * c[i][0] for i, p in enumerate(kept_p))
        assert output["sentence_scores"][n, kept_s[0]].item() == pytest.approx(float(mean), abs=1e-5)


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
def test_scores_are_the_diagonal_of_the_losses_scores(alignment):
    patches, sentences = make(3)
    expected = patch_sentence_scores(patches, sentences, alignment=alignment).diagonal()
    assert torch.allclose(PatchSentenceAligner(alignment)(patches, sentences, (6,))["scores"], expected, atol=1e-5)


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
@pytest.mark.parametrize("grid", [(2, 3), (3, 1, 2)])
def test_one_sentence_alone_orders_patches_by_cosine(alignment, grid):
    patches, sentences = make(1, s=1)
    maps = PatchSentenceAligner(alignment)(patches, sentences, grid)["maps"]
    assert maps.shape == (1, 1, *grid)
    assert maps.sum().item() == pytest.approx(1, abs=1e-5)
    cosines = torch.nn.functional.cosine_similarity(patches[0], sentences[0], dim=-1)
    assert maps.flatten().argsort().tolist() == cosines.argsort().tolist()


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
def test_a_planted_patch_is_found(alignment):
    patches, sentences = make(2, p=12, s=4, d=32)
    patches[1, 7] = sentences[1, 2] * 3
    maps = PatchSentenceAligner(alignment)(patches, sentences, (3, 4))["maps"]
    assert divmod(int(maps[1, 2].argmax()), 4) == (1, 3)


@pytest.mark.parametrize("alignment", ["transport", "attention", "max"])
def test_masks_that_keep_one_or_nothing_give_numbers(alignment):
    patches, sentences = (value.requires_grad_() for value in make(3))
    patch_mask = torch.zeros(3, 6, dtype=torch.bool)
    patch_mask[0, 4] = patch_mask[1] = True
    sentence_mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    output = PatchSentenceAligner(alignment)(patches, sentences, (2, 3), patch_mask, sentence_mask)
    assert all(value.isfinite().all() for value in output.values())
    assert output["maps"][0, :2, 1, 1].tolist() == pytest.approx([1, 1])
    assert not output["maps"][0, 2].any()
    assert not output["maps"][1:].any()
    assert output["scores"][1:].tolist() == [0, 0]
    (output["maps"].square().sum() + output["scores"].sum()).backward()
    assert patches.grad.isfinite().all()
    assert sentences.grad.isfinite().all()


def test_one_image_aligns_with_many_texts_and_many_images_with_one_text():
    patches, sentences = make(4)
    aligner = PatchSentenceAligner()
    one_image = aligner(patches[:1], sentences, (2, 3))
    assert torch.allclose(one_image["maps"], aligner(patches[:1].expand(4, -1, -1), sentences, (2, 3))["maps"])
    one_text = aligner(patches, sentences[:1], (2, 3), sentence_mask=torch.tensor([[True, True, False]]))
    assert one_text["maps"].shape == (4, 3, 2, 3)


def test_bfloat16_and_autocast_compute_in_float32():
    patches, sentences = make()
    output = PatchSentenceAligner()(patches.bfloat16(), sentences.bfloat16(), (2, 3))
    assert output["maps"].dtype == output["scores"].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside = PatchSentenceAligner()(patches, sentences, (2, 3))
    assert torch.equal(inside["maps"], PatchSentenceAligner()(patches, sentences, (2, 3))["maps"])


def test_heat_maps_have_the_images_size_and_keep_the_peak():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 2] = 0.5
    maps[0, 1] = 0.0625
    heat = PatchSentenceAligner.heatmaps(maps, (64, 64))
    assert heat.shape == (1, 2, 64, 64)
    assert (heat[0, 0].min().item(), heat[0, 0].max().item()) == (0.0, 1.0)
    row, column = divmod(int(heat[0, 0].argmax()), 64)
    assert 16 <= row < 32
    assert 32 <= column < 48
    assert not heat[0, 1].any()
    plain = PatchSentenceAligner.heatmaps(maps, (8, 8), normalize=False)
    assert plain.max() <= 0.5
    volume = PatchSentenceAligner.heatmaps(torch.rand(2, 3, 2, 3, 4), (8, 9, 16))
    assert volume.shape == (2, 3, 8, 9, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (2, 2)}, r"^grid must have 6 cells, one for each patch, got \(2, 2\)\.$"),
        ({"sentence_embeds": torch.ones(2, 3, 4)}, "the same width D, got 5 and 4"),
        (
            {"sentence_embeds": torch.ones(3, 3, 5)},
            r"^patch_embeds and sentence_embeds must have the same number of rows, .* got 2 and 3\.$",
        ),
        ({"patch_mask": torch.ones(2, 5)}, r"patch_mask must have shape \(2, 6\), got \(2, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    patches, sentences = make()
    arguments = {"patch_embeds": patches, "sentence_embeds": sentences, "grid": (2, 3), **change}
    with pytest.raises(ValueError, match=message):
        PatchSentenceAligner()(**arguments)


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="alignment must be one of 'transport', 'attention', 'max', got 'hungarian'"):
        PatchSentenceAligner("hungarian")
    with pytest.raises(ValueError, match="epsilon must be above 0, got 0"):
        PatchSentenceAligner(epsilon=0)
    with pytest.raises(ValueError, match=r"size must have one value for each axis of the grid \(2, 3\), got \(4,\)"):
        PatchSentenceAligner.heatmaps(torch.zeros(1, 1, 2, 3), (4,))
