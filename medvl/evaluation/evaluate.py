"""Zero-shot classification and retrieval of one model in one go, beside an untrained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.retrieval import RetrievalResult, retrieval
from medvl.evaluation.zero_shot import Prompts, ZeroShotResult, zero_shot


@dataclass(frozen=True)
class Evaluation:
    """Results of the protocols on one model, and of the same protocols on an untrained one.

    Args:
        zero_shot: None where there are no labels or no prompts.
        retrieval: None where no study has a report.
        untrained: the same of a model of the same architecture with random weights.
    """

    zero_shot: ZeroShotResult | None = None
    retrieval: RetrievalResult | None = None
    untrained: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of ``evaluation.json``: plain dictionaries, lists, numbers and None."""
        parts = {"zero_shot": self.zero_shot, "retrieval": self.retrieval, "untrained": self.untrained}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON (NaN as null) and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def table(self) -> str:
        """The figures as plain-text tables."""
        other = self.untrained or Evaluation()
        tables = []
        if self.zero_shot is not None:
            tables.append(self.zero_shot.table(other.zero_shot))
        if self.retrieval is not None:
            tables.append(self.retrieval.table(other.retrieval))
        return "\n\n".join(tables)


def evaluate(
    embeddings: Embeddings,
    encode_text: Any,
    *,
    prompts: Prompts | None = None,
    names: Sequence[str] = (),
    untrained: Evaluation | None = None,
    resamples: int = 1000,
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
        resamples: of the bootstrap by patient.
        seed: of the bootstrap and of the shuffled pairs.
        **options: further arguments of :func:`medvl.evaluation.zero_shot`, such as ``ensemble`` and ``logit_scale``.

    Returns:
        The results.

    Raises:
        ValueError: as the protocols do.
    """
    first = second = None
    if embeddings.labels is not None and prompts:
        first = zero_shot(embeddings, prompts, encode_text, names, resamples=resamples, seed=seed, **options)
    if bool(embeddings.has_text.any()):
        second = retrieval(embeddings, resamples=resamples, seed=seed)
    return Evaluation(first, second, untrained)
