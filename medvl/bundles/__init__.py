"""The recipes as MONAI bundles, and the functions that run them."""

from __future__ import annotations

from medvl.bundles.evaluate import embed, evaluate_run
from medvl.bundles.processes import count_processes, in_step, is_first_process, start_processes, stop_processes
from medvl.bundles.recipes import demo_overrides, recipe_config, recipes, train
from medvl.bundles.run_folder import RunFolder, read_skipped, running_config
from medvl.bundles.trained_run import TrainedRun, prompts_for
from medvl.bundles.training import TrainingHandlers, ready_network

__all__ = [
    "RunFolder",
    "TrainedRun",
    "TrainingHandlers",
    "count_processes",
    "demo_overrides",
    "embed",
    "evaluate_run",
    "in_step",
    "is_first_process",
    "prompts_for",
    "read_skipped",
    "ready_network",
    "recipe_config",
    "recipes",
    "running_config",
    "start_processes",
    "stop_processes",
    "train",
]
