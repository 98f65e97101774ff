"""What the commands run: recipes, run folders, trained runs and their evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvl.utils.extras import require_extra
from medvl.utils.lazy import lazy_exports

require_extra("medvl.workflows", "evaluation")

if TYPE_CHECKING:
    from medvl.workflows.compare import compare_runs as compare_runs
    from medvl.workflows.configuration_text import config_text as config_text
    from medvl.workflows.configuration_text import settings_text as settings_text
    from medvl.workflows.embedding import EmbeddingSummary as EmbeddingSummary
    from medvl.workflows.embedding import embed_to_file as embed_to_file
    from medvl.workflows.evaluate import embed as embed
    from medvl.workflows.evaluate import evaluate_run as evaluate_run
    from medvl.workflows.explanations import Explanation as Explanation
    from medvl.workflows.explanations import explain as explain
    from medvl.workflows.folder_lock import FolderInUseError as FolderInUseError
    from medvl.workflows.folder_lock import FolderLock as FolderLock
    from medvl.workflows.labeling import label_table as label_table
    from medvl.workflows.layers import config_files as config_files
    from medvl.workflows.layers import recipe_names as recipe_names
    from medvl.workflows.literals import literal as literal
    from medvl.workflows.model_card import write_model_card as write_model_card
    from medvl.workflows.neighbors import NeighborSummary as NeighborSummary
    from medvl.workflows.neighbors import write_neighbors as write_neighbors
    from medvl.workflows.packing import PackSummary as PackSummary
    from medvl.workflows.packing import pack_studies as pack_studies
    from medvl.workflows.predictions import Predictions as Predictions
    from medvl.workflows.predictions import image_manifest as image_manifest
    from medvl.workflows.predictions import predict as predict
    from medvl.workflows.processes import shard_network as shard_network
    from medvl.workflows.processes import wrap_ddp as wrap_ddp
    from medvl.workflows.recipes import RecipeWorkflow as RecipeWorkflow
    from medvl.workflows.recipes import train as train
    from medvl.workflows.run_folder import RunFolder as RunFolder
    from medvl.workflows.run_folder import WholeConfig as WholeConfig
    from medvl.workflows.run_records import read_skipped as read_skipped
    from medvl.workflows.shard_packer import PackSettings as PackSettings
    from medvl.workflows.split_record import SplitRecord as SplitRecord
    from medvl.workflows.trained_run import TrainedRun as TrainedRun
    from medvl.workflows.trained_run import label_studies as label_studies
    from medvl.workflows.training import DefaultTrainHandlers as DefaultTrainHandlers
    from medvl.workflows.training import autocast_options as autocast_options
    from medvl.workflows.training import cache_images as cache_images
    from medvl.workflows.training import prepare_network as prepare_network
    from medvl.workflows.training import progress_wrapper as progress_wrapper

_MODULES = {
    "EmbeddingSummary": "embedding",
    "Explanation": "explanations",
    "FolderInUseError": "folder_lock",
    "FolderLock": "folder_lock",
    "NeighborSummary": "neighbors",
    "PackSettings": "shard_packer",
    "PackSummary": "packing",
    "Predictions": "predictions",
    "RecipeWorkflow": "recipes",
    "RunFolder": "run_folder",
    "SplitRecord": "split_record",
    "TrainedRun": "trained_run",
    "DefaultTrainHandlers": "training",
    "WholeConfig": "run_folder",
    "autocast_options": "training",
    "cache_images": "training",
    "compare_runs": "compare",
    "config_files": "layers",
    "config_text": "configuration_text",
    "embed": "evaluate",
    "embed_to_file": "embedding",
    "evaluate_run": "evaluate",
    "explain": "explanations",
    "image_manifest": "predictions",
    "label_studies": "trained_run",
    "label_table": "labeling",
    "literal": "literals",
    "pack_studies": "packing",
    "predict": "predictions",
    "prepare_network": "training",
    "progress_wrapper": "training",
    "read_skipped": "run_records",
    "recipe_names": "layers",
    "settings_text": "configuration_text",
    "shard_network": "processes",
    "train": "recipes",
    "wrap_ddp": "processes",
    "write_model_card": "model_card",
    "write_neighbors": "neighbors",
}
__all__ = sorted(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
