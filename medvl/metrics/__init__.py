"""Metrics in the manner of MONAI (``CumulativeIterationMetric``)."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.metrics", "monai")

from medvl.metrics.grounding import GroundingMetric
from medvl.metrics.retrieval import RetrievalMetric
from medvl.metrics.zero_shot import ZeroShotMetric

__all__ = ["GroundingMetric", "RetrievalMetric", "ZeroShotMetric"]
