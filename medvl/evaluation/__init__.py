"""The evaluation protocols of the field, and the report that shows them."""

from medvl.evaluation.bootstrap import Estimate, bootstrap, interval
from medvl.evaluation.curves import auroc_and_average_precision, roc_curve
from medvl.evaluation.embeddings import Embeddings, embed_studies
from medvl.evaluation.evaluate import Evaluation, evaluate
from medvl.evaluation.report import write_report
from medvl.evaluation.retrieval import DirectionResult, RetrievalResult, retrieval
from medvl.evaluation.zero_shot import FindingResult, ZeroShotResult, zero_shot

__all__ = [
    "DirectionResult",
    "Embeddings",
    "Estimate",
    "Evaluation",
    "FindingResult",
    "RetrievalResult",
    "ZeroShotResult",
    "auroc_and_average_precision",
    "bootstrap",
    "embed_studies",
    "evaluate",
    "interval",
    "retrieval",
    "roc_curve",
    "write_report",
    "zero_shot",
]
