"""The two sides of a batch, images and texts, checked and where wanted gathered from all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from medvl.utils.distributed import all_gather_with_grad, get_rank
from medvl.utils.tensors import as_float, as_full_mask, as_ids, as_labels

Ids: TypeAlias = Tensor | Sequence[str] | Sequence[int]


@dataclass(frozen=True)
class Side:
    """What is known of the images, or of the texts, of a batch; every tensor has one row for each of them."""

    embeds: Tensor
    mask: Tensor  # (rows,), or (rows, elements) where embeds are (rows, elements, D)
    ids: Tensor | None = None
    labels: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def gathered(self, *names: str) -> Side:
        """The same of every process; all of it, or only the tensors named."""
        names = names or tuple(field.name for field in fields(self))
        parts = {name: getattr(self, name) for name in names}
        return replace(self, **{name: all_gather_with_grad(part) for name, part in parts.items() if part is not None})


def make_side(
    name: str,
    embeds: Tensor,
    mask: Tensor | None = None,
    ids: Ids | None = None,
    labels: Tensor | None = None,
    label_mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Side:
    """A side with its rows counted; ``name`` is "image" or "text", for messages."""
    count, device = len(embeds), embeds.device
    if ids is not None:
        ids = as_ids(ids, f"{name}_ids", count, device)
    if labels is not None:
        labels = as_labels(labels, f"{name}_labels").to(device)
        _check_rows(labels, f"{name}_labels", count)
    if label_mask is not None:
        if labels is None:
            raise ValueError(f"{name}_label_mask needs {name}_labels, got none")
        labels = labels.masked_fill(~as_full_mask(label_mask, f"{name}_label_mask", labels), torch.nan)
    if weights is not None:
        if not isinstance(weights, Tensor):
            raise TypeError(f"weights must be a tensor, got {type(weights).__name__}")
        if weights.shape != (count,):
            raise ValueError(f"weights must have shape ({count},), one for each image, got {tuple(weights.shape)}")
        # They say how much a view counts; the loss must not learn to lower itself by lowering them.
        weights = as_float(weights).detach().to(embeds)
    if mask is None:
        mask = torch.ones(embeds.shape[:-1], dtype=torch.bool, device=device)
    return Side(embeds, mask, ids, labels, weights)


def with_ids(images: Side, texts: Side) -> tuple[Side, Side]:
    """Both sides with ids; without any, image i and text i of a process are a pair."""
    check_together(images.ids, texts.ids, "ids")
    if images.ids is not None:
        return images, texts
    if len(images) != len(texts):
        raise ValueError(
            "image_ids and text_ids are needed where the numbers of images and texts differ, "
            f"got {len(images)} images and {len(texts)} texts"
        )
    ids = torch.arange(len(images), device=images.embeds.device) + (get_rank() << 40)
    return replace(images, ids=ids), replace(texts, ids=ids)


def check_together(images: Tensor | None, texts: Tensor | None, what: str) -> None:
    """Raise where one side has ``what`` and the other has not."""
    if (images is None) != (texts is None):
        raise ValueError(
            f"image_{what} and text_{what} must come together, got no {'image' if images is None else 'text'}_{what}"
        )


def _check_rows(value: Tensor, name: str, count: int) -> None:
    if len(value) != count:
        raise ValueError(f"{name} must have {count} rows, one for each row of the embeddings, got {len(value)}")
