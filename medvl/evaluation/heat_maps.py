"""Heat maps of phrases over images from a model's patch and text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.evaluation.embeddings import text_encoder
from medvl.functional import pointing_game
from medvl.utils.checks import error_message
from medvl.utils.modes import eval_mode
from medvl.utils.tensors import hide_masked


def phrase_maps(model: Any, images: Tensor, phrases: Sequence[str]) -> Tensor:
    """Heat maps of S phrases over N images: the cosine of every patch with every phrase, on the model's grid.

    Args:
        model: as for :func:`grounding`.
        images: (N, C, H, W[, D]).
        phrases: S strings.

    Returns:
        (N, S, h, w[, d]).
    """
    with eval_mode(model), torch.inference_mode():
        return patch_maps(model, images, phrase_embeddings(model, list(phrases)))


def patch_maps(model: Any, images: Tensor, texts: Tensor) -> Tensor:
    """Cosines (N, S, h, w[, d]) of each image's patches with texts (S, D), or with its own texts (N, S, D)."""
    patches, grid = patch_encoder(model)(images)
    patches = F.normalize(patches.float(), dim=-1)
    texts = texts.to(patches.device).expand(len(patches), -1, -1)
    return (texts @ patches.transpose(1, 2)).unflatten(2, tuple(int(side) for side in grid))


def phrase_embeddings(model: Any, phrases: Sequence[str], as_class_prompts: bool = False) -> Tensor:
    """Unit vectors (S, D) of S phrases, by ``encode_sentences`` where the model has it, else by ``encode_text``.

    A phrase of several sentences has the normalized mean of their unit vectors.

    Args:
        model: as for :func:`grounding`.
        phrases: S strings.
        as_class_prompts: whether they are class prompts, encoded by ``encode_class_prompts`` where the model has it, as in
            zero-shot classification, unless it was trained to match sentences with patches (``sentence_projection``).
    """
    encode = getattr(model, "encode_sentences", None)
    by_prompts = (
        as_class_prompts
        and hasattr(model, "encode_class_prompts")
        and getattr(model, "sentence_projection", None) is None
    )
    if by_prompts or not callable(encode):
        return F.normalize(torch.as_tensor(text_encoder(model, as_class_prompts)(list(phrases))).float(), dim=-1)
    embeds, mask = encode(list(phrases))
    return F.normalize(F.normalize(hide_masked(embeds.float(), mask, "mask"), dim=-1).sum(dim=1), dim=-1)


def pointing_game_on_grid(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game of maps on the model's grid: whether the center of the highest patch lies inside the region.

    The center of the patch is taken, and not the highest pixel of the upsampled map, since interpolation keeps the value of an
    outermost patch up to the border of the image, where a whole strip of pixels is highest.

    Args:
        maps: (N, S, h, w[, d]).
        masks: (N, S, H, W[, D]), boolean.

    Returns:
        1 for a hit and 0 for a miss (N, S); NaN where the region is empty. All patches that tie must lie inside.

    Example:
        >>> maps = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]]]])
        >>> mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        >>> mask[..., 1:4, 1:4] = True
        >>> pointing_game_on_grid(maps, mask), pointing_game_on_grid(-maps, mask)
        (tensor([[1.]]), tensor([[0.]]))
    """
    centers = masks
    for axis, cells in enumerate(maps.shape[2:], start=2):
        places = ((torch.arange(cells) + 0.5) * (masks.shape[axis] / cells)).long()
        centers = centers.index_select(axis, places.to(masks.device))
    hits = pointing_game(maps.flatten(0, 1), centers.flatten(0, 1)).reshape(maps.shape[:2])
    # A region that holds no center is a miss; an empty one is undefined.
    return hits.nan_to_num(0.0).masked_fill(~masks.flatten(2).any(dim=2), torch.nan)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, S, h, w[, d]) interpolated linearly to a size."""
    return F.interpolate(maps, tuple(size), mode="bilinear" if maps.ndim == 4 else "trilinear", align_corners=False)


def patch_encoder(model: Any) -> Callable[[Tensor], tuple[Tensor, Sequence[int]]]:
    """``model.encode_patches``.

    Raises:
        TypeError: If there is none.
    """
    encode = getattr(model, "encode_patches", None)
    if not callable(encode):
        raise TypeError(
            error_message(
                "model", "have encode_patches (patch embeddings (N, P, D) and their grid)", type(model).__name__
            )
        )
    return encode
