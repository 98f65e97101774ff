"""Masks of what is marked in an image: boxes, polygons and run-length encoded masks, as COCO writes them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Transform
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import error_message

Region = Mapping[str, Any]
Regions = Mapping[str, Sequence[Region]]


class DrawRegions(Transform):
    """Draw regions as boolean masks, one for each finding.

    A region is a dictionary as in COCO's annotations:

    * ``{"bbox": [x, y, width, height]}`` in pixels from the upper left corner,
    * ``{"segmentation": [[x1, y1, x2, y2, ...], ...]}``, one or several polygons, or
    * ``{"segmentation": {"size": [height, width], "counts": ...}}``, run lengths down the columns, the first of them
      outside, as a list of numbers or as COCO's compressed text;

    each with ``"size": [height, width]`` of the image that the coordinates are of, where that is known: coordinates follow an
    image that was resized. The regions of one finding are united.

    Args:
        names: the K findings; those that an image has no region of have an empty mask. None draws the findings of the
            regions themselves, in their order.

    Example:
        >>> draw = DrawRegions(["Edema", "Pneumonia"])
        >>> mask = draw({"Pneumonia": [{"bbox": [1, 0, 2, 1], "size": [2, 4]}]}, (2, 4))
        >>> mask.shape, mask[1].int().tolist()
        (torch.Size([2, 2, 4]), [[0, 1, 1, 0], [0, 0, 0, 0]])
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = None if names is None else tuple(names)

    def __call__(self, regions: Regions, size: Sequence[int]) -> torch.Tensor:
        """Draw the regions of one image.

        Args:
            regions: finding to regions.
            size: height and width of the image in pixels.

        Returns:
            Boolean masks (K, H, W).

        Raises:
            ValueError: If a region is not of the form above, or the image is not of two dimensions.
        """
        if len(size) != 2:
            raise ValueError(error_message("size", "be a height and a width", tuple(size)))
        height, width = (int(side) for side in size)
        names = tuple(regions) if self.names is None else self.names
        masks = np.zeros((len(names), height, width), dtype=bool)
        for mask, name in zip(masks, names, strict=True):
            for region in regions.get(name, ()):
                mask |= _draw(region, height, width)
        return torch.from_numpy(masks)


class DrawRegionsd(StudyMapTransform):
    """Dictionary form of :class:`DrawRegions`: writes ``mask`` (K, H, W) in the geometry of the image that has been loaded.

    Args:
        keys: the key of the regions.
        names: see :class:`DrawRegions`.
        image_key: the key of the image (C, H, W).
        mask_key: the key that is written.
        allow_missing_keys: do nothing for a study without regions.

    Example:
        >>> study = {"image": torch.zeros(1, 2, 2), "regions": {"Edema": [{"bbox": [0, 0, 1, 2]}]}}
        >>> DrawRegionsd()(study)["mask"].int().tolist()
        [[[1, 0], [1, 0]]]
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "regions",
        names: Sequence[str] | None = None,
        image_key: str = "image",
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, DrawRegions(names), allow_missing_keys)
        self.image_key, self.mask_key = image_key, mask_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Draw the regions of one study."""
        return {self.mask_key: self.transform(data[key], data[self.image_key].shape[1:])}


DrawRegionsD = DrawRegionsDict = DrawRegionsd


def decode_run_lengths(counts: Sequence[int] | str, size: Sequence[int]) -> NDArray[np.bool_]:
    """The mask (H, W) of run lengths down the columns, the first of them outside.

    Args:
        counts: the lengths, or COCO's compressed text of them: little-endian groups of five bits, each character 48 above its
            group with 32 added where another follows, and from the fourth number on the difference to the number two before.
        size: height and width.

    Raises:
        ValueError: If the lengths are negative, or their sum is above the number of pixels.

    Example:
        >>> decode_run_lengths([1, 2], (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
        >>> decode_run_lengths("12", (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    height, width = (int(side) for side in size)
    lengths = np.asarray(_decompress(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() > height * width:
        raise ValueError(
            error_message("counts", f"be lengths of runs in an image of {height} x {width} pixels", lengths.sum())
        )
    flat = np.zeros(height * width, dtype=bool)
    filled = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    flat[: len(filled)] = filled
    return flat.reshape(width, height).T


def _decompress(text: str) -> list[int]:
    numbers: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:  # the sign
            value -= 1 << shift
        numbers.append(value + numbers[-2] if len(numbers) > 2 else value)
        value, shift = 0, 0
    return numbers


def _draw(region: Region, height: int, width: int) -> NDArray[np.bool_]:
    segmentation = region.get("segmentation")
    if isinstance(segmentation, Mapping):
        mask = decode_run_lengths(segmentation["counts"], segmentation["size"])
        if mask.shape == (height, width):
            return mask
        return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST), dtype=bool)
    own_height, own_width = region.get("size") or (height, width)
    scale = np.array([width / own_width, height / own_height])
    if "bbox" in region:
        left, top = np.asarray(region["bbox"][:2], dtype=float) * scale
        right, bottom = np.add(region["bbox"][:2], region["bbox"][2:]) * scale
        box = np.zeros((height, width), dtype=bool)
        box[_pixels(top, bottom, height), _pixels(left, right, width)] = True
        return box
    if segmentation is None:
        raise ValueError(error_message("region", "have a bbox or a segmentation", list(region)))
    canvas = Image.new("1", (width, height))
    for polygon in segmentation:
        points = np.asarray(polygon, dtype=float).reshape(-1, 2) * scale
        if len(points) > 2:
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1)
    return np.asarray(canvas, dtype=bool)


def _pixels(start: float, stop: float, side: int) -> slice:
    """The pixels whose centers lie between two coordinates, at least one."""
    first = min(max(round(start), 0), side - 1)
    return slice(first, min(max(round(stop), first + 1), side))
