"""The layers of an encoder, by the names of its parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Where a layer's number stands in the names of parameters: BERT's and ViT's blocks, ResNet's, Swin's and ConvNeXt's stages.
_LAYER = re.compile(r"(?:^|\.)_?(?:stages?|layers?|blocks?|h|denseblock)\.?(\d+)(?=\.)")


def layer_positions(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """The layer that each parameter of one encoder belongs to.

    A layer is what has the first number in a parameter's name. What lies between two layers belongs to the second.

    Args:
        names: of the parameters, in their order from the input to the output.

    Returns:
        By name the position of its layer, from 0: -1 before the first layer, as embeddings, and the number of layers after the
        last. And the number of layers L. Without a layer all have position 0 and L is 0.

    Example:
        >>> layer_positions(["conv1.weight", "layer1.0.weight", "layer2.0.weight", "layer2.1.weight", "norm.weight"])
        ({'conv1.weight': -1, 'layer1.0.weight': 0, 'layer2.0.weight': 1, 'layer2.1.weight': 1, 'norm.weight': 2}, 2)
    """
    found = {name: int(match[1]) for name in names if (match := _LAYER.search(name))}
    order = {number: position for position, number in enumerate(sorted(set(found.values())))}
    positions, following = {}, len(order)
    for name in reversed(names):
        following = order[found[name]] if name in found else following
        positions[name] = following
    for name in names:
        if name in found:
            break
        positions[name] = -1 if order else 0
    return {name: positions[name] for name in names}, len(order)


# A whole block: the number ends the name.
_BLOCK = re.compile(r"(?:^|\.)_?(?:stages?|layers?|blocks?|h|denseblock)\d*\.(?:denselayer)?\d+$")


def block_names(names: Sequence[str]) -> list[str]:
    """The names of those modules of an encoder that are its blocks, without the blocks inside them.

    Example:
        >>> block_names(["conv1", "layer1", "layer1.0", "layer1.0.conv1", "layer1.1", "layer2.0", "norm"])
        ['layer1.0', 'layer1.1', 'layer2.0']
    """
    found: list[str] = []
    for name in names:
        if _BLOCK.search(name) and not any(name.startswith(f"{block}.") for block in found):
            found.append(name)
    return found
