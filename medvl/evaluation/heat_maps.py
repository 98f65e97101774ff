"""Heat maps of phrases over images, from a model's patch and text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.evaluation.embeddings import text_encoder
from medvl.functional import pointing_game
from medvl.utils.modes import eval_mode


def phrase_maps(model: Any, images: Tensor, phrases: Sequence[str]) -> Tensor:
    """Cosine of every patch with every phrase, on the model's grid: heat maps (N, S, h, w[, d]) of N images and S phrases.

    Args:
        model: as for :func:`grounding`.
        images: (N, C, H, W[, D]).
        phrases: S strings.
    """
    with eval_mode(model), torch.inference_mode():
        return patch_maps(model, images, phrase_embeddings(model, list(phrases)))


def patch_maps(model: Any, images: Tensor, texts: Tensor) -> Tensor:
    """Cosines (N, S, h, w[, d]) of each image's patches with texts (S, D), or with its own texts (N, S, D)."""
    patches, grid = patch_encoder(model)(images)
    patches = F.normalize(patches.float(), dim=-1)
    texts = texts.to(patches.device).expand(len(patches), -1, -1)
    return (texts @ patches.transpose(1, 2)).unflatten(2, tuple(int(side) for side in grid))


def phrase_embeddings(model: Any, phrases: Sequence[str], prompts: bool = False) -> Tensor:
    """Unit vectors (S, D) of S phrases, by ``encode_sentences`` where the model has it, else by ``encode_text``.

    A phrase of several sentences has the mean of their unit vectors.

    Args:
        model: as for :func:`grounding`.
        phrases: S strings.
        prompts: whether they are prompts and no one's words. ``encode_class_prompts`` then comes first, as in zero-shot
            classification, but for a model that has learned to match sentences with patches (``sentence_projection``).
    """
    encode = getattr(model, "encode_sentences", None)
    by_prompts = (
        prompts and hasattr(model, "encode_class_prompts") and getattr(model, "sentence_projection", None) is None
    )
    if by_prompts or not callable(encode):
        return F.normalize(torch.as_tensor(text_encoder(model, prompts)(list(phrases))).float(), dim=-1)
    embeds, mask = encode(list(phrases))
    return F.normalize((F.normalize(embeds.float(), dim=-1) * mask.unsqueeze(-1)).sum(dim=1), dim=-1)


def point_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game of maps on the model's grid: whether the centre of the highest patch lies inside the region.

    The centre, and not the highest pixel of the enlarged map: interpolation keeps the value of an outermost patch up to the
    picture's border, so that a whole strip of pixels is highest.

    Args:
        maps: (N, S, h, w[, d]).
        masks: (N, S, H, W[, D]), boolean.

    Returns:
        1 for a hit and 0 for a miss (N, S); NaN where the region is empty. Patches that tie must all lie inside.

    Example:
        >>> maps = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]]]])
        >>> mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        >>> mask[..., 1:4, 1:4] = True
        >>> point_hits(maps, mask), point_hits(-maps, mask)
        (tensor([[1.]]), tensor([[0.]]))
    """
    centres = masks
    for axis, cells in enumerate(maps.shape[2:], start=2):
        places = ((torch.arange(cells) + 0.5) * (masks.shape[axis] / cells)).long()
        centres = centres.index_select(axis, places.to(masks.device))
    hits = pointing_game(maps.flatten(0, 1), centres.flatten(0, 1)).reshape(maps.shape[:2])
    # A region between the centres cannot be hit, which is a miss; one that is not there is neither.
    return hits.nan_to_num(0.0).masked_fill(~masks.flatten(2).any(dim=2), torch.nan)


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, S, h, w[, d]) interpolated linearly to a size."""
    return F.interpolate(maps, tuple(size), mode="bilinear" if maps.ndim == 4 else "trilinear", align_corners=False)


def patch_encoder(model: Any) -> Callable[[Tensor], tuple[Tensor, Sequence[int]]]:
    """``model.encode_patches``.

    Raises:
        TypeError: where there is none.
    """
    encode = getattr(model, "encode_patches", None)
    if not callable(encode):
        raise TypeError(
            "phrase grounding needs a model with encode_patches (patch embeddings (N, P, D) and their grid); received "
            f"{type(model).__name__}"
        )
    return encode
