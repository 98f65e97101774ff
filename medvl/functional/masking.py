"""Patches of images: cutting, hiding at random, taking the visible ones and putting them back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medvl.utils.checks import check_option
from medvl.utils.tensors import as_float, as_full_mask, as_matrix

REDUCTIONS = ("mean", "sum", "none")


def random_visible_patches(
    count: int, patches: int, ratio: float = 0.5, generator: torch.Generator | None = None, device: str | None = None
) -> tuple[Tensor, Tensor]:
    """Choose at random, for each image, which patches stay visible; the same number for each.

    Args:
        count: images N.
        patches: patches P of each.
        ratio: share of patches to hide, in [0, 1); at least one stays.
        generator: source of randomness.
        device: where the result lies.

    Returns:
        Indices (N, P') of the visible patches in ascending order, and a mask (N, P), True for visible.

    Raises:
        ValueError: for a ratio outside [0, 1).

    Example:
        >>> indices, visible = random_visible_patches(2, 6, ratio=0.5)
        >>> indices.shape, visible.sum(1).tolist()
        (torch.Size([2, 3]), [3, 3])
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be at least 0 and below 1, got {ratio}")
    kept = max(1, patches - math.floor(patches * ratio + 0.5))
    order = torch.rand(count, patches, generator=generator, device=device).argsort(1)
    indices = order[:, :kept].sort(1).values
    return indices, torch.zeros(count, patches, dtype=torch.bool, device=device).scatter_(1, indices, True)


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """The patches (N, P', C) of (N, P, C) that the indices (N, P') name.

    Example:
        >>> gather_patches(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 2]])).tolist()
        [[[1.0], [3.0]]]
    """
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def scatter_patches(visible: Tensor, indices: Tensor, fill: Tensor, patches: int) -> Tensor:
    """Put visible patches back in their places among all, the inverse of :func:`gather_patches`.

    Args:
        visible: (N, P', C).
        indices: (N, P'), the place of each.
        fill: (C,) or anything that broadcasts to (N, P, C), for the places that no patch has.
        patches: P.

    Returns:
        (N, P, C).

    Example:
        >>> scatter_patches(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0, 2]]), torch.zeros(1), 3).tolist()
        [[[1.0], [0.0], [3.0]]]
    """
    whole = fill.to(visible.dtype).expand(len(visible), patches, visible.shape[-1])
    return whole.scatter(1, indices.unsqueeze(-1).expand_as(visible), visible)


def patchify(image: Tensor, patch_size: int | tuple[int, ...]) -> Tensor:
    """Cut images into patches.

    Args:
        image: (N, C, H, W[, D]).
        patch_size: pixels along each spatial axis, each of which it divides.

    Returns:
        (N, P, pixels): patches in row-major order over the grid, pixels of a patch in row-major order with the
        channel last.

    Raises:
        ValueError: where the patch size does not divide the image.

    Example:
        >>> patchify(torch.arange(8.0).reshape(1, 1, 2, 4), 2).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    dims = image.ndim - 2
    sizes = (patch_size,) * dims if isinstance(patch_size, int) else tuple(patch_size)
    shape = image.shape[2:]
    if dims < 1 or len(sizes) != dims or any(p < 1 or n % p for n, p in zip(shape, sizes, strict=True)):
        raise ValueError(f"patch_size must divide every spatial axis of image {tuple(image.shape)}, got {patch_size}")
    split = [part for n, p in zip(shape, sizes, strict=True) for part in (n // p, p)]
    cut = image.reshape(*image.shape[:2], *split)
    grid, inner = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return cut.permute(0, *grid, *inner, 1).flatten(1 + dims).flatten(1, dims)


def masked_patch_loss(
    patch_prediction: Tensor,
    image: Tensor,
    visible_mask: Tensor,
    *,
    patch_size: int | tuple[int, ...],
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared error on hidden patches; see :class:`medvl.losses.MaskedPatchLoss`.

    Example:
        >>> image = torch.tensor([[[[0.0, 2.0, 5.0, 5.0]]]])
        >>> prediction, visible = torch.zeros(1, 2, 2), torch.tensor([[False, True]])
        >>> masked_patch_loss(prediction, image, visible, patch_size=(1, 2), normalize=False).item()
        2.0
    """
    check_option(reduction, "reduction", REDUCTIONS)
    prediction = as_matrix(patch_prediction, "patch_prediction", "N P pixels")
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image must be floating point, got {getattr(image, 'dtype', type(image).__name__)}")
    pixels = patchify(as_float(image), patch_size)
    if pixels.shape != prediction.shape:
        raise ValueError(
            f"patch_prediction must have shape {tuple(pixels.shape)} for image {tuple(image.shape)} in patches of "
            f"{patch_size}, got {tuple(prediction.shape)}"
        )
    hidden = ~as_full_mask(visible_mask, "visible_mask", prediction)
    with torch.autocast(prediction.device.type, enabled=False):
        if normalize:
            mean = pixels.mean(2, keepdim=True)
            # A patch of one shade has no spread to divide by: its target is 0.
            spread = (pixels - mean).square().mean(2, keepdim=True).add(1e-6).sqrt()
            pixels = (pixels - mean) / spread
        # Left out before they are squared: a visible patch may be anything, and gets no gradient.
        errors = (prediction - pixels).masked_fill(~hidden.unsqueeze(2), 0.0).square().mean(2)
    if reduction == "none":
        return errors
    return errors.sum() / hidden.sum().clamp_min(1) if reduction == "mean" else errors.sum()
