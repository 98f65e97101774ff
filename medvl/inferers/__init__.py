"""MONAI inferers for zero-shot classification and retrieval."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.inferers", "monai")

from medvl.inferers.retrieval import RetrievalInferer
from medvl.inferers.zero_shot import ZeroShotInferer

__all__ = ["RetrievalInferer", "ZeroShotInferer"]
