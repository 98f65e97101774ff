"""Gradient checkpointing of a backbone's blocks."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from medvl.utils.batch_norm import kept_statistics
from medvl.utils.checks import error_message
from medvl.utils.layers import block_names


def set_checkpointing(backbone: Any, enabled: bool) -> None:
    """Turn gradient checkpointing of a backbone's blocks on or off.

    Args:
        backbone: a backbone of MONAI or Hugging Face, or another with blocks under usual names, as ``layer1.0``.
        enabled: whether to checkpoint.

    Raises:
        ValueError: If there are no such blocks.
    """
    model = getattr(backbone, "model", None)
    if hasattr(model, "gradient_checkpointing_enable"):
        set_hugging_face_checkpointing(model, enabled)
        return
    modules = dict(backbone.named_modules())
    blocks = [modules[name] for name in block_names(list(modules))]
    if not blocks:
        raise ValueError(error_message("backbone", "have a list of blocks to be checkpointed", type(backbone).__name__))
    for block in blocks:
        checkpointed = hasattr(block, "checkpointed_class")
        if enabled and not checkpointed:
            kind: Any = type(block)
            block.__class__ = _checkpointed(kind)
        elif checkpointed and not enabled:
            block.__class__ = block.checkpointed_class


def set_hugging_face_checkpointing(model: Any, enabled: bool) -> None:
    """The same for a Hugging Face model."""
    if enabled:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


@cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass whose forward pass is checkpointed in training; a block keeps its parameters, names and copies under it."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return kind.forward(self, *args, **kwargs)
        return checkpoint(
            kind.forward,
            self,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), kept_statistics(self)),
            **kwargs,
        )

    return type(kind.__name__, (kind,), {"forward": forward, "checkpointed_class": kind, "__module__": kind.__module__})
