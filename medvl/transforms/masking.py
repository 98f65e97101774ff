"""Random choice of the patches that an image tower sees."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform

from medvl.functional import random_visible_patches
from medvl.transforms.study import RandStudyMapTransform


class RandMaskPatches(Randomizable, Transform):
    """Choose at random which patches of an image stay visible (masked autoencoders; MLIP).

    The image itself is not changed: the image tower leaves the hidden patches out. Images of one size keep the same number
    of patches, so that they stack into a batch.

    Args:
        patch_size: pixels along each axis of a patch, as the image tower has it; one number or one an axis.
        ratio: share of patches to hide, in [0, 1); at least one stays.

    Raises:
        ValueError: for a ratio outside [0, 1), or a patch size below 1.

    Example:
        >>> mask = RandMaskPatches(patch_size=16, ratio=0.75).set_random_state(seed=0)
        >>> chosen = mask(torch.zeros(1, 64, 32))
        >>> chosen["visible_indices"].tolist(), chosen["visible_mask"].tolist()
        ([4, 6], [False, False, False, False, True, False, True, False])
    """

    def __init__(self, patch_size: int | Sequence[int] = 16, ratio: float = 0.5) -> None:
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio must be at least 0 and below 1, got {ratio}")
        sizes = (patch_size,) if isinstance(patch_size, int) else tuple(patch_size)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        self.patch_size, self.ratio = patch_size, ratio
        self.draw = 0

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the choice."""
        self.draw = int(self.R.randint(2**31 - 1))

    def __call__(self, image: torch.Tensor | np.ndarray) -> dict[str, torch.Tensor]:
        """Choose patches of one image (C, H, W[, D]).

        Returns:
            ``visible_indices`` (P',), of the visible patches in ascending order, and ``visible_mask`` (P,), True for them.
            Patches are in row-major order of the grid.

        Raises:
            ValueError: where the patch size does not divide the image.
        """
        shape = tuple(int(n) for n in image.shape[1:])
        sizes = (self.patch_size,) * len(shape) if isinstance(self.patch_size, int) else tuple(self.patch_size)
        if len(sizes) != len(shape) or any(n % p for n, p in zip(shape, sizes, strict=True)):
            raise ValueError(f"patch_size must divide every spatial axis of the image {shape}, got {self.patch_size}")
        self.randomize()
        patches = int(np.prod([n // p for n, p in zip(shape, sizes, strict=True)]))
        generator = torch.Generator().manual_seed(self.draw)
        visible, mask = random_visible_patches(1, patches, self.ratio, generator)
        return {"visible_indices": visible[0], "visible_mask": mask[0]}


class RandMaskPatchesd(RandStudyMapTransform):
    """Dictionary form of :class:`RandMaskPatches`: writes ``visible_indices`` and ``visible_mask``.

    Args:
        keys: the key of the image.
        patch_size: see :class:`RandMaskPatches`.
        ratio: see :class:`RandMaskPatches`.
        prefix: put before the names of the two results.
        allow_missing_keys: do nothing for a study without an image.

    Raises:
        ValueError: if ``keys`` names more than one key; for the rest see :class:`RandMaskPatches`.

    Example:
        >>> study = RandMaskPatchesd(patch_size=4, ratio=0.5)({"image": torch.zeros(1, 8, 8)})
        >>> study["visible_indices"].shape, study["visible_mask"].sum().item()
        (torch.Size([2]), 2)
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "image",
        patch_size: int | Sequence[int] = 16,
        ratio: float = 0.5,
        prefix: str = "",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandMaskPatches(patch_size, ratio), allow_missing_keys)
        self.prefix = prefix

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Choose patches of one image."""
        return {self.prefix + name: value for name, value in self.transform(data[key]).items()}


RandMaskPatchesD = RandMaskPatchesDict = RandMaskPatchesd
