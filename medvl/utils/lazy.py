"""Packages whose names load their modules on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports a module when one of its names is first asked for.

    Args:
        package: ``__name__`` of the package.
        modules: by exported name, the module of the package that defines it.

    Example:
        >>> load, names = lazy_exports("medvl.utils", {"hash_id": "ids"})
        >>> load("hash_id").__module__, "hash_id" in names()
        ('medvl.utils.ids', True)
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return load, names
