"""Batches, gradient caching, parameter groups and schedules for training image-text models with the engines of MONAI."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.engines", "monai")

from medvl.engines.gradient_caching import CachedBatch, GradientCaching
from medvl.engines.parameter_groups import parameter_groups
from medvl.engines.prepare_batch import PrepareBatchImageText
from medvl.engines.schedule import warmup_cosine

__all__ = ["CachedBatch", "GradientCaching", "PrepareBatchImageText", "parameter_groups", "warmup_cosine"]
