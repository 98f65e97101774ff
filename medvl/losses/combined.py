"""Weighted sum of losses over the network's output and the batch, as a MONAI trainer passes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from medvl.utils.checks import error_message

_LABELS = "give PrepareBatchImageText a label_policy, such as LabelPolicy()"
_OFFERED = {
    "image_labels": ("label", _LABELS),
    "text_labels": ("text_label", _LABELS),
    "weights": ("semantic_integrity", "give CombinedLoss argument_names={'weights': 'semantic_integrity'}"),
    "patch_mask": ("visible_mask", "give CombinedLoss argument_names={'patch_mask': 'visible_mask'}"),
}
"""Arguments of losses, what there may be for them under another name, and how they get it."""


class CombinedLoss(nn.Module):
    """Weighted sum of losses that get their arguments by name.

    Each term's ``forward`` gets every argument that has its name in the network's output, else in the batch. An
    argument with a default that is in neither (or is None there) keeps its default, so that ``logit_scale`` or
    ``image_ids`` are used where they exist. Where a term takes labels, weights or a patch mask and gets none, although there
    are finding states, a semantic integrity or a mask of visible patches for it, that is an error. ``terms`` holds each
    term's last value, unweighted and without gradient, for logs.

    Args:
        losses: name to loss, or to (loss, weight); a term that is None is left out, as one that a recipe takes off.
        argument_names: for arguments that the network or the batch has under another name, that name, as
            ``{"weights": "semantic_integrity"}``, or None for arguments that keep their defaults whatever there is. Other
            arguments have their own.

    Raises:
        TypeError: If ``losses`` is not a dictionary, or a term is neither a loss nor a (loss, weight) pair.
        ValueError: If there are no terms, or ``argument_names`` names an argument that no loss has.

    Example:
        >>> from medvl.losses import ImageTextContrastiveLoss
        >>> loss = CombinedLoss({"global": (ImageTextContrastiveLoss(temperature=1.0), 2.0)})
        >>> pred = {"image_embeds": torch.eye(2), "text_embeds": torch.eye(2)}
        >>> round(loss(pred, {"report": ["one", "two"]}).item(), 4)
        0.6265
        >>> round(loss.terms["global"].item(), 4)
        0.3133
    """

    def __init__(
        self, losses: Mapping[str, nn.Module | Sequence[Any]], argument_names: Mapping[str, str | None] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(losses, Mapping):
            raise TypeError(error_message("losses", "be a dictionary of losses by name", type(losses).__name__))
        losses = {name: term for name, term in losses.items() if term is not None}
        if not losses:
            raise ValueError(error_message("losses", "hold at least one loss", "none"))
        pairs = {name: _loss_and_weight(name, term) for name, term in losses.items()}
        # A ModuleDict would refuse names with a dot, and names of its own methods such as "keys".
        self.losses = nn.ModuleList(loss for loss, _ in pairs.values())
        self.weights = {name: weight for name, (_, weight) in pairs.items()}
        self.argument_names = dict(argument_names or {})
        self._check_argument_names()
        self.terms: dict[str, Tensor] = {}

    def _check_argument_names(self) -> None:
        """A misspelled argument would silently keep its default."""
        known = {argument for loss in self.losses for argument in inspect.signature(loss.forward).parameters}
        known |= set(_OFFERED)  # of a term that is left out
        for argument in self.argument_names:
            if argument not in known:
                raise ValueError(error_message("argument_names", "name arguments of the losses", repr(argument)))

    def used_names(self) -> set[str]:
        """Names that the terms look for in the network's output and in the batch.

        A scale or bias is not used by a loss that has a temperature or bias of its own.

        Example:
            >>> from medvl.losses import MaskedPatchLoss
            >>> sorted(CombinedLoss({"pixels": MaskedPatchLoss(16)}).used_names())
            ['image', 'patch_prediction', 'visible_mask']
        """
        names: set[str] = set()
        for loss in self.losses:
            options = getattr(loss, "options", {})
            own = {"logit_scale": "temperature", "logit_bias": "bias"}
            for argument in inspect.signature(loss.forward).parameters:
                if options.get(own.get(argument, "")) is None:
                    names.add(self.argument_names.get(argument, argument) or "")
        return names - {""}

    def forward(self, pred: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor:
        """Weighted sum of the terms.

        Args:
            pred: the network's output.
            batch: the batch, searched for what the network's output does not hold.

        Returns:
            A scalar.

        Raises:
            KeyError: If a term needs a name that neither has; the message lists what there is.
            ValueError: If a term takes labels, weights or a patch mask and gets none, although there are some under other
                names; the message says what to add.
            TypeError: If ``pred`` or ``batch`` is not a dictionary.
        """
        for name, value in (("pred", pred), ("batch", batch)):
            if not isinstance(value, Mapping):
                raise TypeError(error_message(name, "be a dictionary", type(value).__name__))
        values = {
            name: loss(**_arguments(name, loss, pred, batch, self.argument_names))
            for (name, loss) in zip(self.weights, self.losses, strict=True)
        }
        self.terms = {name: value.detach() for name, value in values.items()}
        return torch.stack([self.weights[name] * value.mean() for name, value in values.items()]).sum()

    def extra_repr(self) -> str:
        """The names and weights of the terms."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())


def _loss_and_weight(name: str, term: object) -> tuple[nn.Module, float]:
    loss, weight = term if isinstance(term, Sequence) and len(term) == 2 else (term, 1.0)
    if not isinstance(loss, nn.Module) or not isinstance(weight, Real):
        raise TypeError(error_message(f"losses[{name!r}]", "be a loss or a (loss, weight) pair", repr(term)))
    if not math.isfinite(weight):
        raise ValueError(error_message(f"the weight of losses[{name!r}]", "be finite", weight))
    return loss, float(weight)


def _arguments(
    name: str, loss: nn.Module, pred: Mapping[str, Any], batch: Mapping[str, Any], names: Mapping[str, str | None]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for argument in inspect.signature(loss.forward).parameters.values():
        key = names.get(argument.name, argument.name)
        if key is None:
            continue
        value = pred.get(key)
        value = batch.get(key) if value is None else value
        if value is not None:
            found[argument.name] = value
            continue
        offered, advice = _OFFERED.get(argument.name, ("", ""))
        owner = "network's output" if offered in pred else "batch" if offered in batch else None
        if argument.name not in names and owner is not None:
            raise ValueError(
                f"loss {name!r} ({type(loss).__name__}) takes {argument.name}, and the {owner} has {offered!r}: {advice}, or, "
                f"to train without, argument_names={{{argument.name!r}: None}}."
            )
        if argument.default is argument.empty and argument.kind not in (
            argument.VAR_POSITIONAL,
            argument.VAR_KEYWORD,
        ):
            raise KeyError(
                f"loss {name!r} ({type(loss).__name__}) needs {key!r}; the network's output has "
                f"{sorted(map(str, pred))} and the batch has {sorted(map(str, batch))}."
            )
    return found
