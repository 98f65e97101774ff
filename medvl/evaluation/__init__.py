"""The evaluation protocols of the field, and the report that shows them."""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.evaluation", "evaluation")

from medvl.evaluation.adapters import FunctionModel, HuggingFaceModel
from medvl.evaluation.audit import FalseNegativeAudit, audit_false_negatives
from medvl.evaluation.embeddings import Embeddings, embed_studies
from medvl.evaluation.evaluate import Evaluation, evaluate
from medvl.evaluation.protocols.dense_features import dense_features
from medvl.evaluation.protocols.fine_tune import FindingClassifier, FineTuneResult, fine_tune
from medvl.evaluation.protocols.grounding import GroundedFinding, GroundingResult, grounding
from medvl.evaluation.protocols.label_retrieval import LabelQueries, LabelRetrievalResult, label_retrieval
from medvl.evaluation.protocols.linear_probe import LinearProbeResult, ProbeResult, linear_probe
from medvl.evaluation.protocols.phrase_maps import phrase_maps
from medvl.evaluation.protocols.retrieval import DirectionResult, RetrievalResult, retrieval
from medvl.evaluation.protocols.segmentation import SegmentationResult, StructureResult, segmentation
from medvl.evaluation.protocols.segmentation_decoder import SegmentationDecoder
from medvl.evaluation.protocols.single_label import SingleLabelResult, zero_shot_single_label
from medvl.evaluation.protocols.zero_shot import ZeroShotResult, zero_shot
from medvl.evaluation.report.page import write_report
from medvl.evaluation.report.sentence_maps import SentenceMaps, sentence_maps
from medvl.evaluation.statistics.balanced import COMPETITION, RETRIEVAL_CLASSES, exclusive_classes
from medvl.evaluation.statistics.bootstrap import Estimate, bootstrap, estimates, interval
from medvl.evaluation.statistics.calibration import ReliabilityCurve, best_f1_threshold, reliability_curve
from medvl.evaluation.statistics.compare import CaseMeans, Comparable, Comparison, Difference, compare
from medvl.evaluation.statistics.curves import auroc_and_average_precision, roc_curve
from medvl.evaluation.statistics.multi_label import FindingResult, MultiLabelCases

__all__ = [
    "COMPETITION",
    "RETRIEVAL_CLASSES",
    "CaseMeans",
    "Comparable",
    "Comparison",
    "Difference",
    "DirectionResult",
    "Embeddings",
    "Estimate",
    "Evaluation",
    "FalseNegativeAudit",
    "FindingClassifier",
    "FindingResult",
    "FineTuneResult",
    "FunctionModel",
    "GroundedFinding",
    "GroundingResult",
    "HuggingFaceModel",
    "LabelQueries",
    "LabelRetrievalResult",
    "LinearProbeResult",
    "MultiLabelCases",
    "ProbeResult",
    "ReliabilityCurve",
    "RetrievalResult",
    "SegmentationDecoder",
    "SegmentationResult",
    "SentenceMaps",
    "SingleLabelResult",
    "StructureResult",
    "ZeroShotResult",
    "audit_false_negatives",
    "auroc_and_average_precision",
    "best_f1_threshold",
    "bootstrap",
    "compare",
    "dense_features",
    "embed_studies",
    "estimates",
    "evaluate",
    "exclusive_classes",
    "fine_tune",
    "grounding",
    "interval",
    "label_retrieval",
    "linear_probe",
    "phrase_maps",
    "reliability_curve",
    "retrieval",
    "roc_curve",
    "segmentation",
    "sentence_maps",
    "write_report",
    "zero_shot",
    "zero_shot_single_label",
]
