"""Shared helpers: checks of arguments, ids, atomic writes, checksums, processes, training modes.

``checks``, ``checksums``, ``disk``, ``errors``, ``extras``, ``host``, ``ids`` and ``io`` need no more than Python; ``tensors``,
``threads``, ``distributed``, ``modes`` and ``batch_norm`` need torch. Each loads on first use.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = (
    "batch_norm",
    "checks",
    "checksums",
    "disk",
    "distributed",
    "errors",
    "extras",
    "host",
    "ids",
    "io",
    "modes",
    "tensors",
    "threads",
)


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
