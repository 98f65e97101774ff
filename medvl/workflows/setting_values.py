"""Which values the settings of a recipe may have, checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from medvl.utils.checks import (
    check_fraction,
    check_integer,
    check_non_negative,
    check_number,
    check_positive,
    error_message,
)
from medvl.utils.distributed import get_world_size


def _check_norm(value: Any, name: str) -> None:
    check_number(value, name)
    if not value > 0:  # infinity clips nothing
        raise ValueError(error_message(name, "be above 0", value))


def _check_batch_size(value: Any, name: str) -> None:
    check_integer(value, name, minimum=1)
    if value < 2 and get_world_size() == 1:
        raise ValueError(error_message(name, "be at least 2, since one study has none to be contrasted with", value))


def _check_device(value: Any, name: str) -> None:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(error_message(name, "be the name of a device, as cpu or cuda", repr(value))) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(error_message(name, "be a device that torch finds here (no CUDA device)", repr(str(value))))


_AT_LEAST_0 = partial(check_integer, minimum=0)
_AT_LEAST_1 = partial(check_integer, minimum=1)
CHECKS: dict[str, Callable[[Any, str], None]] = {
    "epochs": _AT_LEAST_1,
    "batch_size": _check_batch_size,
    "num_texts": _AT_LEAST_1,
    "cached_chunk": _AT_LEAST_1,
    "image_size": _AT_LEAST_1,
    "seed": _AT_LEAST_0,
    "learning_rate": check_non_negative,  # 0: nothing is learned, as a control
    "weight_decay": check_non_negative,
    "warmup_fraction": check_fraction,
    "max_grad_norm": _check_norm,
    "flip_prob": check_fraction,
    "val_interval": _AT_LEAST_1,
    "patience": _AT_LEAST_1,
    "checkpoint_interval": _AT_LEAST_1,
    "embed_dim": _AT_LEAST_1,
    "vocab_size": _AT_LEAST_1,
    "min_word_patients": _AT_LEAST_0,
    "max_length": _AT_LEAST_1,
    "num_workers": _AT_LEAST_0,
    "cache_bytes": _AT_LEAST_0,
    "synthetic_length": _AT_LEAST_1,
    "texts_per_study": _AT_LEAST_1,
    "prompts_per_study": _AT_LEAST_0,
    "text_augment_prob": check_fraction,
    "target_temperature": check_positive,
    "device": _check_device,
}
"""The check of each setting, which is called with its value and its name; a setting that is null is not checked."""


def check_setting_values(settings: Mapping[str, Any]) -> None:
    """Raise where a setting of a recipe has a value with which it could not be trained, or would learn nothing.

    Args:
        settings: values by the name of the setting, expressions evaluated; others than those of :data:`CHECKS` are ignored.

    Raises:
        TypeError: If a value is not a number where there must be one.
        ValueError: If a value is out of its range.

    Example:
        >>> check_setting_values({"epochs": 0})
        Traceback (most recent call last):
        ValueError: epochs must be at least 1, got 0.
    """
    for name, value in settings.items():
        if value is not None and name in CHECKS:
            CHECKS[name](int(value) if isinstance(value, float) and value.is_integer() else value, name)
