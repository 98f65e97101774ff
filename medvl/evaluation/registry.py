"""The registered evaluation protocols.

A protocol is one file of :mod:`medvl.evaluation.protocols`. The file's name, with hyphens, is the protocol's name; the file
registers it and lists its public names in ``__all__``. Nothing else has to be edited: the command line, the evaluation, its
files and its report find it here. This module imports no protocol before it is asked for one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from medvl.evaluation import protocols
from medvl.utils.checks import check_option, error_message

if TYPE_CHECKING:
    from medvl.evaluation.context import ProtocolContext
    from medvl.evaluation.results import ProtocolResult

REQUIREMENTS = {
    "labels": "labels; name their columns by --label-column",
    "reports": "reports; name their column by --report-column",
    "masks": "masks; name their columns by --mask-column",
    "training": "studies both to train on and to test on",
    "validation": "studies in its validation split",
}
"""What a protocol may require of the data, with the words of the error where it is missing."""

OPTIONS = {"classes": "--class", "mask_columns": "--mask-column"}
"""Options of an evaluation that concern some protocols only, and their names on the command line."""


BENCHMARK_NAMES = ("chexpert-5x200", "chexpert-8x200", "rsna", "siim", "ms-cxr", "ct-rate")
"""The names of :data:`medvl.evaluation.benchmarks.BENCHMARKS`, without importing them."""


@dataclass(frozen=True)
class Protocol:
    """How an evaluation runs one protocol.

    Args:
        name: that of its file, with hyphens.
        run: function from what there is to evaluate to the result; None where the data do not suffice after all.
        requires: what the data must have, keys of :data:`~medvl.evaluation.registry.REQUIREMENTS`.
        options: the options that it takes, keys of :data:`~medvl.evaluation.registry.OPTIONS`.
        on_request: whether it runs only where it, or one of its options, is asked for.
        order: its place in tables and reports, from low to high, then by name.

    Raises:
        ValueError: If a requirement or an option is unknown.
    """

    name: str
    run: Callable[[ProtocolContext], ProtocolResult | None]
    requires: Sequence[str] = ()
    options: Sequence[str] = ()
    on_request: bool = False
    order: int = 100

    def __post_init__(self) -> None:
        for requirement in self.requires:
            check_option(requirement, "requires", tuple(REQUIREMENTS))
        for option in self.options:
            check_option(option, "options", tuple(OPTIONS))

    @property
    def key(self) -> str:
        """Its key in ``evaluation.json``."""
        return self.name.replace("-", "_")


_REGISTERED: dict[str, Protocol] = {}


def register_protocol(protocol: Protocol) -> None:
    """Add a protocol.

    Raises:
        ValueError: If another protocol of this name is registered.
    """
    if _REGISTERED.setdefault(protocol.name, protocol).run.__module__ != protocol.run.__module__:
        raise ValueError(error_message("name", "differ from those of the registered protocols", repr(protocol.name)))
    _REGISTERED[protocol.name] = protocol


def protocol_names() -> list[str]:
    """The names of all protocols, in alphabetical order, without importing any."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(protocols.__path__))


def protocol_modules() -> list[ModuleType]:
    """The modules of all protocols."""
    return [importlib.import_module(f"{protocols.__name__}.{name.replace('-', '_')}") for name in protocol_names()]


def registered_protocols() -> list[Protocol]:
    """All protocols, in the order in which they are run and shown."""
    protocol_modules()
    return sorted(_REGISTERED.values(), key=lambda protocol: (protocol.order, protocol.name))


def choose_protocols(names: Sequence[str] | None, context: ProtocolContext) -> list[Protocol]:
    """The protocols asked for, or those that the data permit.

    Args:
        names: of protocols; None for every one whose requirements are met and that does not wait to be asked for.
        context: what there is to evaluate.

    Returns:
        The protocols, in the order of :func:`registered_protocols`.

    Raises:
        ValueError: If a name is unknown, the data do not permit a protocol asked for or permit none, or an option was given
            that none of the protocols takes.
    """
    registered = {protocol.name: protocol for protocol in registered_protocols()}
    if names is None:
        chosen = [
            protocol
            for protocol in registered.values()
            if all(context.has(requirement) for requirement in protocol.requires)
            and (not protocol.on_request or any(context.options.get(option) for option in protocol.options))
        ]
        if not chosen:
            raise ValueError(f"{context.data_name} has neither labels nor reports to evaluate on; name their columns.")
        return chosen
    for name in names:
        check_option(name, "--protocol", tuple(registered))
        for requirement in registered[name].requires:
            if not context.has(requirement):
                raise ValueError(f"--protocol {name}: {context.data_name} has no {REQUIREMENTS[requirement]}.")
    for option, given in context.options.items():
        takers = [name for name, protocol in registered.items() if option in protocol.options]
        if given and not set(takers) & set(names):
            raise ValueError(
                f"{OPTIONS[option]} is for --protocol {' or '.join(takers)}, got --protocol {' '.join(names)}."
            )
    return [protocol for name, protocol in registered.items() if name in names]
