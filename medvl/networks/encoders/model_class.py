"""The Hugging Face class of a configuration."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import MODEL_MAPPING, PretrainedConfig


def model_class(config: PretrainedConfig) -> Any:
    """The class of the model without a head; transformers' mapping often lacks those of single encoders.

    Raises:
        ValueError: If transformers has no such class.
    """
    if type(config) in MODEL_MAPPING:
        known = MODEL_MAPPING[type(config)]
        return known[0] if isinstance(known, tuple) else known
    name = type(config).__name__.replace("Config", "Model")
    found = getattr(transformers, name, None)
    if found is None:
        raise ValueError(f"transformers has no {name} for the configuration, a {type(config).__name__}.")
    return found
