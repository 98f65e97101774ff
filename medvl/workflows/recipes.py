"""Runs a recipe's bundle, as ``python -m monai.bundle run`` does."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

FOLDER = Path(__file__).parent.parent / "bundles"

logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns of every run without a logging.conf


def recipes() -> list[str]:
    """The names of the recipes."""
    return sorted(path.parent.parent.name for path in FOLDER.glob("*/configs/train.yaml"))


def recipe_config(recipe: str, name: str = "train") -> Path:
    """The configuration file ``name``.yaml of a recipe.

    Raises:
        ValueError: an unknown recipe.
    """
    if recipe not in recipes():
        raise ValueError(f"recipe must be one of {', '.join(recipes())}, received {recipe!r}.")
    return FOLDER / recipe / "configs" / f"{name}.yaml"


def train(recipe: str, overrides: Mapping[str, Any] | None = None) -> Path:
    """Trains a recipe.

    Args:
        recipe: its name, as "convirt".
        overrides: values in place of those in the recipe's ``train.yaml``, by key; a key within another is written
            ``outer#inner``.

    Returns:
        The run's folder.

    Raises:
        ValueError: an unknown recipe, a key that the recipe does not have, or a value that is no number where one stood.
    """
    overrides = dict(overrides or {})
    workflow = ConfigWorkflow(str(recipe_config(recipe)), logging_file=False, workflow_type="train")
    if "sources" in overrides and "sources" not in workflow.parser:
        others = " and ".join(name for name in recipes() if "sources" in _settings(name))
        raise ValueError(
            f"{recipe} learns from images paired with their reports, one table given as --data; --source is for {others}."
        )
    for key in overrides:
        outer = key.rpartition("#")[0]  # a component takes arguments that its file does not mention
        if key not in workflow.parser and not (outer and outer in workflow.parser):
            near = difflib.get_close_matches(key, [str(known) for known in workflow.parser.get()], 1)
            raise ValueError(f"{recipe} has no setting {key!r}{f', did you mean {near[0]!r}?' if near else '.'}")
        _check_kind(key, overrides[key], workflow.parser.get(key))
    workflow.parser.update(overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return Path(workflow.parser["output"])


def _check_kind(key: str, value: Any, default: Any) -> None:
    """A number in place of a number, yes or no in place of yes or no; an expression or null may stand for anything."""
    if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, received {value!r}.")
    whole = isinstance(default, int)
    if _is_number(default) and not (_is_number(value) and (not whole or float(value).is_integer())):
        raise ValueError(f"{key} must be a {'whole ' * whole}number, as {default}, received {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _settings(recipe: str) -> dict[str, Any]:
    """What a recipe's ``train.yaml`` says."""
    return ConfigParser.load_config_file(str(recipe_config(recipe)))


def demo_overrides(recipe: str) -> dict[str, Any]:
    """What the demonstration sets in a recipe's ``train.yaml``."""
    return ConfigParser.load_config_file(str(recipe_config(recipe, "demo")))
