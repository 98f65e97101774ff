"""The docstrings of the public names give the shape of every array, and their equations keep their lines."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import medvl

PACKAGES = sorted(path.parent.name for path in Path(medvl.__file__).parent.glob("*/__init__.py"))
ARRAY = re.compile(r"\b(?:Tensor|MetaTensor|ndarray|NdarrayOrTensor|NdarrayTensor|NDArray)\b")
SIZE = r"(?:\*?[A-Z]\w?'?|\d+|\.\.\.|[hwdkn]|n_\w+|size|pixels|`*in_channels`*|len\(\w+\))(?: [-+*] \w+)?"
SHAPE = re.compile(rf"(?<![\w`])\((?:{SIZE}(?:,\s+{SIZE}|\[, \w\])*,?)?\)|\bscalars?\b|\b(?:any|same|the) shape\b")
"""``(N, D)``, ``(N,)``, ``(N, H, W[, D])`` and ``()``, or words: a scalar, any shape, the shape of another argument."""

ELSEWHERE = re.compile(r"\bshapes\b[^.]* those of\s+:(?:class|func|meth):`~?(medvl(?:\.\w+)+)`")
"""A docstring that leaves its arguments to that of another name."""


def sections(docstring: str) -> dict[str, str]:
    """The text of a docstring by section; "" is what comes before the first."""
    parts = re.split(r"^(\w+):\n(?=    )", inspect.cleandoc(docstring), flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def arguments(section: str) -> dict[str, str]:
    """The entries of ``Args`` by name; "a, b: ..." is an entry of both."""
    entries = re.split(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", section, flags=re.M)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {name.strip(" *"): text for names, text in pairs for name in names.split(",")}


def docstrings(function: Callable[..., Any], docstring: str, owner: type | None) -> Iterator[str]:
    """The docstring, that to which it refers, and those of the methods that the function overrides."""
    yield docstring
    if found := ELSEWHERE.search(" ".join(docstring.split())):
        package, name = found[1].rsplit(".", 1)
        other = getattr(importlib.import_module(package), name)
        yield inspect.getdoc(other) or ""
        yield inspect.getdoc(getattr(other, "forward", other)) or ""
    for base in owner.__mro__[1:] if owner else ():
        if base.__module__.startswith("medvl.") and (method := vars(base).get(function.__name__)):
            yield inspect.getdoc(method) or ""


def without_shape(function: Callable[..., Any], docstring: str, owner: type | None = None) -> list[str]:
    """The arrays of a signature whose shape no docstring gives: names of arguments, and "return"."""
    docs = [sections(text) for text in docstrings(function, docstring, owner)]
    signature = inspect.signature(function)
    missing = []
    for name, parameter in signature.parameters.items():
        if ARRAY.search(str(parameter.annotation)):
            entries = [arguments(doc["Args"]).get(name, "") if "Args" in doc else doc[""] for doc in docs]
            missing += [] if any(map(SHAPE.search, entries)) else [name]
    if ARRAY.search(str(signature.return_annotation)) and function.__name__ != "__init__":
        texts = [doc.get("Returns", doc.get("Yields", doc[""])) for doc in docs]
        missing += [] if any(map(SHAPE.search, texts)) else ["return"]
    return missing


def public_names(package: str) -> list[str]:
    module = importlib.import_module(f"medvl.{package}")
    return [f"{package}.{name}" for name in getattr(module, "__all__", [])]


def callables(name: str) -> Iterator[tuple[str, Callable[..., Any], str, type | None]]:
    """A public function, or the constructor and the public methods and properties of a class, with their docstrings."""
    package, attribute = name.split(".")
    value = getattr(importlib.import_module(f"medvl.{package}"), attribute)
    if inspect.isfunction(value):
        yield name, value, value.__doc__ or "", None
    elif inspect.isclass(value):
        if inspect.isfunction(value.__init__):
            yield name, value.__init__, value.__doc__ or "", None
        for key, member in vars(value).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not key.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{key}", function, function.__doc__ or "", value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_array_of_a_public_name_has_its_shape(package):
    found = {
        name: missing
        for public in public_names(package)
        for name, function, docstring, owner in callables(public)
        if (missing := without_shape(function, docstring, owner))
    }
    assert found == {}


def running_equations(docstring: str) -> list[str]:
    """Indented paragraphs that are no literal block: their lines would be joined to prose."""
    parts = re.split(r"\n\s*\n", sections(docstring)[""])
    return [part for before, part in pairwise(parts) if part.startswith("    ") and not before.endswith("::")]


@pytest.mark.parametrize("package", PACKAGES)
def test_equations_are_literal_blocks(package):
    names = [(name, docstring) for public in public_names(package) for name, _, docstring, _ in callables(public)]
    assert {name: found for name, docstring in names if (found := running_equations(docstring))} == {}


def test_an_equation_in_prose_is_found():
    literal = "Sum it.\n\nWith terms l_i::\n\n    L = sum_i l_i,\n\nthe sum.\n\nArgs:\n    a: one.\n\n    More of it.\n"
    assert running_equations(literal) == []
    assert running_equations(literal.replace("::", ",")) == ["    L = sum_i l_i,"]


def test_a_shape_that_is_taken_away_is_missed():
    """Of every docstring with a section for arguments, and of each argument on its own."""
    tried = 0
    for public in [name for package in PACKAGES for name in public_names(package)]:
        for name, function, docstring, owner in callables(public):
            doc = sections(docstring)
            for argument, text in arguments(doc.get("Args", "")).items():
                parameter = inspect.signature(function).parameters.get(argument)
                alone = f"    {argument}:{text}" in doc["Args"]  # else an entry of several names
                if parameter is None or not ARRAY.search(str(parameter.annotation)) or not alone or owner:
                    continue
                bare = docstring.replace(text, SHAPE.sub("", text)) if text in docstring else None
                if bare is None:  # indented further in the source
                    bare = inspect.cleandoc(docstring).replace(text, SHAPE.sub("", text))
                assert argument in without_shape(function, bare), name
                tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("docstring", "missing"),
    [
        ("Do it.\n\nArgs:\n    a: one (N, D).\n    b: two, of any shape.\n\nReturns:\n    Three (N,).\n", []),
        ("Do it.\n\nArgs:\n    a: one (N, D).\n    b: two.\n\nReturns:\n    A scalar.\n", ["b"]),
        (
            "Do it.\n\nArgs:\n    a: one (or more).\n    b: (see above).\n\nReturns:\n    A tensor.\n",
            ["a", "b", "return"],
        ),
        ("Do it, for (N, D).\n\nArgs:\n    b: two ().\n\nReturns:\n    The mean ().\n", ["a"]),
        ("Images (N, C, H, W) to vectors (N, D).", []),
        ("Images to vectors.", ["a", "b", "return"]),
        ("Images to f(a, b), g() and h(N).", ["a", "b", "return"]),
        ("Do it. Arguments and shapes are those of :class:`medvl.losses.MaskedPatchLoss`.", ["a", "b"]),  # has no a, b
        ("", ["a", "b", "return"]),
    ],
)
def test_missing_shapes_are_found(docstring, missing):
    def function(a: Any, b: Any, c: int = 0) -> Any:
        """Its docstring is the argument."""

    function.__annotations__ = {"a": "Tensor", "b": "np.ndarray | None", "c": "int", "return": "torch.Tensor"}
    assert without_shape(function, docstring) == missing
