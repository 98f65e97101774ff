"""Which layout published weights have, behind which prefix, and whether a model has what their configuration states."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from medvl.networks.encoders.hugging_face_files import model_config
from medvl.networks.nets import DualEncoder
from medvl.networks.reference.layouts import Layout, Unused, Weights
from medvl.utils.checks import error_message

_DEPTH = 3
"""The most parts of a prefix, as of ``net.clip.model.``."""
_FACTS = ("num_attention_heads", "hidden_act", "layer_norm_eps")
"""What changes the embeddings, and cannot be seen in the weights."""


def without_prefix(weights: Weights, layout: Layout) -> Weights:
    """The weights without the prefix that a wrapper, such as a LightningModule, put before the names of the model.

    It is that behind which the most names are of the layout, if none is without one. Names that do not begin with it, such as
    those of a loss, stay as they are.

    Example:
        >>> import torch
        >>> from medvl.networks.reference.load import SOURCES
        >>> weights = dict.fromkeys(("net.clip.visual.proj", "net.clip.ln_final.bias", "head.bias"), torch.ones(1))
        >>> list(without_prefix(weights, SOURCES["openai_clip"]))
        ['visual.proj', 'ln_final.bias', 'head.bias']
    """
    if _count(weights, layout):
        return weights
    parts = (name.split(".") for name in weights)
    prefixes = {".".join(part[:depth]) + "." for part in parts for depth in range(1, min(_DEPTH, len(part) - 1) + 1)}
    counts = {
        prefix: _count([name.removeprefix(prefix) for name in weights if name.startswith(prefix)], layout)
        for prefix in sorted(prefixes)
    }
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if not most or len(best) > 1:  # as of two models in one file
        return weights
    return {name.removeprefix(best[0]): value for name, value in weights.items()}


def best_source(names: Collection[str], sources: Mapping[str, Layout]) -> str | None:
    """The first layout that has the most of the names, if it has nine tenths of them."""
    counts = {source: _count(names, layout, unused=True) for source, layout in sources.items()}
    best = max(counts, key=lambda source: counts[source])
    return best if names and counts[best] >= 0.9 * len(names) else None


def _count(names: Collection[str], layout: Layout, unused: bool = False) -> int:
    """The number of names that a rule of the layout is for; without those of the logits and, if not asked for, the unused."""
    rules = layout.rules(names)
    found = [next((target for pattern, target in rules if re.match(pattern, name)), None) for name in names]
    return sum(
        unused if isinstance(target, Unused) else target is not None and not target.startswith("logit_")
        for target in found
    )


def check_config(model: DualEncoder, folder: Path) -> None:
    """Raise ``ValueError`` if the ``config.json`` of a folder states what the model's encoders have otherwise."""
    if not (folder / "config.json").is_file():
        return
    stated = model_config(folder)
    image = getattr(getattr(model.image_encoder.backbone, "model", None), "config", None)
    text = getattr(getattr(model.text_encoder, "model", None), "config", None)
    for encoder, own, part in (("image_encoder", image, "vision_config"), ("text_encoder", text, "text_config")):
        published: Any = getattr(stated, part, None)
        for fact in _FACTS:
            there, here = getattr(published, fact, None), getattr(own, fact, None)
            if None not in (there, here) and there != here:
                raise ValueError(error_message(f"{fact} of {encoder}", f"be {there!r}, as in {folder}", repr(here)))
