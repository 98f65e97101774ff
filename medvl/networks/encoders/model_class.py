"""The Hugging Face class of a configuration."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import MODEL_MAPPING, PretrainedConfig


def model_class(config: PretrainedConfig) -> Any:
    """The class without a head that belongs to a configuration; one tower's is often not in transformers' own table.

    Raises:
        ValueError: where there is none.
    """
    if type(config) in MODEL_MAPPING:
        known = MODEL_MAPPING[type(config)]
        return known[0] if isinstance(known, tuple) else known
    name = type(config).__name__.replace("Config", "Model")
    found = getattr(transformers, name, None)
    if found is None:
        raise ValueError(f"transformers has no {name} for the configuration, a {type(config).__name__}.")
    return found
