"""The collate function of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError
from medvl.utils.ids import hash_id

PADDING = {"input_ids": 0, "attention_mask": 0, "sentence_ids": -1}

# Keys with one row an image, and keys with one row a text; a batch may have different numbers of them.
IMAGE_KEYS = ("image", "label", "visible_indices", "visible_mask")
TEXT_KEYS = ("text", "text_label", *PADDING)

_OWN_KEYS = ("pooled", "text_study_id")  # of items, not of batches


def collate_studies(items: Sequence[Mapping[str, Any] | StudyError]) -> dict[str, Any]:
    """Collate studies into a batch; some may have no image and some no text.

    Token sequences are padded to the longest, tensors and arrays are stacked, numbers become a tensor, and other values stay
    a list. ``image`` and ``label`` are those of the N studies with an image; ``input_ids``, ``attention_mask``,
    ``sentence_ids``, ``text`` and ``text_label`` those of the M studies with a text. The integers ``image_ids`` (N,) and
    ``text_ids`` (M,) are hashes of ``study_id``: an image and a text are a pair if their ids are equal. A text with a
    ``text_study_id`` has the hash of that.

    Images whose ``pooled`` is true are views of one study that get one embedding (:class:`~medvl.networks.PooledViews`). There
    are then more images than N; ``view_index`` is the row in [0, N) of each image, and ``label`` and ``image_ids`` have one
    row a study.

    Args:
        items: studies; each :class:`~medvl.utils.errors.StudyError` among them is passed on in ``errors``.

    Returns:
        The batch, with the list ``errors``, empty if there are none.

    Raises:
        ValueError: If a key is missing in some of the studies that should have it, or the tensors of a key differ in shape.

    Example:
        >>> batch = collate_studies([
        ...     {"study_id": "a", "input_ids": torch.tensor([2, 7, 3])},
        ...     {"study_id": "b", "input_ids": torch.tensor([2, 3])},
        ... ])
        >>> batch["input_ids"].tolist(), batch["study_id"], batch["text_ids"].shape
        ([[2, 7, 3], [2, 3, 0]], ['a', 'b'], torch.Size([2]))
    """
    errors = [item for item in items if isinstance(item, StudyError)]
    studies = [item for item in items if not isinstance(item, StudyError)]
    batch: dict[str, Any] = {"errors": errors}
    with_image = [study for study in studies if "image" in study]
    with_text = [study for study in studies if "input_ids" in study or "text" in study]
    rows = with_image
    if any(study.get("pooled") for study in with_image):
        first = {study["study_id"]: study for study in reversed(with_image)}
        rows = [study for study in with_image if first[study["study_id"]] is study]
        row_of = {study["study_id"]: row for row, study in enumerate(rows)}
        batch["view_index"] = torch.tensor([row_of[study["study_id"]] for study in with_image])
    owners = {"image": with_image, **dict.fromkeys(IMAGE_KEYS[1:], rows), **dict.fromkeys(TEXT_KEYS, with_text)}
    for key in dict.fromkeys(key for study in studies for key in study if key not in _OWN_KEYS):
        having = owners.get(key) or studies
        without = [str(study.get("study_id")) for study in having if key not in study]
        if without:
            raise ValueError(
                error_message("studies of one batch", f"all have {key!r}", f"study {without[0]!r} without it")
            )
        batch[key] = _collate_key(key, [study[key] for study in having])
    if "study_id" in batch:
        for name, ids in (
            ("image_ids", [study["study_id"] for study in rows]),
            ("text_ids", [study.get("text_study_id", study["study_id"]) for study in with_text]),
        ):
            if ids:
                batch[name] = torch.tensor([hash_id(str(text)) for text in ids], dtype=torch.int64)
    return batch


def _collate_key(key: str, values: list[Any]) -> Any:
    values = [torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v for v in values]
    if key in PADDING:
        return pad_sequence(list(map(torch.as_tensor, values)), batch_first=True, padding_value=PADDING[key])
    if isinstance(values[0], torch.Tensor):
        shapes = sorted({tuple(value.shape) for value in values})
        if len(shapes) > 1:
            raise ValueError(error_message(repr(key), "have one shape within a batch", f"{shapes[0]} and {shapes[1]}"))
        return torch.stack([value.as_tensor() if hasattr(value, "as_tensor") else value for value in values])
    if all(isinstance(value, Real) for value in values):  # NumPy scalars too
        return torch.tensor(values)
    return values
