"""The evaluation protocols of the field, and the report that shows them. Names load on first use.

The names of the protocols are those that the modules of ``medvl.evaluation.protocols`` list in ``__all__``.
"""
# ruff: noqa: F401

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from medvl.utils.extras import require_extra

require_extra("medvl.evaluation", "evaluation")

if TYPE_CHECKING:
    from medvl.evaluation.adapters import FunctionModel, HuggingFaceModel
    from medvl.evaluation.audit import FalseNegativeAudit, audit_false_negatives
    from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES, CHEXPERT_COMPETITION_FINDINGS, exclusive_classes
    from medvl.evaluation.context import ProtocolContext
    from medvl.evaluation.embeddings import Embeddings, embed_studies
    from medvl.evaluation.feature_maps import dense_features
    from medvl.evaluation.heat_maps import phrase_maps
    from medvl.evaluation.multi_label import FindingResult, MultiLabelCases
    from medvl.evaluation.protocols.fine_tune import FindingClassifier, FineTuneResult, fine_tune
    from medvl.evaluation.protocols.grounding import GroundedFinding, GroundingResult, grounding
    from medvl.evaluation.protocols.label_retrieval import LabelQueries, LabelRetrievalResult, label_retrieval
    from medvl.evaluation.protocols.linear_probe import LinearProbeResult, ProbeResult, linear_probe
    from medvl.evaluation.protocols.retrieval import DirectionResult, RetrievalResult, retrieval
    from medvl.evaluation.protocols.segmentation import SegmentationResult, StructureResult, segmentation
    from medvl.evaluation.protocols.single_label import SingleLabelResult, zero_shot_single_label
    from medvl.evaluation.protocols.zero_shot import ZeroShotResult, zero_shot
    from medvl.evaluation.registry import Protocol, protocol_names, register_protocol, registered_protocols
    from medvl.evaluation.report.page import write_report
    from medvl.evaluation.report.sentence_maps import SentenceMaps, sentence_maps
    from medvl.evaluation.results import Evaluation, KeyFigure, ProtocolResult, evaluate
    from medvl.evaluation.segmentation_decoder import SegmentationDecoder
    from medvl.evaluation.statistics.bootstrap import (
        BootstrapConfig,
        Estimate,
        bootstrap_distribution,
        bootstrap_estimates,
        percentile_interval,
    )
    from medvl.evaluation.statistics.calibration import ReliabilityCurve, best_f1_threshold, reliability_curve
    from medvl.evaluation.statistics.comparison import CaseMeans, Comparable, Comparison, PairedDifference, compare
    from medvl.evaluation.statistics.curves import auroc_and_average_precision, roc_curve
    from medvl.evaluation.tables import Cell, Column, Row, Table

_EXPORTS = {
    "adapters": "FunctionModel HuggingFaceModel",
    "audit": "FalseNegativeAudit audit_false_negatives",
    "case_selection": "CHEXPERT_8X200_CLASSES CHEXPERT_COMPETITION_FINDINGS exclusive_classes",
    "context": "ProtocolContext",
    "embeddings": "Embeddings embed_studies",
    "feature_maps": "dense_features",
    "heat_maps": "phrase_maps",
    "multi_label": "FindingResult MultiLabelCases",
    "registry": "Protocol protocol_names register_protocol registered_protocols",
    "report.page": "write_report",
    "report.sentence_maps": "SentenceMaps sentence_maps",
    "results": "Evaluation KeyFigure ProtocolResult evaluate",
    "segmentation_decoder": "SegmentationDecoder",
    "statistics.bootstrap": "BootstrapConfig Estimate bootstrap_distribution bootstrap_estimates percentile_interval",
    "statistics.calibration": "ReliabilityCurve best_f1_threshold reliability_curve",
    "statistics.comparison": "CaseMeans Comparable Comparison PairedDifference compare",
    "statistics.curves": "auroc_and_average_precision roc_curve",
    "tables": "Cell Column Row Table",
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names.split()}


def _protocol_exports() -> dict[str, Any]:
    """What the modules of the registered protocols list in their ``__all__``."""
    from medvl.evaluation.registry import protocol_modules

    return {name: getattr(module, name) for module in protocol_modules() for name in module.__all__}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name == "__all__":
        return sorted([*_MODULES, *_protocol_exports()])
    exports = {} if name.startswith("_") or find_spec(f"{__name__}.{name}") else _protocol_exports()
    if name in exports:
        return exports[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_protocol_exports()})
