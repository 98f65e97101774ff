"""Handlers for the engines of MONAI and ignite."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.handlers", "monai")

from medvl.handlers.best_checkpoint import BestCheckpoint
from medvl.handlers.epoch_seed import EpochSeed
from medvl.handlers.finite_loss import FiniteLoss
from medvl.handlers.finite_weights import FiniteWeights
from medvl.handlers.gradient_clipping import GradientClipping
from medvl.handlers.metrics import GroundingMetricHandler, RetrievalMetricHandler, ZeroShotMetricHandler
from medvl.handlers.metrics_log import MetricsLog, read_metrics
from medvl.handlers.progress_bar import ProgressBar
from medvl.handlers.run_checkpoint import RunCheckpoint
from medvl.handlers.score_table import ScoreTable
from medvl.handlers.skipped_log import SkippedLog
from medvl.handlers.validation_metrics import validation_metrics

__all__ = [
    "BestCheckpoint",
    "EpochSeed",
    "FiniteLoss",
    "FiniteWeights",
    "GradientClipping",
    "GroundingMetricHandler",
    "MetricsLog",
    "ProgressBar",
    "RetrievalMetricHandler",
    "RunCheckpoint",
    "ScoreTable",
    "SkippedLog",
    "ZeroShotMetricHandler",
    "read_metrics",
    "validation_metrics",
]
