"""Objects written down as the class that made them and its arguments, and made again from that without running other code.

A description is plain data for JSON: ``{"_target_": "package.module.Class", "argument": value, ...}``, as in MONAI's
configurations, but never an expression. What a file describes is made only from classes that the caller allows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from medvl.utils.checks import error_message

TARGET, DTYPE = "_target_", "_dtype_"

_stated: WeakKeyDictionary[Any, tuple[str, dict[str, Any]]] = WeakKeyDictionary()


def state_target(made: Any, target: str, arguments: Mapping[str, Any]) -> None:
    """Remember what made an object: the name of a class or function, and the arguments."""
    _stated[made] = (target, dict(arguments))


def describe(made: Any) -> dict[str, Any]:
    """The description of an object that :func:`state_target` knows.

    Args:
        made: the object.

    Returns:
        Plain data for JSON, from which :func:`make` makes an equal object.

    Raises:
        ValueError: If it is not known what made the object, or an argument is not plain data.

    Example:
        >>> linear = torch.nn.Linear(2, 3)
        >>> state_target(linear, "torch.nn.Linear", {"in_features": 2, "out_features": 3})
        >>> describe(linear)
        {'_target_': 'torch.nn.Linear', 'in_features': 2, 'out_features': 3}
    """
    try:
        target, arguments = _stated[made]
    except (KeyError, TypeError):
        raise ValueError(f"what made the {type(made).__name__} is not known.") from None
    return {TARGET: target, **{name: _plain(value, f"{target}({name})") for name, value in arguments.items()}}


def describe_as(made: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an object by its class and these arguments.

    Raises:
        ValueError: If an argument is not plain data.
    """
    target = f"{type(made).__module__}.{type(made).__qualname__}"
    return {TARGET: target, **{name: _plain(value, f"{target}({name})") for name, value in arguments.items()}}


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float) or type(value) is str:
        return value
    if isinstance(value, Enum):
        return _plain(value.value, name)
    if isinstance(value, str | Path):
        return str(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", None):
        return value.item()
    if isinstance(value, torch.dtype):
        return {DTYPE: str(value)}
    # MONAI takes torch's dtypes wherever it takes NumPy's.
    numpy_dtype = getattr(value, "__name__" if isinstance(value, type) else "name", None)
    if (value if isinstance(value, type) else type(value)).__module__.partition(".")[0] == "numpy" and isinstance(
        getattr(torch, str(numpy_dtype), None), torch.dtype
    ):
        return {DTYPE: f"torch.{numpy_dtype}"}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, name) for key, item in value.items()}
    try:
        return describe(value)
    except ValueError:
        raise ValueError(f"the argument {name} is a {type(value).__name__}, which is not plain data.") from None


@dataclass(frozen=True)
class Allowed:
    """What a description may name without trust in a package.

    Args:
        kind: the class that objects must be instances of.
        modules: the modules, with those below them, in which a target is looked up; no other is imported.
        accepts: whether one of their classes may be made.
    """

    kind: type
    modules: tuple[str, ...]
    accepts: Callable[[type], bool] = lambda _: True


def make(description: Mapping[str, Any], allowed: Allowed, trusted_packages: Sequence[str] = ()) -> Any:
    """Make the object that a description describes.

    Arguments are taken as they stand, never evaluated, but for descriptions of further objects.

    Args:
        description: of :func:`describe`, perhaps from a file that nobody has checked.
        allowed: what it may name.
        trusted_packages: packages of which any code may be imported and run.

    Returns:
        The object.

    Raises:
        ValueError: If the target is not allowed, does not exist, or does not make an object of the kind.
    """
    if not isinstance(description, Mapping) or not isinstance(description.get(TARGET), str):
        raise ValueError(error_message("description", f"be a dictionary with {TARGET}", repr(description)))
    target = description[TARGET]
    found = find_target(target, allowed, trusted_packages)
    arguments = {name: value for name, value in description.items() if name != TARGET}
    try:
        made = found(**{name: _made(value, allowed, trusted_packages) for name, value in arguments.items()})
    except TypeError as error:
        raise ValueError(f"{target} cannot be made from its description: {error}.") from error
    if not isinstance(made, allowed.kind):
        raise ValueError(error_message(target, f"make a {allowed.kind.__name__}", type(made).__name__))
    state_target(made, target, arguments)
    return made


def find_target(target: str, allowed: Allowed, trusted_packages: Sequence[str] = ()) -> Any:
    """The class or function with this name, if it is allowed; see :func:`make`."""
    package = target.partition(".")[0]
    advice = f"name it in trusted_packages (on the command line --trust-package {package})"
    if package in trusted_packages:
        return _look_up(target)
    if not any(target.startswith(f"{module}.") for module in allowed.modules):
        raise ValueError(f"{target} is code of the package {package}, which is run only if you trust it: {advice}.")
    found = _look_up(target)
    if not (isinstance(found, type) and issubclass(found, allowed.kind) and allowed.accepts(found)):
        raise ValueError(f"{target} may not be named by a file; if you trust it and the package {package}, {advice}.")
    return found


def _look_up(target: str) -> Any:
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ValueError(error_message("target", "be the dotted name of a class", repr(target)))
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise ValueError(f"{target} does not exist here: its package is not installed, or in another version.")


def _made(value: Any, allowed: Allowed, trusted_packages: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_made(item, allowed, trusted_packages) for item in value]
    if not isinstance(value, Mapping):
        return value
    if TARGET in value:
        return make(value, allowed, trusted_packages)
    if set(value) == {DTYPE}:
        dtype = getattr(torch, str(value[DTYPE]).removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(error_message(DTYPE, "be a dtype of torch", repr(value[DTYPE])))
        return dtype
    return {key: _made(item, allowed, trusted_packages) for key, item in value.items()}
