"""The registered public data sets, and locations ``NAME:PATH`` that name one of them."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import medvl.data.public
from medvl.data.manifest import Manifest
from medvl.data.public.base import PublicDataset
from medvl.utils.checks import check_option, error_message

DatasetType = TypeVar("DatasetType", bound=type[PublicDataset])
_REGISTRY: dict[str, type[PublicDataset]] = {}
_BOOLEANS = {"true": True, "false": False}


def register_public_dataset(name: str) -> Callable[[DatasetType], DatasetType]:
    """Class decorator that makes a data set available as ``NAME:PATH``.

    Args:
        name: the name before the colon, of at least two characters (one letter is a Windows drive).

    Raises:
        ValueError: If the name is too short, has a colon, a comma or an equals sign, or is taken.
    """
    if len(name) < 2 or set(":,=") & set(name) or name in _REGISTRY:
        raise ValueError(error_message("name", "be a new name of at least two characters without a colon", repr(name)))

    def register(dataset: DatasetType) -> DatasetType:
        _REGISTRY[name] = dataset
        return dataset

    return register


def public_datasets() -> Mapping[str, type[PublicDataset]]:
    """The registered data sets by name, those of every module of ``medvl.data.public`` among them.

    Example:
        >>> "chexpert" in public_datasets()
        True
    """
    for module in pkgutil.iter_modules(medvl.data.public.__path__):
        importlib.import_module(f"{medvl.data.public.__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))  # whatever was imported first


@dataclass(frozen=True)
class PublicLocation:
    """A public data set and where it is: ``NAME:PATH``, or with options ``NAME,OPTION=VALUE:PATH``.

    Args:
        name: the name under which the data set is registered.
        path: its folder or archive.
        options: arguments of its class.
    """

    name: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def absolute(self) -> PublicLocation:
        """The same location from any folder; options that are paths which exist are made absolute, too."""
        options = {
            name: os.path.abspath(value) if isinstance(value, str) and os.sep in value else value
            for name, value in self.options.items()
        }
        return PublicLocation(self.name, os.path.abspath(os.path.expanduser(self.path)), options)

    def __str__(self) -> str:
        options = "".join(f",{name}={_option_text(value)}" for name, value in self.options.items())
        return f"{self.name}{options}:{self.path}"

    def open(self, on_error: str = "raise") -> PublicDataset:
        """The data set.

        Args:
            on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies.
        """
        return public_datasets()[self.name](self.path, **self.options, on_error=on_error)

    def read(self, on_error: str = "raise") -> Manifest:
        """All its studies as a :class:`~medvl.data.Manifest`, each view a dictionary of its own.

        Args:
            on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies.

        Raises:
            FileNotFoundError: If there is no study at the path, or a file of the layout is missing.
        """
        return self.open(on_error).to_manifest(f"{self.name}:{Path(self.path).name}")


def parse_public_location(location: str | Path, argument: str = "source") -> PublicLocation | None:
    """Parse ``NAME:PATH`` of a public data set.

    Options of the data set's class stand behind its name, several values joined by ``+``:
    ``mimic-cxr,views=PA+AP,labeler=negbio:PATH``.

    Args:
        location: the text; a table, a folder or "synthetic" are no such locations.
        argument: its name, for the error.

    Returns:
        The location; None for anything that does not begin with a name and a colon, and for a path that exists.

    Raises:
        ValueError: If the name before a colon is not that of a public data set, an option is unknown, or no path is given.

    Example:
        >>> parse_public_location("mimic-cxr,views=PA+AP:/data/mimic")
        PublicLocation(name='mimic-cxr', path='/data/mimic', options={'views': ('PA', 'AP')})
        >>> parse_public_location("cases.csv") is None
        True
    """
    head, colon, path = str(location).partition(":")
    name, *pairs = head.split(",")
    if not colon or len(name) < 2 or os.sep in name:  # a single letter is a drive
        return None
    datasets = public_datasets()
    if name not in datasets:
        if Path(location).exists():
            return None
        expected = f"begin with one of {', '.join(datasets)} before the colon"
        raise ValueError(error_message(argument, expected, repr(str(location))))
    if not path.strip():
        raise ValueError(error_message(argument, f"have a path after {name}:", repr(str(location))))
    return PublicLocation(name, path, dict(_parse_option(name, datasets[name], pair) for pair in pairs))


def _parse_option(name: str, dataset: type[PublicDataset], pair: str) -> tuple[str, Any]:
    key, sign, text = pair.partition("=")
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(dataset).parameters.items()
        if option not in ("path", "on_error")
    }
    if not sign:
        raise ValueError(error_message(f"option of {name}", "be OPTION=VALUE", repr(pair)))
    check_option(key, f"option of {name}", tuple(known))
    default = known[key]
    if isinstance(default, bool):
        check_option(text, key, tuple(_BOOLEANS))
        return key, _BOOLEANS[text]
    if isinstance(default, int):
        if not text.isdecimal():
            raise ValueError(error_message(key, "be an integer", repr(text)))
        return key, int(text)
    return key, tuple(text.split("+")) if "+" in text and os.sep not in text else text


def _option_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else "+".join(value) if isinstance(value, tuple | list) else str(value)
