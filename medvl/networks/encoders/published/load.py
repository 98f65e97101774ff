"""Putting published weights into a backbone, with other channels or another grid of patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvl.networks.encoders.published.names import NEWER, OLD_NORM, rename
from medvl.networks.encoders.published.report import LoadReport
from medvl.networks.encoders.published.tower import READ, Tower

logger = logging.getLogger(__name__)


def load_tower(backbone: Any, tower: Tower) -> LoadReport:
    """Load published weights into a backbone, whole or not at all, and log in one line what was adapted.

    Args:
        backbone: the backbone; its weights are changed in place.
        tower: the weights.

    Raises:
        ValueError: If a weight of the backbone is missing, or a published one does not belong to it or has another shape.
    """
    hugging_face = hasattr(backbone, "model") and hasattr(backbone.model, "config")
    network: nn.Module = backbone.model if hugging_face else backbone
    own = network.state_dict()
    values: dict[str, Tensor] = {}
    unused, adapted = dict(tower.unused), list(tower.notes)
    renamed: dict[str, tuple[str, ...]] = {}
    for name, value in tower.weights.items():
        published = tower.origin[name]
        target = _find(name, own, getattr(network, "base_model_prefix", "")) if hugging_face else name
        if target not in own:
            unused[published] = f"the backbone has no {name}"
        elif (converted := fit_weight(target, value, own[target], adapted)) is None:
            unused[published] = f"its shape {tuple(value.shape)} is not that of {target}, {tuple(own[target].shape)}"
        else:
            values[target] = converted
            if target != published:
                renamed[published] = (*renamed.get(published, ()), target)
    missing = tuple(name for name in own if name not in values and not name.endswith(_COUNTERS))
    used = tuple(dict.fromkeys(origin for name in tower.weights if (origin := tower.origin[name]) not in unused))
    report = LoadReport(used, renamed, unused, missing, tuple(dict.fromkeys(adapted)))
    _check_whole(report, tower)
    check_values(values, own, tower.path)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    level = logging.WARNING if report.adapted else logging.INFO
    logger.log(level, "%s: %s.", tower.path, "; ".join([f"{len(used)} weights loaded", *report.adapted]))
    return report


def check_values(values: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise ``ValueError`` if a weight cannot be one of the model's.

    That is one of integers where the model's is floating point, as in a quantized model; NaN or infinite, as after a training
    that diverged; or a negative variance.
    """
    whole = [name for name, value in values.items() if own[name].is_floating_point() > value.is_floating_point()]
    if whole:
        raise ValueError(
            f"{path} holds integers in place of floating point weights, as a quantized model does: {len(whole)} of "
            f"{len(values)}, the first for {whole[0]}."
        )
    wrong = [name for name, value in values.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise ValueError(
            f"{path} holds weights that are not finite: {len(wrong)} of {len(values)}, the first for {wrong[0]}."
        )
    below = [
        name for name, value in values.items() if name.endswith("running_var") and value.numel() and value.min() < 0
    ]
    if below:
        raise ValueError(f"{path} holds a variance below 0, for {below[0]}.")


_COUNTERS = "num_batches_tracked"  # absent in old files
# What a Hugging Face file may hold besides the model: heads, a pooler that no embedding uses, constants of old versions.
_HARMLESS = ("pooler.", "classifier.", "cls_classifier.", "position_ids", "relative_position_index", "decoder.")


def fit_weight(name: str, value: Tensor, own: Tensor, adapted: list[str]) -> Tensor | None:
    """A published value in the shape of the model's weight, None if that is not possible.

    Args:
        name: the name in the model.
        value: the published value.
        own: the model's value.
        adapted: what is done is added to this list.
    """
    if value.shape == own.shape:
        return value
    if value.ndim == own.ndim >= 4 and value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]:
        channels = value.shape[1], own.shape[1]
        if channels == (3, 1):
            adapted.append("kernels of 3 input channels summed for 1")
            return value.sum(1, keepdim=True)
        if channels == (1, 3):
            adapted.append("kernels of 1 input channel spread over 3")
            return (value / 3).expand(own.shape)
    if "position_embedding" in name and value.shape[-1] == own.shape[-1]:
        return _resize_positions(value, own, adapted)
    return None


def _resize_positions(value: Tensor, own: Tensor, adapted: list[str]) -> Tensor | None:
    """A table of positions ([1, ]k + P, C), k of them of class tokens, interpolated to another square grid, if it has one."""
    rows, table = own.shape[-2], value.reshape(-1, value.shape[-1])
    for prefix in (0, 1, 2):
        old, new = (math.isqrt(max(count - prefix, 0)) for count in (len(table), rows))
        if old and new and old**2 + prefix == len(table) and new**2 + prefix == rows:
            grid = table[prefix:].T.reshape(1, -1, old, old).float()
            resized = F.interpolate(grid, (new, new), mode="bicubic", antialias=True)[0].flatten(1).T
            adapted.append(f"position table of {old} x {old} patches interpolated to {new} x {new}")
            return torch.cat([table[:prefix].float(), resized]).reshape(own.shape)
    return None


def _find(name: str, own: dict[str, Tensor], base: str) -> str:
    """The name in a Hugging Face model in memory of a weight in a file, which may be that of a model with a head."""
    names = [start := rename(name, OLD_NORM), start.removeprefix(f"{base}.")]
    return next((found for start in names for found in (start, rename(start, NEWER)) if found in own), name)


def _check_whole(report: LoadReport, tower: Tower) -> None:
    reasons = set(tower.unused.values())
    errors = {
        name: reason
        for name, reason in report.unused.items()
        if reason not in reasons and not (tower.family is None and any(part in name for part in _HARMLESS))
    }
    read = READ.get(tower.family or "", "this Hugging Face model")
    if errors:
        name, reason = next(iter(errors.items()))
        count = len(report.used) + len(report.unused)
        raise ValueError(
            f"{tower.path} does not match the backbone: {len(errors)} of its {count} weights cannot be used, the first {name} "
            f"({reason}); what is read here is {read}."
        )
    if report.missing:
        raise ValueError(
            f"{tower.path} does not match the backbone: {len(report.missing)} weights are missing in it, the first "
            f"{report.missing[0]}; what is read here is {read}."
        )
