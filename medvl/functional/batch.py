"""Ids, labels and weights of the images and texts of a contrastive batch, checked and, where asked for, gathered."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from medvl.utils.checks import check_type, error_message
from medvl.utils.distributed import all_gather_with_grad, get_rank, get_world_size, is_distributed
from medvl.utils.tensors import as_float, as_ids, as_labels, as_mask

Ids: TypeAlias = Tensor | Sequence[str] | Sequence[int]

Pair: TypeAlias = tuple[Tensor, Tensor]
"""A tensor of the images and the same of the texts."""


def pair_ids(image_ids: Ids | None, text_ids: Ids | None, image_embeds: Tensor, text_embeds: Tensor) -> Pair:
    """Ids of images (N,) and texts (M,) as integers; without ids, image i and text i of a process are a pair."""
    ids = optional_ids(image_ids, text_ids, image_embeds, text_embeds)
    if ids is not None and image_ids is not None and text_ids is not None:
        if _kind(image_ids) == _kind(text_ids):
            _warn_if_without_pair(ids)
        return ids
    count, texts = len(image_embeds), len(text_embeds)
    if count != texts:
        expected = "be given if the numbers of images and texts differ"
        raise ValueError(error_message("image_ids and text_ids", expected, f"{count} images and {texts} texts"))
    # Numbers that no other process uses.
    pairs = torch.arange(count, device=image_embeds.device) + (get_rank() << 40)
    return pairs, pairs


def optional_ids(image_ids: Ids | None, text_ids: Ids | None, image_embeds: Tensor, text_embeds: Tensor) -> Pair | None:
    """Ids of images (N,) and texts (M,) as integers, or None if there are none."""
    _check_both(image_ids, text_ids, "ids")
    if image_ids is None or text_ids is None:
        return None
    ids = (
        as_ids(image_ids, "image_ids", len(image_embeds), image_embeds.device),
        as_ids(text_ids, "text_ids", len(text_embeds), text_embeds.device),
    )
    kinds = _kind(image_ids), _kind(text_ids)
    if kinds[0] != kinds[1]:
        _warn_if_without_pair(ids, f": image_ids are {kinds[0]}, text_ids {kinds[1]}")
    return ids


def _kind(ids: Ids) -> str:
    return "strings" if not isinstance(ids, Tensor) and len(ids) and isinstance(ids[0], str) else "integers"


_CHECKS_ON_ACCELERATOR = 10
_checks: Counter[str] = Counter()
_warned: set[str] = set()


def _warn_if_without_pair(ids: Pair, why: str = "") -> None:
    """Warn once if no image and text of a batch are a pair, where the loss is 0 and nothing is learned."""
    message = f"No image and text of a batch have equal ids, so no pair is a positive{why}."
    if _is_checked(message, *ids) and not torch.isin(*ids).any():
        _warn(message)


def warn_if_without_positive(positive: Tensor) -> None:
    """Warn once if ids and labels make no image and text of a batch a positive pair; (N, M), or (N,) by image."""
    message = "No image and text of a batch have equal ids or labels that agree, so no pair is a positive."
    if _is_checked(message, positive, positive) and not positive.any():
        _warn(message)


def warn_if_labels_are_empty(
    image_labels: Tensor, text_labels: Tensor, consequence: str = "every pair has the same target"
) -> None:
    """Warn once if all labels of a batch's images, or texts, are 0 or unknown: every pair is then as similar as any other."""
    for side, labels in (("image", image_labels), ("text", text_labels)):
        message = f"All {side}_labels of a batch are 0 or unknown, so {consequence}."
        if _is_checked(message, labels, labels) and not labels.nan_to_num(0.0).any():
            _warn(message)


def _is_checked(message: str, images: Tensor, texts: Tensor) -> bool:
    """Whether to look at a batch's content for a warning, which is given once.

    Only the first batches are checked on an accelerator, which the check would make wait; and only a process of its own,
    since the pairs of several may be in different ones.
    """
    if torch.compiler.is_compiling() or get_world_size() > 1 or not (images.numel() and texts.numel()):
        return False
    if message in _warned:
        return False
    if images.device.type == "cpu":
        return True
    _checks[message] += 1
    return _checks[message] <= _CHECKS_ON_ACCELERATOR


def _warn(message: str) -> None:
    _warned.add(message)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def paired_rows(ids: Pair, gather: bool) -> Pair:
    """True for the images (N,) and the texts (M,) whose id is on the other side, with ``gather`` in any process."""
    images, texts = (all_gather_with_grad(side) for side in ids) if gather and is_distributed() else ids
    return torch.isin(ids[0], texts), torch.isin(ids[1], images)


def pair_labels(labels: tuple[Tensor, Tensor], masks: tuple[Tensor | None, Tensor | None], embeds: Pair) -> Pair:
    """Labels of images (N, K) and texts (M, K) as floats, with NaN for unknown findings."""
    read = []
    for side, values, mask, rows in zip(("image", "text"), labels, masks, embeds, strict=True):
        values = as_labels(values, f"{side}_labels").to(rows.device)
        if len(values) != len(rows):
            expected = f"have {len(rows)} rows, one for each row of the embeddings"
            raise ValueError(error_message(f"{side}_labels", expected, len(values)))
        known = as_mask(mask, f"{side}_label_mask", values)
        read.append(values if mask is None else values.masked_fill(~known, torch.nan))
    return read[0], read[1]


def ids_and_labels(
    ids: tuple[Ids | None, Ids | None],
    labels: tuple[Tensor | None, Tensor | None],
    masks: tuple[Tensor | None, Tensor | None],
    embeds: Pair,
) -> tuple[Pair | None, Pair | None]:
    """Ids and labels, each None if not given; without either, image i and text i of a process are a pair."""
    for side, values, mask in zip(("image", "text"), labels, masks, strict=True):
        if values is None and mask is not None:
            raise ValueError(error_message(f"{side}_label_mask", f"come with {side}_labels", f"no {side}_labels"))
    images, texts = labels
    _check_both(images, texts, "labels")
    if images is None or texts is None:
        return pair_ids(*ids, *embeds), None
    return optional_ids(*ids, *embeds), pair_labels((images, texts), masks, embeds)


def _check_both(images: object, texts: object, what: str) -> None:
    """Raise if one of image_ids and text_ids (or labels) is given without the other."""
    if (images is None) != (texts is None):
        missing = f"image_{what}" if images is None else f"text_{what}"
        raise ValueError(error_message(f"image_{what} and text_{what}", "be given together", f"no {missing}"))


def image_weights(weights: Tensor | None, image_embeds: Tensor) -> Tensor | None:
    """Weights of images (N,) beside the embeddings, without gradient."""
    if weights is None:
        return None
    check_type(weights, "weights", Tensor)
    if weights.shape != image_embeds.shape[:1]:
        expected = f"have shape ({len(image_embeds)},), one for each image"
        raise ValueError(error_message("weights", expected, tuple(weights.shape)))
    # They say how much a view counts; the loss must not learn to lower itself by lowering them.
    return as_float(weights).detach().to(image_embeds)


@dataclass(frozen=True)
class Batch:
    """Checked tensors of a contrastive batch, for the paths that gather it or walk it in tiles.

    Args:
        embeds: (N, D) and (M, D).
        ids: (N,) and (M,) integers.
        labels: (N, K) and (M, K); NaN marks an unknown finding.
        weights: (N,).
    """

    embeds: Pair
    ids: Pair | None = None
    labels: Pair | None = None
    weights: Tensor | None = None

    def gather(self, side: int) -> Batch:
        """The same batch with the images (side 0) or the texts (side 1) of every process, one process after the other."""

        def gathered(pair: Pair | None) -> Pair | None:
            if pair is None:
                return None
            images, texts = pair
            return (all_gather_with_grad(images), texts) if side == 0 else (images, all_gather_with_grad(texts))

        weights = self.weights
        if side == 0 and weights is not None:
            weights = all_gather_with_grad(weights)
        embeds = gathered(self.embeds) or self.embeds
        return replace(self, embeds=embeds, ids=gathered(self.ids), labels=gathered(self.labels), weights=weights)

    def arguments(self) -> dict[str, Any]:
        """What is given, as keyword arguments of a loss."""
        pairs = {"embeds": self.embeds, "ids": self.ids, "labels": self.labels}
        named: dict[str, Any] = {} if self.weights is None else {"weights": self.weights}
        for name, pair in pairs.items():
            if pair is not None:
                named[f"image_{name}"], named[f"text_{name}"] = pair
        return named
