"""The results of several protocols on one model, beside those of an untrained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.grounding import GroundingResult
from medvl.evaluation.protocols.label_retrieval import LabelRetrievalResult
from medvl.evaluation.protocols.linear_probe import LinearProbeResult
from medvl.evaluation.protocols.retrieval import RetrievalResult, retrieval
from medvl.evaluation.protocols.segmentation import SegmentationResult
from medvl.evaluation.protocols.single_label import SingleLabelResult
from medvl.evaluation.protocols.zero_shot import Prompts, ZeroShotResult, zero_shot
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig

PARTS = ("zero_shot", "single_label", "retrieval", "label_retrieval", "linear_probe", "segmentation", "grounding")


@dataclass(frozen=True)
class Evaluation:
    """Results of the protocols on one model, and of the same protocols on an untrained one; None for what was not run.

    Args:
        zero_shot: of :func:`medvl.evaluation.zero_shot`.
        retrieval: of :func:`medvl.evaluation.retrieval`.
        label_retrieval: of :func:`medvl.evaluation.label_retrieval`.
        linear_probe: of :func:`medvl.evaluation.linear_probe`.
        segmentation: of :func:`medvl.evaluation.segmentation`.
        grounding: of :func:`medvl.evaluation.grounding`.
        single_label: of :func:`medvl.evaluation.zero_shot_single_label`.
        untrained: the same of a model of the same architecture with random weights.
    """

    zero_shot: ZeroShotResult | None = None
    retrieval: RetrievalResult | None = None
    label_retrieval: LabelRetrievalResult | None = None
    linear_probe: LinearProbeResult | None = None
    segmentation: SegmentationResult | None = None
    grounding: GroundingResult | None = None
    single_label: SingleLabelResult | None = None
    untrained: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of ``evaluation.json``: plain dictionaries, lists, numbers and None."""
        parts = {name: getattr(self, name) for name in (*PARTS, "untrained")}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON (NaN as null) and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def table(self) -> str:
        """The figures as plain-text tables."""
        tables = []
        for name in PARTS:
            part = getattr(self, name)
            other = getattr(self.untrained, name, None)
            if part is not None:
                tables.append(part.table() if other is None else part.table(other))
        return "\n\n".join(tables)


def evaluate(
    embeddings: Embeddings,
    encode_text: Any,
    *,
    prompts: Prompts | None = None,
    names: Sequence[str] = (),
    untrained: Evaluation | None = None,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """Run what the data allow: zero-shot classification where there are labels and prompts, retrieval where reports.

    Args:
        embeddings: of the test studies.
        encode_text: the model, or its function from strings to (M, D).
        prompts: for each finding, ``{"present": [...], "absent": [...]}``.
        names: the K findings in the order of the labels' columns.
        untrained: the evaluation of an untrained model, to stand beside this one.
        bootstrap: of the intervals, clustered by patient.
        seed: of the shuffled pairs.
        **options: further arguments of :func:`medvl.evaluation.zero_shot`, such as ``ensemble`` and ``logit_scale``.

    Returns:
        The results.

    Raises:
        ValueError: as the protocols do.
    """
    first = second = None
    if embeddings.labels is not None and prompts:
        first = zero_shot(embeddings, prompts, encode_text, names, bootstrap=bootstrap, **options)
    if bool(embeddings.has_text.any()):
        second = retrieval(embeddings, bootstrap=bootstrap, seed=seed)
    return Evaluation(first, second, untrained=untrained)
