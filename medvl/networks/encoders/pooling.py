"""How the states of a text's tokens become one embedding."""

from __future__ import annotations

from collections.abc import Callable

import torch

from medvl.functional import masked_mean

States = tuple[torch.Tensor, ...]


def _first(states: States, mask: torch.Tensor) -> torch.Tensor:
    return _at(states[-1], mask.int().argmax(1), mask)


def _last(states: States, mask: torch.Tensor) -> torch.Tensor:
    return _at(states[-1], mask.shape[1] - 1 - mask.int().flip(1).argmax(1), mask)


def _mean(states: States, mask: torch.Tensor) -> torch.Tensor:
    return masked_mean(states[-1], mask)


def _max(states: States, mask: torch.Tensor) -> torch.Tensor:
    lowest = torch.finfo(states[-1].dtype).min
    pooled = states[-1].masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    return _none_as_zero(pooled, mask)


def _last_layers(states: States, mask: torch.Tensor) -> torch.Tensor:
    return masked_mean(torch.stack([states[1], states[2], states[-1]]).mean(0), mask)


def _at(states: torch.Tensor, place: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    index = place.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return _none_as_zero(states.gather(1, index)[:, 0], mask)


def _none_as_zero(pooled: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A text without a token pools to zero."""
    return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


POOLINGS: dict[str, Callable[[States, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "last_layers": _last_layers,
    "last": _last,
}
"""By name: (states of the layers, each (M, L, C), the last one last; mask (M, L), True keeps) to (M, C)."""
