"""Few-shot segmentation: Dice by hand, empty masks apart, frozen encoders of many kinds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from medvl.evaluation import BootstrapConfig, compare, dense_features, segmentation, segmentation_loss
from medvl.evaluation.protocols.segmentation import dice_scores


def squares(number, size=16, seed=0, empty=()):
    """Images with a bright square of 6 pixels, which is the mask; those in ``empty`` have none."""
    generator = np.random.default_rng(seed)
    cases = []
    for i in range(number):
        image = torch.from_numpy(generator.normal(0, 0.1, (1, size, size))).float()
        mask = torch.zeros(1, size, size, dtype=torch.uint8)
        if i not in empty:
            y, x = generator.integers(0, size - 6, 2)
            mask[:, y : y + 6, x : x + 6] = 1
        cases.append({"image": image + mask, "mask": mask, "patient_id": f"p{seed}-{i}", "study_id": f"s{seed}-{i}"})
    return cases


def batches(cases, size=4):
    for start in range(0, len(cases), size):
        part = cases[start : start + size]
        yield {
            key: torch.stack([c[key] for c in part]) if torch.is_tensor(part[0][key]) else [c[key] for c in part]
            for key in part[0]
        }


def bright(image):
    """A feature map that holds the answer."""
    return image


@pytest.mark.parametrize("depth", [(), (3,)])
def test_the_loss_is_cross_entropy_and_the_soft_dice_of_structures_that_are_there(depth):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, *depth, generator=generator, dtype=torch.float64)
    masks = (torch.rand(logits.shape, generator=generator) < 0.3).double()
    masks[0, 0] = 0  # in one image of two
    masks[:, 1] = 0  # in none
    p, t = 1 / (1 + np.exp(-logits.numpy())), masks.numpy()
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    dice = [1 - 2 * (p * t)[:, k].sum() / (p[:, k].sum() + t[:, k].sum()) for k in (0, 2)]
    assert segmentation_loss(logits, masks).item() == pytest.approx(entropy + np.mean(dice), abs=1e-12)
    for wrong in (masks[:, :2], masks[..., :1]):
        with pytest.raises(ValueError, match="size"):
            segmentation_loss(logits, wrong)
    nothing = torch.zeros_like(masks)
    assert segmentation_loss(logits, nothing).item() == pytest.approx(-np.log(1 - p).mean(), abs=1e-12)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_the_loss_of_half_precision_has_no_sum_that_overflows(half):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 512, 512, generator=generator).to(half)
    masks = torch.rand(logits.shape, generator=generator) < 0.5  # 262,000 pixels; float16 ends at 65,504
    expected = segmentation_loss(logits.float(), masks.float()).item()
    for target in (masks.to(half), masks.float(), masks, masks.to(torch.uint8)):
        assert segmentation_loss(logits, target).item() == pytest.approx(expected, abs=1e-6)
    logits.requires_grad_()
    segmentation_loss(logits, masks.to(half)).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_the_answer_in_the_features_is_found_with_few_cases_and_noise_is_not():
    train, test = squares(12), squares(8, seed=1)
    result = segmentation(
        bright,
        train,
        batches(test),
        shots=[2, 8],
        seeds=2,
        steps=100,
        width=16,
        bootstrap=BootstrapConfig(n_resamples=50),
    )
    for shots in (2, 8):
        assert result.structures["mask"][shots].dice.value > 0.9
        assert result.structures["mask"][shots].prior.value < 0.4
    blind = segmentation(
        lambda image: torch.rand_like(image),
        train,
        batches(test),
        shots=[8],
        seeds=1,
        steps=60,
        width=8,
        bootstrap=BootstrapConfig(n_resamples=5),
    )
    assert blind.structures["mask"][8].dice.value < 0.5
    assert list(result.structures["mask"]) == [2, 8]
    assert result.macro[8].value == pytest.approx(result.structures["mask"][8].dice.value)
    assert len(result.structures["mask"][8].by_seed) == 2
    comparison = compare(result, result, bootstrap=BootstrapConfig(n_resamples=20))
    assert comparison.differences["dice_with_8"].first == pytest.approx(result.macro[8].value)
    assert comparison.differences["dice_with_8"].difference.value == 0
    assert [example.dice for example in result.examples] == sorted(example.dice for example in result.examples)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["structures"]["mask"]["8"]["dice"]["value"] == result.structures["mask"][8].dice.value


def test_trap_empty_masks_do_not_count_as_hits():
    """A decoder that predicts nothing has Dice 0 on what is there, and no Dice on what is not."""

    def blind(image):
        return torch.zeros(len(image), 1, 4, 4)

    # One pixel of 256: with features that say nothing the best guess is an empty mask.
    def dot(cases):
        for case in cases:
            case["mask"] = torch.zeros_like(case["mask"]).index_fill(1, torch.tensor([0]), 0)
        cases[0]["mask"][0, 3, 3] = 1
        return cases

    train, test = dot(squares(6)), dot(squares(10, seed=1))
    result = segmentation(
        blind, train, batches(test), shots=[6], seeds=1, steps=40, width=8, bootstrap=BootstrapConfig(n_resamples=20)
    )
    structure = result.structures["mask"][6]
    assert structure.dice.value == 0.0
    assert structure.empty_clear.value == 1.0
    assert structure.empty_area.value == 0.0
    assert (result.positives["mask"], result.empties["mask"]) == (1, 9)


def test_without_a_positive_test_case_the_dice_is_undefined_with_a_warning():
    train, test = squares(4), squares(3, seed=1, empty=range(3))
    with pytest.warns(RuntimeWarning, match="No test case has mask, whose Dice is undefined"):
        result = segmentation(
            bright,
            train,
            batches(test),
            shots=[4],
            seeds=1,
            steps=20,
            width=8,
            bootstrap=BootstrapConfig(n_resamples=5),
        )
    assert math.isnan(result.structures["mask"][4].dice.value)
    assert math.isnan(result.macro[4].value)
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_dice_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 2, 4, 4, generator=generator) > 0.7
    truth[1, 0] = False
    predicted = torch.rand(3, 5, 2, 4, 4, generator=generator) > 0.5
    found = dice_scores(predicted, truth)
    for d in range(3):
        for n in range(5):
            for k in range(2):
                p, g = predicted[d, n, k].numpy(), truth[n, k].numpy()
                expected = 2 * (p & g).sum() / (p.sum() + g.sum()) if g.any() else math.nan
                np.testing.assert_allclose(found[d, n, k].item(), expected)


def test_the_same_seed_gives_the_same_figures_and_leaves_the_random_state_alone():
    train, test = squares(6), list(batches(squares(4, seed=1)))
    options = {"shots": [3], "seeds": 2, "steps": 5, "width": 4, "bootstrap": BootstrapConfig(n_resamples=5)}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = segmentation(bright, train, test, **options)
    assert torch.equal(torch.rand(1), expected)
    second = segmentation(bright, train, test, **options)
    np.testing.assert_array_equal(first.case_dice, second.case_dice)
    other = segmentation(bright, train, test, **options, seed=1)
    assert not np.array_equal(first.case_dice, other.case_dice)


def test_more_cases_than_there_are_is_all_of_them_with_a_warning():
    with pytest.warns(RuntimeWarning, match="5, 50 labeled cases were asked for, but there are 3"):
        result = segmentation(
            bright,
            squares(3),
            batches(squares(2, seed=1)),
            shots=[5, 50],
            seeds=1,
            steps=2,
            width=4,
            bootstrap=BootstrapConfig(n_resamples=5),
        )
    assert list(result.structures["mask"]) == [3]


def test_the_encoder_is_frozen_and_comes_back_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 2, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    segmentation(
        model,
        squares(3),
        batches(squares(2, seed=1)),
        shots=[3],
        seeds=1,
        steps=3,
        width=4,
        bootstrap=BootstrapConfig(n_resamples=5),
    )
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_several_structures_and_volumes():
    def case(i):
        generator = torch.Generator().manual_seed(i)
        image = torch.rand(1, 8, 8, 8, generator=generator)
        return {"image": image, "mask": torch.cat([image > 0.5, image > 2]), "patient_id": str(i)}

    cases = [case(i) for i in range(6)]
    with pytest.warns(RuntimeWarning, match="No test case has never"):
        result = segmentation(
            bright,
            cases[:4],
            batches(cases[4:]),
            names=["often", "never"],
            shots=[4],
            steps=150,
            width=16,
            bootstrap=BootstrapConfig(n_resamples=5),
        )
    assert result.structures["often"][4].dice.value > 0.9
    assert result.macro[4].value == result.structures["often"][4].dice.value
    assert result.structures["never"][4].empty_clear.value == 1.0


def test_a_patient_in_both_parts_is_an_error():
    cases = squares(4)
    with pytest.raises(ValueError, match="train and test must have no patient in common, got 'p0-"):
        segmentation(
            bright,
            cases,
            batches(cases),
            shots=[4],
            seeds=1,
            steps=1,
            width=4,
            bootstrap=BootstrapConfig(n_resamples=5),
        )


def test_ids_may_be_whole_numbers_as_a_loader_collates_them():
    train = [{**case, "patient_id": number} for number, case in enumerate(squares(2))]
    (test,) = batches(squares(2, seed=1))
    options = {"shots": [2], "seeds": 1, "steps": 1, "width": 4, "bootstrap": BootstrapConfig(n_resamples=5)}
    numbered = {**test, "study_id": torch.tensor([7, 8]), "patient_id": torch.tensor([3, 4])}
    result = segmentation(bright, train, [numbered], **options)
    assert (result.study_ids, result.patient_ids) == (["7", "8"], ["3", "4"])
    with pytest.raises(ValueError, match="train and test must have no patient in common, got '1'"):
        segmentation(bright, train, [{**numbered, "patient_id": torch.tensor([3, 1])}], **options)


def test_wrong_arguments_are_named():
    cases = squares(2)
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        segmentation(bright, cases, [], shots=[1], seeds=0)
    with pytest.raises(ValueError, match="study_id must have one entry for each of the 2 images, got 1"):
        segmentation(bright, cases, [{**next(batches(cases)), "study_id": ["a"]}], shots=[1], seeds=1, steps=1, width=4)
    with pytest.raises(ValueError, match=r"shots must be numbers of labeled cases of at least 1, got \[0\]"):
        segmentation(bright, cases, [], shots=[0])
    with pytest.raises(ValueError, match="train must hold at least one labeled case"):
        segmentation(bright, [], [])
    with pytest.raises(ValueError, match="test must hold at least one batch"):
        segmentation(bright, cases, [], shots=[2], steps=1, width=4)
    wrong = [{**case, "mask": case["mask"] * 255} for case in cases]
    with pytest.raises(ValueError, match="mask must be 0 or 1, got 255"):
        segmentation(bright, wrong, batches(cases), shots=[2])
    with pytest.raises(TypeError, match=r"model must have feature_maps.*got int"):
        dense_features(3)


class TestDenseFeatures:
    def shapes(self, model, image):
        return [tuple(features.shape) for features in dense_features(model)(image)]

    def test_stages_of_a_resnet_of_ours(self):
        from medvl.networks import ImageEncoder

        encoder = ImageEncoder("resnet10", image_size=64, width=0.125)
        assert self.shapes(encoder, torch.rand(2, 1, 64, 64)) == [
            (2, 8, 16, 16),
            (2, 16, 8, 8),
            (2, 32, 4, 4),
            (2, 64, 2, 2),
        ]
        # A height that does not divide is rounded at each stage.
        assert [shape[2:] for shape in self.shapes(encoder, torch.rand(1, 1, 50, 70))] == [
            (13, 18),
            (7, 9),
            (4, 5),
            (2, 3),
        ]

    def test_the_last_map_of_a_resnet_is_its_output(self):
        from medvl.networks import ImageEncoder

        encoder = ImageEncoder("resnet10", image_size=64, width=0.125).eval()
        image = torch.rand(1, 1, 64, 64)
        patches = encoder(image)["patches"]
        torch.testing.assert_close(dense_features(encoder)(image)[-1].flatten(2).transpose(1, 2), patches)

    def test_patches_of_hugging_face_transformers_without_their_class_token(self):
        from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        vision = {**sizes, "image_size": 32, "patch_size": 8}
        clip = CLIPModel(CLIPConfig(text_config={**sizes, "vocab_size": 20}, vision_config=vision, projection_dim=8))
        image = torch.rand(2, 1, 32, 32)
        (features,) = dense_features(clip)(image)
        clip.eval()
        expected = clip.vision_model(image.expand(-1, 3, -1, -1)).last_hidden_state[:, 1:]
        torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected)
        vit = ViTModel(ViTConfig(**vision, num_channels=1))
        assert self.shapes(vit, image) == [(2, 8, 4, 4)]

    def test_whatever_a_callable_gives(self):
        image = torch.rand(2, 1, 8, 16)
        maps = [torch.rand(2, 3, 2, 4), torch.rand(2, 3, 4, 8)]
        assert self.shapes(lambda _: maps, image) == [(2, 3, 4, 8), (2, 3, 2, 4)]
        assert self.shapes(lambda _: torch.rand(2, 8 + 1, 5), image) == [(2, 5, 2, 4)]
        with pytest.raises(ValueError, match="27 tokens are no grid of the proportions of an image"):
            dense_features(lambda _: torch.rand(2, 27, 5))(image)
        with pytest.raises(TypeError, match="feature maps must be a tensor"):
            dense_features(lambda _: "map")(image)

    def test_a_model_that_is_not_frozen_is_trained_on_its_maps(self):
        from medvl.networks import ImageEncoder

        encoder = ImageEncoder("resnet10", image_size=64, width=0.125).train()
        image = torch.rand(2, 1, 64, 64)
        assert not any(features.requires_grad for features in dense_features(encoder)(image))
        means = [module.running_mean.clone() for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
        loss = sum(features.square().mean() for features in dense_features(encoder, frozen=False)(image))
        loss.backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in encoder.backbone.parameters())
        after = [module.running_mean for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
        assert means
        assert not any(torch.equal(a, b) for a, b in zip(means, after, strict=True))  # in training mode

    @pytest.mark.parametrize("frozen", [True, False])
    def test_an_error_leaves_no_hook_and_the_mode_behind(self, frozen):
        model = nn.Sequential(nn.Conv2d(1, 2, 2, 2), nn.Conv2d(3, 2, 2, 2)).train()
        with pytest.raises(RuntimeError, match="channels"):
            dense_features(model, frozen=frozen)(torch.rand(2, 1, 8, 8))
        assert model.training
        assert not any(module._forward_hooks for module in model.modules())

    def test_whatever_gives_the_maps_is_trained_if_it_is_not_frozen(self):
        weight = torch.ones(1, requires_grad=True)
        image = torch.rand(2, 1, 8, 8)

        class Maps:
            def feature_maps(self, image):
                return [image * weight]

        class Patches:
            def encode_patches(self, image):
                return (image * weight).flatten(2).transpose(1, 2), (8, 8)

        for model in (Maps(), Patches(), lambda image: image * weight):
            assert not dense_features(model)(image)[0].requires_grad
            weight.grad = None
            dense_features(model, frozen=False)(image)[0].sum().backward()
            torch.testing.assert_close(weight.grad, image.sum()[None])

    def test_own_maps_come_first(self):
        class Model(nn.Module):
            def feature_maps(self, image):
                return [image]

            def forward(self, image):
                raise AssertionError

        assert self.shapes(Model(), torch.rand(1, 1, 4, 4)) == [(1, 1, 4, 4)]


def tokenizer(texts, **_):
    return {"input_ids": torch.tensor([[5, len(text) % 10 + 3, 2] for text in texts])}


def test_anybodys_model_goes_through_segmentation_and_grounding_unchanged():
    from transformers import CLIPConfig, CLIPModel

    from medvl.evaluation import FunctionModel, HuggingFaceModel, grounding
    from medvl.networks import convirt

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = {**sizes, "vocab_size": 20, "eos_token_id": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 4}))
    conv = nn.Conv2d(1, 512, 8, stride=8)
    function = FunctionModel(
        lambda images: conv(images).mean((2, 3)),
        lambda texts: torch.ones(len(texts), 512),
        encode_patches=lambda images: (conv(images).flatten(2).transpose(1, 2), (4, 4)),
    )
    train, test = squares(6, size=32), list(batches(squares(4, size=32, seed=1)))
    dual = convirt("small", image_size=32, embed_dim=8)
    for model in (clip, HuggingFaceModel(clip, tokenizer), function, dual):
        result = segmentation(
            model, train, test, shots=[6], seeds=1, steps=5, width=4, bootstrap=BootstrapConfig(n_resamples=5)
        )
        assert 0 <= result.structures["mask"][6].dice.value <= 1
    for model in (HuggingFaceModel(clip, tokenizer), function):
        result = grounding(model, test, {"Square": ["a square"]}, bootstrap=BootstrapConfig(n_resamples=5))
        assert -10 < result.findings["Square"].cnr.value < 10
        assert 0 <= result.findings["Square"].pointing.value <= 1
