"""ConVIRT's augmentation: each part does what its argument says, and a seed repeats it."""

from __future__ import annotations

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import set_determinism

from medvl.transforms import (
    RandRadiographAffine,
    RandRadiographAffined,
    RandRadiographAffineDict,
    image_augmentation,
)

NEUTRAL = {"crop": (1, 1), "flip_prob": 0, "rotation": 0, "translation": 0, "scale": (1, 1)}


def affine(**options):
    return RandRadiographAffine(**{**NEUTRAL, **options}).set_random_state(0)


def gradient(height=16, width=16):
    """Column + 100 row: bilinear interpolation reproduces it, so a pixel's value tells where it comes from."""
    return torch.arange(width, dtype=torch.float32)[None, None, :] + 100 * torch.arange(height)[None, :, None]


def test_without_changes_the_image_stays():
    image = torch.rand(3, 9, 14)
    torch.testing.assert_close(affine()(image), image, rtol=0, atol=1e-5)


def test_flip_is_left_to_right():
    image = torch.rand(1, 8, 11)
    torch.testing.assert_close(affine(flip_prob=1)(image), image.flip(-1), rtol=0, atol=1e-5)
    flips = affine(flip_prob=0.3)
    count = sum(not torch.allclose(flips(image), image, atol=1e-3) for _ in range(400))
    assert 90 < count < 150


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 10, 16)])
def test_rotation_keeps_shapes(shape):
    rotate = affine(rotation=20)
    rotate._draw = [0, 1, 1, 0.5, 0.5, 0, 0.5, 0.5]  # the greatest angle
    _, height, width = shape
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    angle = math.radians(20)
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    source_x = math.cos(angle) * x - math.sin(angle) * y + (width - 1) / 2
    source_y = math.sin(angle) * x + math.cos(angle) * y + (height - 1) / 2
    inside = (source_x >= 0) & (source_x <= width - 1) & (source_y >= 0) & (source_y <= height - 1)
    rotated = rotate(gradient(height, width), randomize=False)[0].numpy()
    np.testing.assert_allclose(rotated[inside], (source_x + 100 * source_y)[inside], atol=0.02)
    assert inside.mean() > 0.5


def test_translation_is_a_share_of_the_side():
    shift = affine(translation=0.25)
    shift._draw = [0, 1, 0.5, 1, 0.5, 0, 0.5, 0.5]
    shifted = shift(gradient(), randomize=False)
    torch.testing.assert_close(shifted[:, :, 4:], gradient()[:, :, :12], rtol=0, atol=0.01)
    assert shifted[:, :, :4].abs().max() == 0  # nothing lies beyond the image


def test_scale_magnifies():
    zoom = affine(scale=(2, 2))
    zoom._draw = [0, 1, 0.5, 0.5, 0.5, 0, 0.5, 0.5]
    step = zoom(gradient(), randomize=False).diff(dim=-1)[0, 3:13, 3:12]
    torch.testing.assert_close(step, torch.full_like(step, 0.5), rtol=0, atol=0.01)


def test_crop_keeps_a_share_of_the_area_inside_the_image():
    crop = affine(crop=(0.25, 0.64))
    image = gradient(64, 64) + 1
    shares = []
    for _ in range(300):
        view = crop(image)
        step = view[0, 32, 33] - view[0, 32, 32]
        shares.append(float(step) ** 2)
        assert view.min() > 0  # of what lies beyond the image there is nothing
    assert 0.25 - 1e-3 < min(shares) < 0.28
    assert 0.61 < max(shares) < 0.64 + 1e-3


def test_output_size():
    assert affine(size=20)(torch.rand(1, 32, 32)).shape == (1, 20, 20)
    assert affine()(torch.rand(2, 32, 30)).shape == (2, 32, 30)
    assert affine(size=20)(torch.rand(1, 8, 9, 10)).shape == (1, 20, 20, 20)
    with pytest.raises(ValueError, match=r"^image must have shape \(C, H, W\) or \(C, H, W, D\), got \(4, 4\)\.$"):
        affine()(torch.rand(4, 4))


class TestVolumes:
    def test_without_changes_the_volume_stays(self):
        volume = torch.rand(2, 7, 8, 9)
        torch.testing.assert_close(affine()(volume), volume, rtol=0, atol=1e-5)

    def test_flip_is_along_the_first_axis_left_to_right_in_ras(self):
        volume = torch.rand(1, 6, 7, 8)
        torch.testing.assert_close(affine(flip_prob=1)(volume), volume.flip(1), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_each_angle_turns_about_one_axis(self, axis):
        """Turned about one axis, every slice across it is turned as an image of its own is."""
        volume = torch.rand(1, 8, 9, 10)
        rotate = affine(rotation=20)
        angles = np.full(3, 0.5)
        angles[axis - 1] = 1  # the greatest; the first angle turns the plane of the last two axes
        rotate._draw = [0, 1, *angles, 0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5]
        turned = rotate(volume, randomize=False)
        flat = affine(rotation=20)
        flat._draw = [0, 1, 1, 0.5, 0.5, 0, 0.5, 0.5]
        expected = torch.stack([flat(part, randomize=False) for part in volume.unbind(axis)], axis)
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)

    def test_crop_keeps_its_share_of_the_volume(self):
        """A crop of an eighth, in the middle, magnifies twice."""
        volume = torch.rand(1, 8, 8, 8)
        crop = affine(crop=(0.125, 0.125))
        crop._draw = [0, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5]
        middle = volume[:, 2:6, 2:6, 2:6]
        expected = torch.nn.functional.interpolate(middle[None], size=8, mode="trilinear")[0]
        torch.testing.assert_close(
            crop(volume, randomize=False)[:, 1:7, 1:7, 1:7], expected[:, 1:7, 1:7, 1:7], rtol=0, atol=1e-5
        )

    def test_a_draw_for_images_does_not_fit_a_volume(self):
        augment = affine()
        augment(torch.rand(1, 8, 8))
        with pytest.raises(
            ValueError, match=r"^image must have as many axes as the image of the last draw, got 3 spatial axes\.$"
        ):
            augment(torch.rand(1, 8, 8, 8), randomize=False)

    def test_the_chain(self):
        volume = torch.rand(1, 12, 12, 12)
        one, other = (image_augmentation(16).set_random_state(seed)({"image": volume})["image"] for seed in (0, 1))
        assert one.shape == (1, 16, 16, 16)
        assert type(one) is torch.Tensor
        assert not torch.equal(one, other)
        assert torch.equal(one, image_augmentation(16).set_random_state(0)({"image": volume})["image"])


def test_bad_intensities():
    with pytest.raises(ValueError, match=r"^brightness must be a pair \(low, high\) with 0 < low <= high, got 0\.5\.$"):
        image_augmentation(32, brightness=0.5)
    with pytest.raises(ValueError, match=r"^blur_sigma must be a pair .* got \[3, 1\]\.$"):
        image_augmentation(32, blur_sigma=[3, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (0, 1)}, r"^crop must be a pair \(low, high\) with 0 < low <= high <= 1, got \(0, 1\)\.$"),
        ({"crop": (0.9, 0.5)}, r"^crop must be a pair \(low, high\) .* got \(0\.9, 0\.5\)\.$"),
        ({"scale": (0, 1)}, r"^scale must be a pair \(low, high\) with 0 < low <= high, got \(0, 1\)\.$"),
        ({"crop": 2}, r"^crop must be a pair .* got 2\.$"),
        ({"scale": (1, 1, 1)}, r"^scale must be a pair .* got \(1, 1, 1\)\.$"),
        ({"flip_prob": 2}, r"^flip_prob must be between 0 and 1, got 2\.$"),
        ({"rotation": -5}, r"^rotation must be at least 0, got -5\.$"),
        ({"translation": -0.1}, r"^translation must be at least 0, got -0\.1\.$"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        RandRadiographAffine(**options)
    with pytest.raises(ValueError, match=message):
        image_augmentation(32, **options)


def test_sizes_and_probabilities_are_checked():
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0\.$"):
        RandRadiographAffine(size=0)
    with pytest.raises(ValueError, match=r"^blur_prob must be between 0 and 1, got 3\.$"):
        image_augmentation(32, blur_prob=3)


@pytest.mark.parametrize(("name", "value"), [("rotation", (-5, 5)), ("translation", "0.1"), ("flip_prob", None)])
def test_what_is_not_a_number_is_named(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a number, got {re.escape(repr(value))}\\.$"):
        RandRadiographAffine(**{name: value})


def test_image_size_is_checked():
    with pytest.raises(ValueError, match=r"^image_size must be at least 1, got 0\.$"):
        image_augmentation(0)


def test_brightness_contrast_and_blur():
    still = {**NEUTRAL, "blur_prob": 0.0, "brightness": (1, 1), "contrast": (1, 1)}
    study = {"image": torch.rand(1, 32, 32), "report": "x"}
    image = study["image"].clone()
    torch.testing.assert_close(image_augmentation(32, **still)(study)["image"], image, rtol=0, atol=1e-5)
    bright = image_augmentation(32, **{**still, "brightness": (1.4, 1.4)})(study)["image"]
    torch.testing.assert_close(bright, 1.4 * image, rtol=0, atol=1e-5)
    flat = image_augmentation(32, **{**still, "contrast": (0.5, 0.5)})(study)["image"]
    torch.testing.assert_close(flat, image.mean() + 0.5 * (image - image.mean()), rtol=0, atol=1e-5)
    # The blur of a point has the standard deviation asked for, in pixels of a 224-pixel image.
    point = torch.zeros(1, 65, 65)
    point[0, 32, 32] = 1
    blurred = image_augmentation(65, **{**still, "blur_prob": 1.0, "blur_sigma": (3, 3)})({"image": point})["image"]
    offsets = torch.arange(65.0) - 32
    sigma = math.sqrt((blurred[0].sum(0) * offsets**2).sum() / blurred.sum())
    assert sigma == pytest.approx(3 * 65 / 224, rel=0.06)
    torch.testing.assert_close(study["image"], image)  # the input stays as it was


def test_a_seed_repeats_the_views():
    image = torch.rand(1, 32, 32)
    augment = image_augmentation(32).set_random_state(seed=3)
    first = [augment({"image": image})["image"] for _ in range(4)]
    augment.set_random_state(seed=3)
    for view in first:
        assert torch.equal(augment({"image": image})["image"], view)
    assert not torch.equal(first[0], first[1])
    other = copy.deepcopy(augment.set_random_state(seed=3))
    third = pickle.loads(pickle.dumps(augment))
    for twin in (augment, other, third):
        assert torch.equal(twin({"image": image})["image"], first[0])
    set_determinism(7)
    fresh = image_augmentation(32)({"image": image})["image"]
    set_determinism(7)
    assert torch.equal(image_augmentation(32)({"image": image})["image"], fresh)
    set_determinism(None)


def test_views_stay_plain_and_finite():
    augment = image_augmentation(24).set_random_state(seed=0)
    for image in (
        torch.rand(1, 32, 32),
        np.random.default_rng(0).random((1, 24, 24)),
        MetaTensor(torch.rand(1, 40, 40)),
    ):
        view = augment({"image": image})["image"]
        assert type(view) is torch.Tensor
        assert (view.dtype, view.shape) == (torch.float32, (1, 24, 24))
        assert view.isfinite().all()


def test_dictionary_version_draws_once_for_all_keys():
    assert RandRadiographAffineDict is RandRadiographAffined
    image = torch.rand(1, 16, 16)
    study = RandRadiographAffined(["image", "mask"]).set_random_state(1)({"image": image, "mask": image, "report": "x"})
    assert torch.equal(study["image"], study["mask"])
    assert not torch.equal(study["image"], image)
    array = RandRadiographAffine().set_random_state(1)
    twin = Compose([RandRadiographAffined("image", allow_missing_keys=True)])
    twin.transforms[0].set_random_state(1)
    assert torch.equal(twin({"image": image})["image"], array(image))
    assert twin({"report": "x"}) == {"report": "x"}
    with pytest.raises(KeyError, match="image"):
        RandRadiographAffined("image")({"report": "x"})


def test_bundle_configuration():
    config = {"augment": {"_target_": "medvl.transforms.image_augmentation", "image_size": 16, "flip_prob": 0.0}}
    augment = ConfigParser(config).get_parsed_content("augment")
    assert augment({"image": torch.rand(1, 16, 16)})["image"].shape == (1, 16, 16)
