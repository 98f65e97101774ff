"""Learning rates by depth and by part of a network, as an optimizer's parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from medvl.utils.checks import check_number, error_message
from medvl.utils.layers import layer_positions


def parameter_groups(
    network: nn.Module,
    learning_rate: float,
    lr_multipliers: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """The trainable parameters of a network in groups of one learning rate each, for any optimizer of torch.

    A parameter's learning rate is::

        learning_rate * lr_multipliers[longest prefix of its name] * layer_decay ^ (layers between it and its encoder's end)

    Layers are counted within each child of the network, by the first number in the names of its blocks: what comes before
    the blocks (embeddings) lies one below the first, and what comes after, as all of a child without blocks, has no layer
    between it and the end. Frozen parameters are left out.

    Args:
        network: as a :class:`~medvl.networks.DualEncoder`.
        learning_rate: at least 0.
        lr_multipliers: factors of at least 0 by prefix of the parameters' names, as ``{"text_encoder": 0.1}``.
        layer_decay: in (0, 1]; 1 gives all layers the same learning rate.

    Returns:
        Dictionaries with ``params`` and ``lr``, in the order of the network's parameters.

    Raises:
        ValueError: If a learning rate, multiplier or decay is out of its range, no parameter's name has a prefix, or every
            parameter is frozen.

    Example:
        >>> network = nn.ModuleDict({"encoder": nn.Sequential(), "head": nn.Linear(2, 2)})
        >>> network["encoder"].add_module("stem", nn.Linear(2, 2))
        >>> network["encoder"].add_module("blocks", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        >>> groups = parameter_groups(network, 0.8, lr_multipliers={"head": 2.0}, layer_decay=0.5)
        >>> [(group["lr"], len(group["params"])) for group in groups]
        [(0.2, 2), (0.4, 2), (0.8, 2), (1.6, 2)]
    """
    check_number(learning_rate, "learning_rate")
    if not learning_rate >= 0:
        raise ValueError(error_message("learning_rate", "be at least 0", learning_rate))
    check_number(layer_decay, "layer_decay")
    if not 0 < layer_decay <= 1:
        raise ValueError(error_message("layer_decay", "be in (0, 1]", layer_decay))
    factors = dict(lr_multipliers or {})
    for prefix, factor in factors.items():
        check_number(factor, f"lr_multipliers[{prefix!r}]")
        if not factor >= 0:
            raise ValueError(error_message(f"lr_multipliers[{prefix!r}]", "be at least 0", factor))
    names = [name for name, _ in network.named_parameters()]
    for prefix in factors:
        if not any(_under(name, prefix) for name in names):
            children = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                error_message("lr_multipliers", f"name parts of the network, such as {children}", repr(prefix))
            )
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
    """By parameter, how many layers lie between it and the end of its encoder."""
    encoders: dict[str, list[str]] = {}
    for name in names:
        encoders.setdefault(name.split(".")[0], []).append(name)
    result: dict[str, int] = {}
    for encoder in encoders.values():
        positions, count = layer_positions(encoder)
        result |= {name: max(0, count - 1 - position) for name, position in positions.items()}
    return result
