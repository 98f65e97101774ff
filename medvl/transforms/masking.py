"""Random masking of image patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform

from medvl.functional import random_visible_patches
from medvl.transforms.study import RandStudyMapTransform
from medvl.utils.checks import error_message


class RandMaskPatches(Randomizable, Transform):
    """Draw the patches of an image that stay visible (masked autoencoders; MLIP).

    The image is not changed: the image encoder drops the masked patches. Images of the same size have the same number of
    visible patches, so that the indices can be stacked in a batch.

    Args:
        patch_size: size of a patch in pixels, that of the image encoder, one number or one for each axis.
        ratio: share of patches to mask, in [0, 1); at least one patch stays visible.

    Raises:
        ValueError: If ``ratio`` is not in [0, 1), or ``patch_size`` is below 1.

    Example:
        >>> mask = RandMaskPatches(patch_size=16, ratio=0.75).set_random_state(seed=0)
        >>> chosen = mask(torch.zeros(1, 64, 32))
        >>> chosen["visible_indices"].tolist(), chosen["visible_mask"].tolist()
        ([4, 6], [False, False, False, False, True, False, True, False])
    """

    def __init__(self, patch_size: int | Sequence[int] = 16, ratio: float = 0.5) -> None:
        if not 0 <= ratio < 1:
            raise ValueError(error_message("ratio", "be at least 0 and below 1", ratio))
        sizes = (patch_size,) if isinstance(patch_size, int) else tuple(patch_size)
        if not sizes or min(sizes) < 1:
            raise ValueError(error_message("patch_size", "be at least 1", patch_size))
        self.patch_size, self.ratio = patch_size, ratio
        self.seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the mask."""
        self.seed = int(self.R.randint(2**31 - 1))

    def __call__(self, image: torch.Tensor | np.ndarray) -> dict[str, torch.Tensor]:
        """Draw the visible patches of one image (C, H, W[, D]).

        Returns:
            ``visible_indices`` (P',), of the visible patches in ascending order, and ``visible_mask`` (P,), True for them.
            Patches are in row-major order of the grid.

        Raises:
            ValueError: If the patch size does not divide the image.
        """
        shape = tuple(int(n) for n in image.shape[1:])
        sizes = (self.patch_size,) * len(shape) if isinstance(self.patch_size, int) else tuple(self.patch_size)
        if len(sizes) != len(shape) or any(n % p for n, p in zip(shape, sizes, strict=True)):
            raise ValueError(
                error_message("patch_size", f"divide every spatial axis of the image {shape}", self.patch_size)
            )
        self.randomize()
        patches = int(np.prod([n // p for n, p in zip(shape, sizes, strict=True)]))
        generator = torch.Generator().manual_seed(self.seed)
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
