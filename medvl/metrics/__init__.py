"""Metrics in the manner of MONAI (``CumulativeIterationMetric``)."""

from medvl.metrics.grounding import GroundingMetric
from medvl.metrics.retrieval import RetrievalMetric
from medvl.metrics.zero_shot import ZeroShotMetric

__all__ = ["GroundingMetric", "RetrievalMetric", "ZeroShotMetric"]
