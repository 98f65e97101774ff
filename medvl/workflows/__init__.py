"""What the commands run: recipes, run folders, trained runs and their evaluation."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.workflows", "evaluation")

from medvl.workflows.evaluate import embed, evaluate_run
from medvl.workflows.processes import wrap_ddp
from medvl.workflows.recipes import demo_overrides, recipe_config, recipes, train
from medvl.workflows.run_folder import RunFolder, read_skipped, running_config
from medvl.workflows.trained_run import TrainedRun
from medvl.workflows.training import TrainingHandlers, ready_network

__all__ = [
    "RunFolder",
    "TrainedRun",
    "TrainingHandlers",
    "demo_overrides",
    "embed",
    "evaluate_run",
    "read_skipped",
    "ready_network",
    "recipe_config",
    "recipes",
    "running_config",
    "train",
    "wrap_ddp",
]
