"""Masks of regions in the batches of the segmentation and grounding protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medvl.utils.checks import error_message
from medvl.utils.ids import id_strings
from medvl.utils.tensors import as_plain

BATCH = 16
"""Labeled cases that go through the encoder at once."""


def check_masks(images: Any, masks: Any, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W[, D]) and boolean masks (N, K, H, W[, D]) as plain tensors.

    Args:
        images: of the batch.
        masks: 0 and 1, or boolean.
        names: of the K regions.

    Raises:
        ValueError: If the masks have another shape or other values.
    """
    images, masks = (as_plain(torch.as_tensor(values)) for values in (images, masks))
    if masks.ndim != images.ndim or masks.shape[:2] != (len(images), len(names)):
        expected = (len(images), len(names), *images.shape[2:])
        raise ValueError(error_message("mask", f"have shape {expected} for {list(names)}", tuple(masks.shape)))
    if masks.dtype != torch.bool:
        wrong = masks[(masks != 0) & (masks != 1)]
        if len(wrong):
            raise ValueError(error_message("mask", "be 0 or 1", wrong[0].item()))
        masks = masks == 1
    return images, masks


def labeled_features(
    features: Callable[[Tensor], list[Tensor]],
    train: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    names: Sequence[str],
    device: torch.device | str | None,
) -> tuple[list[Tensor], Tensor, set[str]]:
    """Feature maps and masks (n, K, H, W[, D]) of n labeled cases, and their patients.

    Args:
        features: function from images to feature maps.
        train: labeled cases, by index.
        rows: of the n cases.
        names: of the K regions.
        device: where images go; None leaves them where they are.
    """
    maps: list[list[Tensor]] = []
    masks: list[Tensor] = []
    patients: set[str] = set()
    for start in range(0, len(rows), BATCH):
        cases = [train[row] for row in rows[start : start + BATCH]]
        patients |= set(id_strings(case["patient_id"] for case in cases if case.get("patient_id") is not None))
        images = torch.stack([as_plain(torch.as_tensor(case["image"])) for case in cases])
        truth = torch.stack([as_plain(torch.as_tensor(case["mask"])) for case in cases])
        images, truth = check_masks(images, truth, names)
        maps.append([m.cpu() for m in features(images if device is None else images.to(device))])
        masks.append(truth)
    return [torch.cat(stage) for stage in zip(*maps, strict=True)], torch.cat(masks), patients
