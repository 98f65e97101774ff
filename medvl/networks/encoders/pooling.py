"""Poolings of token states to one embedding of a text."""

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
    return _zero_if_empty(pooled, mask)


def _last_layers(states: States, mask: torch.Tensor) -> torch.Tensor:
    return masked_mean(torch.stack([states[1], states[2], states[-1]]).mean(0), mask)


def _last_four_layers(states: States, mask: torch.Tensor) -> torch.Tensor:
    return masked_mean(torch.stack(states[-4:]).mean(0), mask)


def _at(states: torch.Tensor, position: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    index = position.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return _zero_if_empty(states.gather(1, index)[:, 0], mask)


def _zero_if_empty(pooled: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero for a text without a token."""
    return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


DEPTHS = {"last_layers": 2, "last_four_layers": 4}
"""The poolings of several layers, and how many hidden layers they need."""
POOLINGS: dict[str, Callable[[States, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "last_layers": _last_layers,
    "last_four_layers": _last_four_layers,
    "last": _last,
}
"""Functions from the states of the layers, each (M, L, C), and a mask (M, L), True for tokens to keep, to (M, C)."""
