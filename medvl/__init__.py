"""medvl: parts for medical vision-language learning that plug into MONAI workflows.

Sub-packages load on first use, so that ``from medvl.losses import ImageTextContrastiveLoss`` costs what ``import torch``
costs: it imports neither monai nor transformers.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = (
    "bundles",
    "data",
    "engines",
    "evaluation",
    "functional",
    "handlers",
    "inferers",
    "losses",
    "metrics",
    "networks",
    "text",
    "transforms",
    "utils",
    "workflows",
)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
