"""The recipes as MONAI bundles, and the functions that run them."""

from __future__ import annotations

from medvl.bundles.recipes import recipe_config, recipes, train
from medvl.bundles.run_folder import RunFolder, running_config

__all__ = ["RunFolder", "recipe_config", "recipes", "running_config", "train"]
