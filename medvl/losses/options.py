"""Options that the contrastive losses share, checked at construction rather than at the first batch."""

from __future__ import annotations

from typing import Any

from torch import nn

from medvl.functional.reduction import REDUCTIONS
from medvl.functional.tiled import check_tile_size
from medvl.utils.checks import check_fraction, check_option, check_positive


class ContrastiveOptions(nn.Module):
    """Base of the contrastive losses: stores options and shows them; has no parameters.

    Args:
        temperature: above 0, in place of the network's ``logit_scale``; None takes that, or the loss's default.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        gather: contrast the batches of all processes; see
            :func:`medvl.utils.distributed.all_gather_with_grad` on gradients.
        tile_size: texts in one tile, ``"auto"``, or None for the plain loss.
        more: further options of the loss.
    """

    def __init__(
        self, temperature: float | None, reduction: str, gather: bool, tile_size: int | str | None, **more: Any
    ):
        super().__init__()
        if temperature is not None:
            check_positive(temperature, "temperature")
        check_option(reduction, "reduction", REDUCTIONS)
        check_tile_size(tile_size)
        if "image_weight" in more:
            check_fraction(more["image_weight"], "image_weight")
        self.options = {
            "temperature": temperature,
            **more,
            "reduction": reduction,
            "gather": gather,
            "tile_size": tile_size,
        }

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
