"""MONAI inferers for zero-shot classification and retrieval."""

from __future__ import annotations

from medvl.inferers.retrieval import RetrievalInferer
from medvl.inferers.zero_shot import ZeroShotInferer

__all__ = ["RetrievalInferer", "ZeroShotInferer"]
