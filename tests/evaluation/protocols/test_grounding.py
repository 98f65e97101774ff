"""Phrase grounding: hand-computed cases, empty regions, own phrases, and anybody's model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medvl.evaluation import BootstrapConfig, compare, grounding, phrase_maps
from medvl.evaluation.heat_maps import pointing_game_on_grid


class Pixels:
    """One patch a pixel; a phrase is a direction in the plane of (bright, dark)."""

    def encode_patches(self, image):
        flat = image.flatten(1)
        return torch.stack([flat, 1 - flat], dim=2), tuple(image.shape[2:])

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "bright" in text else [0.0, 1.0] for text in texts])


def batch(*rows, masks, **more):
    """Images of one row of four pixels each, and their masks (N, K, 1, 4)."""
    return {"image": torch.tensor(rows)[:, None, None], "mask": torch.tensor(masks)[:, :, None], **more}


def test_two_cases_by_hand():
    cases = batch([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], masks=[[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    result = grounding(Pixels(), [cases], {"Opacity": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=50))
    finding = result.findings["Opacity"]
    # The first map is the mask; the second is 1 where the mask is not.
    assert finding.pointing.value == 0.5
    assert finding.miou.value == 0.5
    assert finding.area == pytest.approx((0.5 + 0.25) / 2)
    assert (finding.cases, finding.without) == (2, 0)
    # Flat levels without noise in the first case: an infinite contrast, which the mean leaves out.
    assert result.case_values[0, :, 0].tolist()[0] == math.inf
    assert finding.cnr.value == pytest.approx((0 - 2 / 3) / math.sqrt(2 / 9))


def test_patches_are_enlarged_to_the_mask_and_thresholds_are_cosines():
    class Model(Pixels):
        def encode_patches(self, image):
            cosines = torch.tensor([0.35, -0.2]).expand(len(image), 2)
            return torch.stack([cosines, (1 - cosines**2).sqrt()], dim=2), (1, 2)

    cases = batch([0.0] * 4, masks=[[[1, 0, 0, 0]]])
    result = grounding(Model(), [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    enlarged = np.array([0.35, 0.75 * 0.35 - 0.25 * 0.2, 0.25 * 0.35 - 0.75 * 0.2, -0.2])
    by_hand = np.mean([(enlarged[0] >= t) / max(1, (enlarged >= t).sum()) for t in (0.1, 0.2, 0.3, 0.4, 0.5)])
    assert result.findings["A"].miou.value == pytest.approx(by_hand)
    outside = enlarged[1:]
    assert result.findings["A"].cnr.value == pytest.approx((enlarged[0] - outside.mean()) / outside.std())


def test_trap_empty_masks_are_neither_hits_nor_misses():
    given = batch([1.0, 0.5, 0.2, 0.1], masks=[[[1, 0, 0, 0]]])
    with_empty = batch([1.0, 0.5, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], masks=[[[1, 0, 0, 0]], [[0, 0, 0, 0]]])
    one = grounding(Pixels(), [given], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    two = grounding(Pixels(), [with_empty], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    for measure in ("cnr", "miou", "pointing"):
        assert getattr(two.findings["A"], measure).value == getattr(one.findings["A"], measure).value
    assert (two.findings["A"].cases, two.findings["A"].without) == (1, 1)
    assert np.isnan(two.case_values[:, 1]).all()


def test_trap_a_map_that_reaches_no_threshold_counts_as_zero():
    class Faint(Pixels):
        def encode_text(self, texts):
            return torch.tensor([[0.0, -1.0]] * len(texts))

    cases = batch([1.0, 0.5, 0.2, 0.1], [1.0, 0.5, 0.2, 0.1], masks=[[[1, 0, 0, 0]], [[1, 0, 0, 0]]])
    result = grounding(Faint(), [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    assert result.findings["A"].miou.value == 0.0
    assert result.findings["A"].pointing.value == 1.0  # the highest of negative cosines still points


def test_a_finding_without_cases_is_undefined_with_a_warning():
    cases = batch([1.0, 0.5, 0.2, 0.1], masks=[[[1, 0, 0, 0], [0, 0, 0, 0]]])
    with pytest.warns(RuntimeWarning, match="No case has a region of B, left out of the means"):
        result = grounding(
            Pixels(), [cases], {"A": ["bright"], "B": ["dark"]}, bootstrap=BootstrapConfig(n_resamples=5)
        )
    assert math.isnan(result.findings["B"].miou.value)
    assert result.macro["miou"].value == result.findings["A"].miou.value
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["findings"]["B"]["pointing"] == {"value": None, "interval": None}
    assert content["findings"]["A"]["chance"] == {"cnr": 0.0, "miou": 0.25, "pointing": 0.25}
    assert result.table(result).count("n/a") == 8


def test_an_outermost_patch_points_at_its_centre_not_at_the_whole_border():
    maps = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]]]])
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 1:4, 1:4] = True  # the center of the first patch is (2, 2)
    mask[1, 0, :2, :2] = True  # a corner that no center lies in
    assert pointing_game_on_grid(maps.expand(3, -1, -1, -1), mask).flatten().tolist()[:2] == [1.0, 0.0]
    assert pointing_game_on_grid(maps, mask[2:]).isnan().all()
    flat = torch.ones(1, 1, 2, 2)
    assert pointing_game_on_grid(flat, mask[:1]).item() == 0
    assert pointing_game_on_grid(flat, torch.ones_like(mask[:1])).item() == 1


def test_the_grid_is_stated_and_miou_stands_beside_its_chance():
    cases = batch([1.0, 1.0, 0.0, 0.0], masks=[[[1, 0, 0, 0]]])
    result = grounding(Pixels(), [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    assert (result.settings["grid"], result.settings["image_size"]) == ([1, 4], [1, 4])
    (table,) = result.tables()
    assert "The maps are 1 × 4 patches, each of about 1 × 1 pixels of the 1 × 4 image" in table.description
    assert table.titles == ["Cases", "CNR", "mIoU", "Chance mIoU", "Pointing game", "Chance pointing game"]
    for row in table.rows:
        assert [str(row.cells[column].chance) for column in (2, 3)] == ["0.25", "0.25"]
    assert set(result.explanations()) == {"CNR", "mIoU", "Pointing game"}
    assert "0.1, 0.2, 0.3, 0.4, 0.5" in result.explanations()["mIoU"]
    # Images of several sizes have no one grid.
    wide = {"image": torch.rand(1, 1, 2, 4), "mask": torch.ones(1, 1, 2, 4)}
    result = grounding(Pixels(), [cases, wide], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    assert (result.settings["grid"], result.settings["image_size"]) == (None, None)
    assert "patches" not in result.tables()[0].description


def test_examples_are_the_worst_the_median_and_the_best_of_each_finding():
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(7, 1, 4, 4, generator=generator), torch.zeros(7, 3, 4, 4)
    masks[:, 0, :2] = 1
    masks[:2, 1, 2:] = 1
    masks[3, 2, :, 0] = 1
    cases = {"image": images, "mask": masks, "study_id": list("abcdefg")}
    phrases = {name: ["bright"] for name in "ABC"}
    result = grounding(Pixels(), [cases], phrases, bootstrap=BootstrapConfig(n_resamples=5))
    assert [(example.name, example.place) for example in result.examples] == [
        ("A", "worst"), ("A", "median"), ("A", "best"), ("B", "worst"), ("B", "best"), ("C", "only")
    ]  # fmt: skip
    cnr = np.sort(result.case_values[0, :, 0])
    assert [example.values["cnr"] for example in result.examples[:3]] == [cnr[0], cnr[3], cnr[6]]
    for example in result.examples:
        row, column = "abcdefg".index(example.study_id), "ABC".index(example.name)
        assert example.values["cnr"] == result.case_values[0, row, column]
        np.testing.assert_array_equal(example.truth, masks[row, column] == 1)
    few = grounding(Pixels(), [cases], phrases, examples=2, bootstrap=BootstrapConfig(n_resamples=5))
    assert [example.name for example in few.examples] == ["A", "A", "A", "C"]
    assert grounding(Pixels(), [cases], phrases, examples=0, bootstrap=BootstrapConfig(n_resamples=5)).examples == []


def test_images_may_bring_their_own_phrases():
    cases = batch(
        [1.0, 0.6, 0.2, 0.1],
        [1.0, 0.6, 0.2, 0.1],
        masks=[[[1, 0, 0, 0]], [[0, 0, 0, 1]]],
        phrase=["bright spot", "dark spot"],
    )
    result = grounding(Pixels(), [cases], bootstrap=BootstrapConfig(n_resamples=5))
    assert result.findings["phrase"].pointing.value == 1.0
    with pytest.raises(
        ValueError, match="batch must hold a 'phrase' for each of its 2 images where phrases is None, got none"
    ):
        grounding(Pixels(), [{key: cases[key] for key in ("image", "mask")}], bootstrap=BootstrapConfig(n_resamples=5))


def test_several_phrases_count_as_the_mean_of_their_unit_vectors_and_sentences_as_their_mean():
    class Sentences(Pixels):
        def encode_sentences(self, texts):
            embeds = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[0.0, 5.0], [9.0, 9.0]]])[: len(texts)]
            return embeds, torch.tensor([[True, True], [True, False]])[: len(texts)]

    image = torch.tensor([[[[1.0, 0.0]]]])
    both = F.normalize(torch.tensor([1.0, 1.0]), dim=0)
    maps = phrase_maps(Sentences(), image, ["a. b.", "c."])
    torch.testing.assert_close(maps[0, :, 0], torch.tensor([[both[0], both[1]], [0.0, 1.0]]))


def test_phrases_of_findings_are_prompts_and_images_own_ones_are_not():
    class Prompted(Pixels):
        """Looks for the opposite of what a prompt says."""

        def encode_class_prompts(self, texts):
            return self.encode_text(texts).flip(1)

        def encode_sentences(self, texts):
            return self.encode_text(texts)[:, None], torch.ones(len(texts), 1, dtype=torch.bool)

    cases = batch([1.0, 0.6, 0.2, 0.1], masks=[[[0, 0, 0, 1]]], phrase=["dark"])
    given = {"phrases": {"A": ["bright"]}, "bootstrap": BootstrapConfig(n_resamples=5)}
    assert grounding(Prompted(), [cases], **given).findings["A"].pointing.value == 1.0
    assert (
        grounding(Prompted(), [cases], bootstrap=BootstrapConfig(n_resamples=5)).findings["phrase"].pointing.value
        == 1.0
    )
    matcher = Prompted()
    matcher.sentence_projection = torch.nn.Identity()  # what it matches with patches are sentences
    assert grounding(matcher, [cases], **given).findings["A"].pointing.value == 0.0


def test_patients_are_resampled_not_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 1, 4, generator=generator)
    masks = (torch.arange(4) == torch.randint(0, 4, (40, 1, 1, 1), generator=generator)).long()
    # Four images of each patient are the same image: resampling images would make the interval half as wide.
    images, masks = images[:10].repeat_interleave(4, 0), masks[:10].repeat_interleave(4, 0)
    widths = []
    for patients in ([str(i // 4) for i in range(40)], [str(i) for i in range(40)]):
        cases = {"image": images, "mask": masks, "patient_id": patients}
        estimate = (
            grounding(Pixels(), [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=400))
            .findings["A"]
            .miou
        )
        widths.append(estimate.high - estimate.low)
    assert widths[0] > 1.6 * widths[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mask": torch.ones(1, 2, 1, 4)},
            r"mask must have shape \(1, 1, 1, 4\) for \['A'\], got \(1, 2, 1, 4\)",
        ),
        ({"mask": torch.full((1, 1, 1, 4), 255)}, r"mask must be 0 or 1, got 255"),
        ({"mask": torch.full((1, 1, 1, 4), torch.nan)}, r"mask must be 0 or 1, got nan"),
    ],
)
def test_wrong_masks_are_named(change, message):
    cases = {**batch([1.0, 0.5, 0.2, 0.1], masks=[[[1, 0, 0, 0]]]), **change}
    with pytest.raises(ValueError, match=message):
        grounding(Pixels(), [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))


def test_wrong_arguments_are_named():
    cases = batch([1.0, 0.5, 0.2, 0.1], masks=[[[1, 0, 0, 0]]])
    with pytest.raises(ValueError, match=r"phrases must be of masks among \['A'\], got \['B'\]"):
        grounding(Pixels(), [cases], {"B": ["bright"]}, names=["A"])
    with pytest.raises(ValueError, match=r"phrases\['A'\] must be a list of at least one string, got 'bright'"):
        grounding(Pixels(), [cases], {"A": "bright"})
    with pytest.raises(TypeError, match=r"model must have encode_patches .*, got object"):
        grounding(object(), [cases], {"A": ["bright"]})
    with pytest.raises(ValueError, match="at least one batch"):
        grounding(Pixels(), [], {"A": ["bright"]})
    with pytest.raises(ValueError, match="patient_id must have one entry for each of the 1 images, got 2"):
        grounding(Pixels(), [{**cases, "patient_id": ["a", "b"]}], {"A": ["bright"]})
    named = {**cases, "study_id": np.array(["x"]), "patient_id": torch.tensor([5])}
    result = grounding(Pixels(), [named], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=5))
    assert (result.study_ids, result.patient_ids) == (["x"], ["5"])


def test_a_trained_mode_comes_back_and_volumes_work():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(1, 4, 4, stride=4)

        def encode_patches(self, image):
            assert not self.training
            maps = self.conv(image)
            return maps.flatten(2).transpose(1, 2), tuple(maps.shape[2:])

        def encode_text(self, texts):
            return torch.ones(len(texts), 4)

    model = Network().train()
    image = torch.rand(2, 1, 8, 8, 12)
    result = grounding(
        model, [{"image": image, "mask": image > 0.5}], {"A": ["x"]}, bootstrap=BootstrapConfig(n_resamples=5)
    )
    assert model.training
    assert math.isfinite(result.findings["A"].cnr.value)
    assert result.examples == []


def test_two_models_compare_on_the_same_cases():
    class Wrong(Pixels):
        def encode_text(self, texts):
            return -super().encode_text(texts)

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 1, 4, generator=generator)
    masks = (images == images.amax(-1, keepdim=True)).long()
    cases = {"image": images, "mask": masks}
    ours, theirs = (
        grounding(model, [cases], {"A": ["bright"]}, bootstrap=BootstrapConfig(n_resamples=50))
        for model in (Pixels(), Wrong())
    )
    assert ours.statistics(np.ones((1, 30)))["cnr"][0] == pytest.approx(ours.macro["cnr"].value)
    result = compare(ours, theirs, bootstrap=BootstrapConfig(n_resamples=200))
    assert result.differences["pointing"].first == 1.0
    assert result.differences["cnr"].difference.low > 0
    assert result.differences["cnr"].p_value < 0.05
