"""Recipes as MONAI workflows: a bundle configuration in layers, and its training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigComponent, ConfigWorkflow
from monai.bundle.reference_resolver import ReferenceResolver
from monai.transforms import Transform
from torch import nn

from medvl.utils.targets import state_target
from medvl.workflows.folder_lock import release_lock
from medvl.workflows.layers import BUNDLES, LAYERS, ConfigFile, check_overrides, config_files, with_paper_settings
from medvl.workflows.run_folder import WholeConfig, output_folder
from medvl.workflows.setting_values import CHECKS, check_setting_values

RECORDED = "recorded_config"
METADATA = BUNDLES / "metadata.json"

logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns of every run without a logging.conf


class _StatingResolver(ReferenceResolver):
    """MONAI's resolver, which also remembers of every transform and module which class and arguments made it."""

    def _resolve_one_item(self, id: str, waiting_list: set[str] | None = None, **kwargs: Any) -> Any:
        made = super()._resolve_one_item(id, waiting_list, **kwargs)
        item = self.items.get(self.normalize_id(id))
        if isinstance(made, Transform | nn.Module) and isinstance(item, ConfigComponent):
            target = item.resolve_module_name()
            arguments = item.resolve_args()
            # What is returned as it was given was made by something else, and would be held for ever by its own arguments.
            is_given = any(value is made for value in arguments.values())
            if isinstance(target, str) and item.get_config().get("_mode_", "default") == "default" and not is_given:
                state_target(made, target, arguments)
        return made


class RecipeWorkflow(ConfigWorkflow):
    """MONAI's ``ConfigWorkflow`` for configurations in layers, whose run folder records the whole configuration.

    Three things differ from the base class: the layers that a file names under ``layers`` are read before it,
    ``@recorded_config`` is the merged configuration itself, overrides included, as a :class:`~medvl.workflows.WholeConfig`, and
    the class and arguments of transforms and modules are remembered, so that they can be saved with a model.
    MONAI's commands take the class by name::

        python -m monai.bundle run --workflow_name medvl.workflows.RecipeWorkflow --config_file convirt --epochs 3

    Args:
        config_file: a recipe's name, a file or several (:func:`~medvl.workflows.config_files`).
        meta_file: by default the ``metadata.json`` of :mod:`medvl.bundles`.
        logging_file: as ``ConfigWorkflow``; False leaves the logging as it is.
        options: further arguments of ``ConfigWorkflow`` (``workflow_type``, ``tracking``, ...), and overrides by key.

    Raises:
        ValueError: If a recipe or layer is unknown.
        FileNotFoundError: If a file does not exist.

    Example:
        >>> RecipeWorkflow("mlip", epochs=3).parser["epochs"]
        3
    """

    def __init__(
        self,
        config_file: ConfigFile,
        meta_file: str | list[str] | None = None,
        logging_file: str | bool | None = False,
        **options: Any,
    ) -> None:
        config_file, options = with_paper_settings(config_file, options)
        super().__init__(
            [str(path) for path in config_files(config_file)], meta_file or str(METADATA), logging_file, **options
        )
        self.parser.ref_resolver = _StatingResolver()

    def initialize(self) -> Any:
        """Check a training's settings, hand the configuration to what records it, then run what is under ``initialize``.

        Raises:
            TypeError: If a setting is of the wrong type.
            ValueError: If a setting is out of its range.
        """
        config = self.parser.get()
        if "train" in config:
            check_setting_values({name: self.parser.get_parsed_content(name) for name in CHECKS if name in config})
        self.parser[RECORDED] = WholeConfig(self.whole_config())
        return super().initialize()

    def whole_config(self) -> dict[str, Any]:
        """A copy of the merged configuration, macros replaced: what a file that does the same would contain."""
        self.parser.resolve_macro_and_relative_ids()
        settings = self.parser.get(RECORDED, {})
        if isinstance(settings, WholeConfig):  # of an earlier call of initialize
            settings = settings.content.get(RECORDED, {})
        # A whole file has no layers, and metadata.json is not part of it.
        config = {key: value for key, value in self.parser.get().items() if key not in (self.parser.meta_key, LAYERS)}
        config[RECORDED] = {key: value for key, value in settings.items() if key != LAYERS}
        return copy.deepcopy(config)


def train(recipe: ConfigFile, overrides: Mapping[str, Any] | None = None) -> Path:
    """Train a recipe.

    Args:
        recipe: its name, as "convirt", or a configuration file, or several (:func:`~medvl.workflows.config_files`).
        overrides: values that replace those of the recipe, by key; a key inside another is written ``outer#inner``. As in
            a file, a text that begins with ``$`` is an expression, which is evaluated; :func:`~medvl.workflows.literal` makes
            one that is taken as it stands, such as a path.

    Returns:
        The run's folder.

    Raises:
        ValueError: If the recipe or a key is unknown, or a value is not a number where there was one.
    """
    recipe, overrides = with_paper_settings(recipe, overrides or {})
    workflow = RecipeWorkflow(recipe, workflow_type="train")
    check_overrides(workflow.parser.get(), overrides, _name(recipe))
    workflow.parser.update(overrides)
    output = output_folder(workflow.parser.get_parsed_content("output"))
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        release_lock(output)
    return output


def _name(recipe: ConfigFile) -> str:
    return str(recipe) if isinstance(recipe, str | Path) else ", ".join(map(str, recipe))
