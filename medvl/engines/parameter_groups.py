"""Learning rates by depth and by part of a network, as an optimizer's parameter groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

# Where a block's number stands in the names of parameters: BERT's and ViT's blocks, ResNet's and Swin's stages.
_BLOCK = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|denseblock)\.?(\d+)(?=\.)")


def parameter_groups(
    network: nn.Module, learning_rate: float, rates: Mapping[str, float] | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters of a network in groups of one learning rate each, for any optimizer of torch.

    A parameter's rate is::

        learning_rate * rates[longest prefix of its name] * layer_decay ^ (layers between it and its tower's end)

    Layers are counted within each child of the network, by the first number in the names of its blocks: what comes before
    the blocks (embeddings) lies one below the first, and what comes after, as all of a child without blocks, has no layer
    between it and the end. Frozen parameters are left out.

    Args:
        network: as a :class:`~medvl.networks.DualEncoder`.
        learning_rate: at least 0.
        rates: factors of at least 0 by prefix of the parameters' names, as ``{"text_encoder": 0.1}``.
        layer_decay: in (0, 1]; 1 for the same rate in all layers.

    Returns:
        Dictionaries with ``params`` and ``lr``, in the order of the network's parameters.

    Raises:
        ValueError: a rate, factor or decay out of its range; a prefix that no parameter has; nothing to train.

    Example:
        >>> network = nn.ModuleDict({"tower": nn.Sequential(), "head": nn.Linear(2, 2)})
        >>> network["tower"].add_module("stem", nn.Linear(2, 2))
        >>> network["tower"].add_module("blocks", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        >>> groups = parameter_groups(network, 0.8, rates={"head": 2.0}, layer_decay=0.5)
        >>> [(group["lr"], len(group["params"])) for group in groups]
        [(0.2, 2), (0.4, 2), (0.8, 2), (1.6, 2)]
    """
    if not learning_rate >= 0:
        raise ValueError(f"learning_rate must be at least 0, received {learning_rate}.")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], received {layer_decay}.")
    factors = dict(rates or {})
    for prefix, factor in factors.items():
        if not factor >= 0:
            raise ValueError(f"rates: the factor of {prefix!r} must be at least 0, received {factor}.")
    names = [name for name, _ in network.named_parameters()]
    for prefix in factors:
        if not any(_under(name, prefix) for name in names):
            children = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"rates: no parameter's name begins with {prefix!r}; the network's parts are {children}.")
    below_end = _layers_below_end(names)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = factors.get(max((known for known in factors if _under(name, known)), key=len, default=""), 1.0)
            groups.setdefault(learning_rate * factor * layer_decay ** below_end[name], []).append(parameter)
    if not groups:
        raise ValueError("network has no parameter to train: all of them are frozen.")
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _layers_below_end(names: list[str]) -> dict[str, int]:
    """By parameter, how many layers lie between it and the end of its tower."""
    towers: dict[str, list[str]] = {}
    for name in names:
        towers.setdefault(name.split(".")[0], []).append(name)
    result = {}
    for tower in towers.values():
        blocks = {name: int(found[1]) for name in tower if (found := _BLOCK.search(name))}
        numbers = sorted(set(blocks.values()))
        first = next((i for i, name in enumerate(tower) if name in blocks), 0)
        for i, name in enumerate(tower):
            place = len(numbers) if i < first else numbers[::-1].index(blocks[name]) if name in blocks else 0
            result[name] = place
    return result
