"""States of networks whose weights are divided over processes (FSDP2), as a single process has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medvl.utils.distributed import is_rank_zero


def is_sharded(value: Any) -> bool:
    """Whether a network's weights are divided over processes by ``torch.distributed.fsdp.fully_shard``."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(value, fsdp.FSDPModule)


def whole_state(state: Any) -> Any:
    """A state whose tensors are whole; every process must call it where some are divided.

    What was divided is on the CPU in the first process, and empty in the others.

    Example:
        >>> whole_state({"weight": torch.ones(2), "groups": [{"lr": 0.1}]})
        {'weight': tensor([1., 1.]), 'groups': [{'lr': 0.1}]}
    """
    if isinstance(state, Tensor):
        if not hasattr(state, "full_tensor"):
            return state
        whole = state.full_tensor()
        return whole.cpu() if is_rank_zero() else whole.new_empty(0)
    if isinstance(state, Mapping):
        return {key: whole_state(value) for key, value in state.items()}
    return [whole_state(value) for value in state] if isinstance(state, list) else state


def load_whole_state(target: Any, state: Mapping[str, Any]) -> None:
    """``target.load_state_dict(state)`` of a whole state; every process must call it where the target is divided.

    Args:
        target: a network, an optimizer, or another object with ``load_state_dict``.
        state: what :func:`whole_state` gave for such a one.
    """
    if isinstance(target, torch.optim.Optimizer):
        parameters = [value for group in target.param_groups for value in group["params"]]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        of_number = dict(zip(numbers, parameters, strict=False))  # load_state_dict compares their numbers
        divided = {
            number: {key: _like(value, of_number[number]) for key, value in values.items()}
            for number, values in state["state"].items()
        }
        state = {**state, "state": divided}
    elif isinstance(target, nn.Module) and is_sharded(target):
        own = target.state_dict()
        state = {name: _like(value, own[name]) if name in own else value for name, value in state.items()}
    target.load_state_dict(state)


def _like(value: Any, own: Any) -> Any:
    """A whole tensor divided as another one of its shape is."""
    if not hasattr(own, "full_tensor") or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
