"""Masks of boxes, polygons and run lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvl.transforms import DrawRegions, DrawRegionsd
from medvl.transforms.regions import decode_run_lengths
from medvl.utils.errors import StudyError


def reference(lengths, size):
    """The mask pixel by pixel, down the columns."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    position = 0
    for number, length in enumerate(lengths):
        for pixel in range(position, position + length):
            mask[pixel % height, pixel // height] = number % 2 == 1
        position += length
    assert position <= height * width
    return mask


@pytest.mark.parametrize("lengths", [[0, 3, 5], [7, 1, 2, 2, 3], [15], [0, 15], [], [4, 2]])
def test_run_lengths(lengths):
    assert np.array_equal(decode_run_lengths(lengths, (5, 3)), reference(lengths, (5, 3)))


def test_compressed_run_lengths_as_published():
    """The mask without a pixel inside of CheXlocalize's files, of 2021 x 2021 pixels."""
    assert not decode_run_lengths("ifdl3", (2021, 2021)).any()
    with pytest.raises(
        ValueError, match=r"^counts must be lengths of runs in an image of 2020 x 2021 pixels, got 4084441\.$"
    ):
        decode_run_lengths("ifdl3", (2020, 2021))


def test_compressed_run_lengths_of_random_masks():
    from public_layouts import compress_run_lengths

    generator = np.random.default_rng(0)
    for _ in range(50):
        lengths = generator.integers(0, 4000, generator.integers(1, 30)).tolist()
        size = (int(sum(lengths)) + 3, 2)
        assert np.array_equal(decode_run_lengths(compress_run_lengths(lengths), size), reference(lengths, size))


def test_regions_of_a_finding_are_united_and_others_empty():
    regions = {
        "Mass": [{"bbox": [0, 0, 2, 1]}, {"bbox": [1, 2, 1, 1]}],
        "Edema": [{"segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]]}],
    }
    mask = DrawRegions(["Edema", "Nodule", "Mass"])(regions, (3, 4))
    assert mask.dtype == torch.bool
    assert mask[0].all()
    assert not mask[1].any()
    assert mask[2].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert DrawRegions()(regions, (3, 4)).shape == (2, 3, 4)
    assert DrawRegions()({}, (3, 4)).shape == (0, 3, 4)


def test_regions_follow_an_image_that_was_resized():
    polygon = {"segmentation": [[0, 0, 39, 0, 39, 19, 0, 19]], "size": [80, 80]}
    runs = {"segmentation": {"size": [4, 4], "counts": [0, 8]}}
    for region, expected in ((polygon, (slice(0, 4), slice(0, 8))), (runs, (slice(None), slice(0, 4)))):
        mask = DrawRegions(["x"])({"x": [region]}, (16, 16) if region is polygon else (8, 8))[0]
        inside = torch.zeros_like(mask)
        inside[expected] = True
        assert (mask != inside).sum() <= (12 if region is polygon else 0)  # the border of a polygon is drawn


@pytest.mark.parametrize("box", [[-5, -5, 7, 7], [0, 0, 2, 2], [-1, -1, 3.2, 3.4]])
def test_boxes_are_cut_at_the_border(box):
    mask = DrawRegions(["x"])({"x": [{"bbox": box}]}, (6, 6))[0]
    assert mask.int().sum() == 4
    assert mask[:2, :2].all()


def test_a_box_smaller_than_a_pixel_is_one_pixel():
    assert DrawRegions(["x"])({"x": [{"bbox": [9.9, 0, 0.01, 0.01]}]}, (4, 10))[0].int().sum() == 1


def test_errors():
    study = {"study_id": "s", "image": torch.zeros(1, 4, 4), "regions": {"x": [{"box": [0, 0, 1, 1]}]}}
    with pytest.raises(
        StudyError, match=r"^study 's', regions: region must have a bbox or a segmentation, got \['box'\]\.$"
    ):
        DrawRegionsd()(study)
    with pytest.raises(ValueError, match=r"^size must be a height and a width, got \(4, 4, 4\)\.$"):
        DrawRegions()({}, (4, 4, 4))
    assert DrawRegionsd(allow_missing_keys=True)({"image": 1}) == {"image": 1}
