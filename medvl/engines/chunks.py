"""Chunks of a batch of images and texts: which rows a chunk has, and the network's outputs for all of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.checks import check_option, error_message

OWNERS = ("image", "text", "shared")
"""What the rows of an argument or output belong to; a shared one, such as the scale of the logits, has no rows."""

ARGUMENTS = {
    "visible_indices": "image",
    "image_ids": "study",
    "view_index": "image",
    "input_ids": "text",
    "attention_mask": "text",
    "sentence_ids": "text",
    "token_type_ids": "text",
    "text_ids": "text",
}
OUTPUTS = {
    "image_embeds": "study",
    "patch_embeds": "image",
    "visible_mask": "image",
    "patch_prediction": "image",
    "semantic_integrity": "image",
    "text_embeds": "text",
    "sentence_embeds": "text",
    "sentence_mask": "text",
    "logit_scale": "shared",
    "logit_bias": "shared",
}
# Where the views of a study are pooled (``view_index``), a "study" row is one of those; elsewhere it is an image's.


@dataclass(frozen=True)
class Chunk:
    """Rows of a batch that pass the network together.

    Args:
        images: indices of images.
        studies: indices of the studies of the images, where their views are pooled; the same as ``images`` elsewhere.
        texts: indices of texts.
        guest: for a chunk without a text, one of another chunk, so that the network leaves out nothing that takes texts;
            its own outputs are not used.
    """

    images: list[int] = field(default_factory=list)
    studies: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    guest: int | None = None

    def rows(self, owner: str) -> list[int]:
        """The rows of the batch that are the chunk's."""
        return {"image": self.images, "study": self.studies, "text": self.texts}[owner]

    def inputs(self, owner: str) -> list[int]:
        """The rows that the network sees."""
        return [self.guest] if owner == "text" and self.guest is not None else self.rows(owner)


@dataclass(frozen=True)
class BatchSize:
    """The rows of a batch: its images, studies with images, and texts."""

    images: int
    studies: int
    texts: int

    def rows(self, owner: str) -> int:
        """How many rows an argument or output with this owner has."""
        return {"image": self.images, "study": self.studies, "text": self.texts}[owner]


def plan_chunks(
    size: BatchSize,
    chunk_size: int,
    image_ids: Sequence[Hashable] | None = None,
    text_ids: Sequence[Hashable] | None = None,
    view_index: Sequence[int] | None = None,
) -> list[Chunk]:
    """Divide a batch into chunks of about equal size.

    A chunk has at most ``chunk_size`` images, with all their texts. There are enough chunks for each to have at most as many
    texts without an image; each of these goes where there are the fewest texts. The images of one study stay together, even
    where they are more. Images with and without a text are spread over all chunks. The last chunk has images and texts, if
    the batch has both.

    Args:
        size: how many rows the batch has.
        chunk_size: at least 1.
        image_ids: the study of each image or, with ``view_index``, of each study's row.
        text_ids: the study of each text; without ids, text i belongs to image i if there are as many.
        view_index: the study's row of each image.

    Example:
        >>> [chunk.images for chunk in plan_chunks(BatchSize(5, 5, 5), chunk_size=2)]
        [[0, 1], [2, 3], [4]]
        >>> for chunk in plan_chunks(BatchSize(2, 2, 3), 1, image_ids=["a", "b"], text_ids=["b", "c", "b"]):
        ...     print(chunk.images, chunk.texts)
        [0] [1]
        [1] [0, 2]
    """
    units, alone = _units(size, image_ids, text_ids, view_index)
    enough = math.ceil(len(alone) / chunk_size)
    parts = _cut(units, size.images, chunk_size, enough)
    parts += [[] for _ in range(enough - len(parts))]
    chunks = [
        Chunk(
            [row for unit in part for row in unit.images],
            [row for unit in part for row in unit.studies],
            [row for unit in part for row in unit.texts],
        )
        for part in parts
    ]
    for row in alone:
        min(chunks, key=lambda chunk: len(chunk.texts)).texts.append(row)
    if size.texts:
        chunks = [chunk if chunk.texts else Chunk(chunk.images, chunk.studies, guest=0) for chunk in chunks]
    # DistributedDataParallel reduces the gradients in the last pass, which should reach every weight.
    last = max(range(len(chunks)), key=lambda i: (bool(chunks[i].images) + bool(chunks[i].texts), i), default=0)
    return chunks[:last] + chunks[last + 1 :] + chunks[last : last + 1]


def _units(
    size: BatchSize,
    image_ids: Sequence[Hashable] | None,
    text_ids: Sequence[Hashable] | None,
    view_index: Sequence[int] | None,
) -> tuple[list[Chunk], list[int]]:
    """The images and texts of each study with an image, studies with a text spread among those without; the other texts."""
    if image_ids is None or text_ids is None:
        image_ids = range(size.studies)
        text_ids = range(size.texts) if size.texts == size.studies else [None] * size.texts
    units: dict[Hashable, Chunk] = {}
    for row, study in enumerate(image_ids):
        units.setdefault(study, Chunk()).studies.append(row)
    for image, row in enumerate(range(size.images) if view_index is None else view_index):
        units[image_ids[row]].images.append(image)
    alone: list[int] = []
    for row, study in enumerate(text_ids):
        (units[study].texts if study in units else alone).append(row)
    kinds = [[unit for unit in units.values() if bool(unit.texts) == with_text] for with_text in (True, False)]
    places = [((i + 0.5) / len(kind), unit.studies[0], unit) for kind in kinds for i, unit in enumerate(kind)]
    return [unit for *_, unit in sorted(places, key=lambda place: place[:2])], alone


def _cut(units: Sequence[Chunk], images: int, chunk_size: int, at_least: int) -> list[list[Chunk]]:
    """Consecutive parts of about as many images each, at most ``chunk_size`` unless a single study has more.

    There are ``at_least`` so many parts, if there are so many studies.
    """
    for count in range(min(images, max(at_least, math.ceil(images / chunk_size))), images + 1):
        parts: dict[int, list[Chunk]] = {}
        before = 0
        for unit in units:
            parts.setdefault(before * count // images, []).append(unit)
            before += len(unit.images)
        small = all(len(part) == 1 or sum(len(unit.images) for unit in part) <= chunk_size for part in parts.values())
        if small and len(parts) >= min(at_least, len(units)):
            return list(parts.values())
    return []


class RowOwners:
    """Knows what the rows of a network's arguments and outputs belong to: by name, else by their number.

    Args:
        more: "image", "text" or "shared" by name, for names that are not medvl's.

    Raises:
        ValueError: If an owner is unknown.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        for name, owner in (more or {}).items():
            check_option(owner, f"row_owners[{name!r}]", OWNERS)
        self._more = dict(more or {})

    def count_texts(self, arguments: Mapping[str, Any]) -> int:
        """The number of texts, by the first argument of the network that is known to belong to them."""
        for name, value in arguments.items():
            if value is not None and self._more.get(name, ARGUMENTS.get(name)) == "text":
                return len(value)
        return 0

    def of_argument(self, name: str, value: Any, size: BatchSize) -> str:
        """The owner of an argument of the network.

        Raises:
            ValueError: If it is not known.
        """
        owner = self._more.get(name, ARGUMENTS.get(name))
        if owner is not None:
            return owner
        if not isinstance(value, Tensor | list | tuple) or (isinstance(value, Tensor) and not value.ndim):
            return "shared"
        return self._by_number(f"argument {name}", len(value), size.images, size.texts)

    def of_output(self, name: str, value: Tensor, images: int, texts: int) -> str:
        """The owner of an output for a chunk with so many images and texts.

        Raises:
            ValueError: If it is not known.
        """
        owner = self._more.get(name, OUTPUTS.get(name))
        if owner is not None:
            return owner
        return self._by_number(f"output {name}", len(value) if value.ndim else -1, images, texts)

    @staticmethod
    def _by_number(name: str, rows: int, images: int, texts: int) -> str:
        if images == texts or rows not in (images, texts):
            received = f"{rows if rows >= 0 else 'no'} rows, with {images} images and {texts} texts"
            expected = "be named in row_owners, as image, text or shared, to be divided into chunks"
            raise ValueError(error_message(name, expected, received))
        return "image" if rows == images else "text"


def take_rows(value: Any, rows: Sequence[int]) -> Any:
    """Rows of a tensor, list or tuple; consecutive rows of a tensor are not copied."""
    if isinstance(value, Tensor):
        return value[_index(rows, value.device)]
    return [value[row] for row in rows]


def _index(rows: Sequence[int], device: torch.device) -> slice | Tensor:
    if len(rows) and list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, dtype=torch.long, device=device)


class GatheredRows:
    """One output of the network for a whole batch, filled chunk by chunk.

    Axes behind the first may be shorter in some chunks, as the sentences of texts; the rest is 0.

    Args:
        rows: of the batch.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.value: Tensor | None = None

    def put(self, rows: Sequence[int], values: Tensor) -> None:
        """Store the rows of a chunk."""
        if self.value is None:
            self.value = values.new_zeros(self._rows, *values.shape[1:])
        missing = [max(0, new - old) for old, new in zip(self.value.shape[1:], values.shape[1:], strict=True)]
        if any(missing):
            self.value = F.pad(self.value, [n for size in reversed(missing) for n in (0, size)])
        self.value[(_index(rows, values.device), *map(slice, values.shape[1:]))] = values


def rows_like(batch: Tensor, rows: Sequence[int], chunk: Tensor) -> Tensor:
    """The rows of a chunk, cut to the shape that the chunk's own output has."""
    return take_rows(batch, rows)[(slice(None), *map(slice, chunk.shape[1:]))]
