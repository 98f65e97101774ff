"""The evaluation protocols of the field, and the report that shows them. Names load on first use.

The names of the protocols are those that the modules of ``medvl.evaluation.protocols`` list in ``__all__``.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from medvl.utils.extras import require_extra

require_extra("medvl.evaluation", "evaluation")

if TYPE_CHECKING:
    # isort: off
    from medvl.evaluation.adapters import FunctionModel as FunctionModel, HuggingFaceModel as HuggingFaceModel
    from medvl.evaluation.audit import (
        FalseNegativeAudit as FalseNegativeAudit,
        audit_false_negatives as audit_false_negatives,
    )
    from medvl.evaluation.case_selection import (
        CHEXPERT_8X200_CLASSES as CHEXPERT_8X200_CLASSES,
        CHEXPERT_COMPETITION_FINDINGS as CHEXPERT_COMPETITION_FINDINGS,
        exclusive_classes as exclusive_classes,
    )
    from medvl.evaluation.context import ProtocolContext as ProtocolContext
    from medvl.evaluation.embedding_files import (
        check_embedding_file as check_embedding_file,
        save_embeddings as save_embeddings,
    )
    from medvl.evaluation.embeddings import Embeddings as Embeddings, embed_studies as embed_studies
    from medvl.evaluation.feature_maps import dense_features as dense_features
    from medvl.evaluation.heat_maps import phrase_maps as phrase_maps
    from medvl.evaluation.leaks import LeakAudit as LeakAudit, audit_leaks as audit_leaks
    from medvl.evaluation.multi_label import FindingResult as FindingResult, MultiLabelCases as MultiLabelCases
    from medvl.evaluation.neighbors import Neighbors as Neighbors, nearest_neighbors as nearest_neighbors
    from medvl.evaluation.protocols.fine_tune import (
        FindingClassifier as FindingClassifier,
        FineTuneResult as FineTuneResult,
        fine_tune as fine_tune,
    )
    from medvl.evaluation.protocols.grounding import (
        GroundedFinding as GroundedFinding,
        GroundingResult as GroundingResult,
        grounding as grounding,
    )
    from medvl.evaluation.protocols.label_retrieval import (
        LabelQueries as LabelQueries,
        LabelRetrievalResult as LabelRetrievalResult,
        label_retrieval as label_retrieval,
    )
    from medvl.evaluation.protocols.linear_probe import (
        LinearProbeResult as LinearProbeResult,
        ProbeResult as ProbeResult,
        linear_probe as linear_probe,
    )
    from medvl.evaluation.protocols.retrieval import (
        DirectionResult as DirectionResult,
        RetrievalResult as RetrievalResult,
        retrieval as retrieval,
    )
    from medvl.evaluation.protocols.segmentation import (
        SegmentationResult as SegmentationResult,
        StructureResult as StructureResult,
        segmentation as segmentation,
    )
    from medvl.evaluation.protocols.single_label import (
        SingleLabelResult as SingleLabelResult,
        zero_shot_single_label as zero_shot_single_label,
    )
    from medvl.evaluation.protocols.zero_shot import ZeroShotResult as ZeroShotResult, zero_shot as zero_shot
    from medvl.evaluation.registry import (
        Protocol as Protocol,
        protocol_names as protocol_names,
        register_protocol as register_protocol,
        registered_protocols as registered_protocols,
    )
    from medvl.evaluation.report.comparison import (
        ComparedRun as ComparedRun,
        RunsComparison as RunsComparison,
        write_comparison as write_comparison,
    )
    from medvl.evaluation.report.page import write_report as write_report
    from medvl.evaluation.report.sentence_maps import SentenceMaps as SentenceMaps, sentence_maps as sentence_maps
    from medvl.evaluation.results import (
        Evaluation as Evaluation,
        KeyFigure as KeyFigure,
        ProtocolResult as ProtocolResult,
        evaluate as evaluate,
    )
    from medvl.evaluation.segmentation_decoder import (
        SegmentationDecoder as SegmentationDecoder,
        segmentation_loss as segmentation_loss,
    )
    from medvl.evaluation.statistics.bootstrap import (
        BootstrapConfig as BootstrapConfig,
        Estimate as Estimate,
        bootstrap_distribution as bootstrap_distribution,
        bootstrap_estimates as bootstrap_estimates,
        percentile_interval as percentile_interval,
    )
    from medvl.evaluation.statistics.calibration import (
        ReliabilityCurve as ReliabilityCurve,
        best_f1_threshold as best_f1_threshold,
        reliability_curve as reliability_curve,
    )
    from medvl.evaluation.statistics.comparison import (
        CaseMeans as CaseMeans,
        Comparable as Comparable,
        Comparison as Comparison,
        PairedDifference as PairedDifference,
        compare as compare,
    )
    from medvl.evaluation.statistics.curves import (
        auroc_and_average_precision as auroc_and_average_precision,
        roc_curve as roc_curve,
    )
    from medvl.evaluation.stored_embeddings import load_embeddings as load_embeddings
    from medvl.evaluation.tables import Cell as Cell, Column as Column, Row as Row, Table as Table

_EXPORTS = {
    "adapters": "FunctionModel HuggingFaceModel",
    "audit": "FalseNegativeAudit audit_false_negatives",
    "case_selection": "CHEXPERT_8X200_CLASSES CHEXPERT_COMPETITION_FINDINGS exclusive_classes",
    "context": "ProtocolContext",
    "embedding_files": "check_embedding_file save_embeddings",
    "embeddings": "Embeddings embed_studies",
    "feature_maps": "dense_features",
    "heat_maps": "phrase_maps",
    "leaks": "LeakAudit audit_leaks",
    "multi_label": "FindingResult MultiLabelCases",
    "neighbors": "Neighbors nearest_neighbors",
    "registry": "Protocol protocol_names register_protocol registered_protocols",
    "report.comparison": "ComparedRun RunsComparison write_comparison",
    "report.page": "write_report",
    "report.sentence_maps": "SentenceMaps sentence_maps",
    "results": "Evaluation KeyFigure ProtocolResult evaluate",
    "segmentation_decoder": "SegmentationDecoder segmentation_loss",
    "statistics.bootstrap": "BootstrapConfig Estimate bootstrap_distribution bootstrap_estimates percentile_interval",
    "statistics.calibration": "ReliabilityCurve best_f1_threshold reliability_curve",
    "statistics.comparison": "CaseMeans Comparable Comparison PairedDifference compare",
    "statistics.curves": "auroc_and_average_precision roc_curve",
    "stored_embeddings": "load_embeddings",
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
