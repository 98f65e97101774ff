"""Patches of an image hidden at random, for networks that see the others only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import floor, prod
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform

from medvl.transforms.study import named, require_one_key


class RandMaskPatches(Randomizable, Transform):
    """Draws which patches of an image stay visible: what a vision transformer takes as ``visible``.

    The image itself stays whole, for a loss that compares the hidden patches with their prediction (MLIP; He et al., "Masked
    Autoencoders Are Scalable Vision Learners", CVPR 2022).

    Args:
        patch_size: pixels along each axis of a patch, one number or one an axis.
        ratio: share of patches to hide, in [0, 1); at least one stays visible.

    Raises:
        ValueError: for a ratio outside [0, 1) or a patch size below 1.

    Example:
        >>> mask = RandMaskPatches(patch_size=8, ratio=0.5).set_random_state(seed=0)
        >>> mask(torch.zeros(1, 16, 32)).tolist()
        [1, 2, 6, 7]
    """

    def __init__(self, patch_size: int | Sequence[int] = 16, ratio: float = 0.5) -> None:
        sizes = (patch_size,) if isinstance(patch_size, int) else tuple(patch_size)
        if min(sizes) < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio must be at least 0 and below 1, got {ratio}")
        self.patch_size, self.ratio = patch_size, ratio
        self._order = np.zeros(0, dtype=np.int64)

    def randomize(self, data: int) -> None:
        """Draws an order of ``data`` patches."""
        self._order = self.R.permutation(data)

    def __call__(self, image: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Draw the visible patches of one image.

        Args:
            image: (C, H, W[, D]).

        Returns:
            (P',) indices of the patches that stay, ascending, int64; patches count in row-major order of the grid.

        Raises:
            ValueError: where the patch size does not divide the image, or has not one number for each axis.
        """
        shape = image.shape[1:]
        sizes = (self.patch_size,) * len(shape) if isinstance(self.patch_size, int) else tuple(self.patch_size)
        if len(sizes) != len(shape) or any(side % size for side, size in zip(shape, sizes, strict=True)):
            raise ValueError(
                f"patch_size must divide every axis of an image of {tuple(shape)} pixels, got {self.patch_size}"
            )
        patches = prod(side // size for side, size in zip(shape, sizes, strict=True))
        self.randomize(patches)
        kept = max(1, patches - floor(patches * self.ratio + 0.5))
        return torch.from_numpy(np.sort(self._order[:kept]))


class RandMaskPatchesd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandMaskPatches`: writes the indices as ``visible``.

    Args:
        keys: the key of the image.
        patch_size: see :class:`RandMaskPatches`.
        ratio: see :class:`RandMaskPatches`.
        visible_key: where the indices go.
        allow_missing_keys: do nothing for a study without the image.

    Raises:
        ValueError: if ``keys`` names more than one key; for the rest see :class:`RandMaskPatches`, naming the study.

    Example:
        >>> mask = RandMaskPatchesd(patch_size=4, ratio=0.75).set_random_state(seed=0)
        >>> mask({"image": torch.zeros(1, 8, 8)})["visible"].tolist()
        [2]
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        patch_size: int | Sequence[int] = 16,
        ratio: float = 0.5,
        visible_key: str = "visible",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        require_one_key(self.keys)
        self.visible_key = visible_key
        self.mask = RandMaskPatches(patch_size, ratio)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMaskPatchesd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.mask.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the indices of the visible patches."""
        out = dict(data)
        for key in self.key_iterator(data):
            out[self.visible_key] = named(data, key, self.mask, data[key])
        return out


RandMaskPatchesD = RandMaskPatchesDict = RandMaskPatchesd
