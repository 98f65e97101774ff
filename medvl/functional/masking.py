"""Patches of images: cut, hide at random, gather the visible ones and scatter them back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medvl.functional.reduction import REDUCTIONS
from medvl.utils.checks import check_option, check_type, error_message
from medvl.utils.distributed import all_gather_with_grad
from medvl.utils.tensors import as_float, as_mask, as_matrix


def random_visible_patches(
    count: int, patches: int, ratio: float = 0.5, generator: torch.Generator | None = None, device: str | None = None
) -> tuple[Tensor, Tensor]:
    """Choose at random, for each image, which patches stay visible; the same number for each.

    Args:
        count: images N.
        patches: patches P of each.
        ratio: share of patches to hide, in [0, 1); at least one stays.
        generator: random number generator; torch's default one without it.
        device: device of the result.

    Returns:
        Indices (N, P') of the visible patches in ascending order, and a mask (N, P), True for visible.

    Raises:
        ValueError: If the ratio is not in [0, 1).

    Example:
        >>> indices, visible = random_visible_patches(2, 6, ratio=0.5)
        >>> indices.shape, visible.sum(1).tolist()
        (torch.Size([2, 3]), [3, 3])
    """
    if not 0 <= ratio < 1:
        raise ValueError(error_message("ratio", "be at least 0 and below 1", ratio))
    kept = max(1, patches - math.floor(patches * ratio + 0.5))
    order = torch.rand(count, patches, generator=generator, device=device).argsort(1)
    indices = order[:, :kept].sort(1).values
    return indices, torch.zeros(count, patches, dtype=torch.bool, device=device).scatter_(1, indices, True)


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """Gather the patches (N, P', C) of (N, P, C) at the indices (N, P').

    Example:
        >>> gather_patches(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 2]])).tolist()
        [[[1.0], [3.0]]]
    """
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def scatter_patches(visible: Tensor, indices: Tensor, fill: Tensor, patches: int) -> Tensor:
    """Scatter visible patches to their places among all P, the inverse of :func:`gather_patches`.

    Args:
        visible: (N, P', C).
        indices: (N, P'), the place of each visible patch.
        fill: (C,) or anything that broadcasts to (N, P, C), for the places of hidden patches.
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
    """Cut images into non-overlapping patches.

    Args:
        image: (N, C, H, W[, D]).
        patch_size: pixels along each spatial axis, each of which it divides.

    Returns:
        (N, P, pixels): patches in row-major order over the grid, pixels of a patch in row-major order with the
        channel last.

    Raises:
        ValueError: If the patch size does not divide the image.

    Example:
        >>> patchify(torch.arange(8.0).reshape(1, 1, 2, 4), 2).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    dims = image.ndim - 2
    sizes = (patch_size,) * dims if isinstance(patch_size, int) else tuple(patch_size)
    shape = image.shape[2:]
    if dims < 1 or len(sizes) != dims or any(p < 1 or n % p for n, p in zip(shape, sizes, strict=True)):
        expected = f"divide every spatial axis of image {tuple(image.shape)}"
        raise ValueError(error_message("patch_size", expected, patch_size))
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
    gather: bool = False,
) -> Tensor:
    """Mean squared error of predicted pixels on hidden patches (masked autoencoder).

    With x_ip the pixels of patch p of image i, normalized to mean 0 and standard deviation 1 of the patch,
    L = mean over hidden (i, p) of (prediction_ip - x_ip)^2 / pixels. Arguments, shapes, ranges, errors and the source are
    those of :class:`medvl.losses.MaskedPatchLoss`.

    Example:
        >>> image = torch.tensor([[[[0.0, 2.0, 5.0, 5.0]]]])
        >>> prediction, visible = torch.zeros(1, 2, 2), torch.tensor([[False, True]])
        >>> masked_patch_loss(prediction, image, visible, patch_size=(1, 2), normalize=False).item()
        2.0
    """
    prediction = as_matrix(patch_prediction, "patch_prediction", "N, P, pixels")
    if not isinstance(image, Tensor) or not image.is_floating_point():
        received = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(error_message("image", "be a floating point tensor", received))
    x = patchify(as_float(image), patch_size)  # (N, P, pixels)
    if x.shape != prediction.shape:
        expected = f"have shape {tuple(x.shape)} for image {tuple(image.shape)} in patches of {patch_size}"
        raise ValueError(error_message("patch_prediction", expected, tuple(prediction.shape)))
    check_type(visible_mask, "visible_mask", Tensor)
    hidden = ~as_mask(visible_mask, "visible_mask", prediction)  # (N, P)
    with torch.autocast(prediction.device.type, enabled=False):
        x = x.masked_fill(~hidden.unsqueeze(2), 0.0)
        if normalize:
            mean = x.mean(2, keepdim=True)
            variance = (x - mean).square().mean(2, keepdim=True)
            # A constant patch has no spread to divide by: its target is 0.
            x = (x - mean) / (variance + 1e-6).sqrt()
        # Masked before they are squared: a visible patch may hold anything, and gets no gradient.
        errors = (prediction - x).masked_fill(~hidden.unsqueeze(2), 0.0).square().mean(2)  # (N, P)
    check_option(reduction, "reduction", REDUCTIONS)
    if gather:
        errors, hidden = all_gather_with_grad(errors), all_gather_with_grad(hidden)
    if reduction == "none":
        return errors
    return errors.sum() / hidden.sum().clamp_min(1) if reduction == "mean" else errors.sum()
