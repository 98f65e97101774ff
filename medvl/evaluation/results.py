"""What the protocols give back: results with tables, and the evaluation that holds those of several protocols."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig
from medvl.evaluation.tables import Cell, Table, to_csv
from medvl.utils.io import write_text


@dataclass(frozen=True)
class KeyFigure:
    """One of the few numbers that one looks for first.

    Args:
        name: what it is.
        cell: the number, with its interval and what chance gives.
    """

    name: str
    cell: Cell


class ProtocolResult(ABC):
    """The result of one protocol on one model. Subclasses are frozen dataclasses."""

    settings: dict[str, Any]
    """The arguments that it was computed with; ``bootstrap`` as :meth:`BootstrapConfig.to_dict` gives it."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """The numbers, as every output shows them."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The numbers and settings as ``evaluation.json`` has them: plain dictionaries, None for NaN."""

    def key_figures(self) -> list[KeyFigure]:
        """The few numbers that one looks for first; none by default."""
        return []

    def explanations(self) -> dict[str, str]:
        """What the figures mean, by the title of a column or a row of the tables: what they are by chance and at best."""
        return {}

    def notes(self) -> list[str]:
        """What must be known of how the numbers came about, in sentences; none by default."""
        return []

    def tables_beside(self, untrained: ProtocolResult | None) -> list[Table]:
        """The tables with the numbers of an untrained model beside them."""
        others = {} if untrained is None else {table.name: table for table in untrained.tables()}
        return [table.with_untrained(others.get(table.name)) for table in self.tables()]

    def key_figures_beside(self, untrained: ProtocolResult | None) -> list[KeyFigure]:
        """The key figures with those of an untrained model beside them."""
        others = {} if untrained is None else {figure.name: figure.cell for figure in untrained.key_figures()}
        return [
            replace(figure, cell=replace(figure.cell, untrained=others.get(figure.name)))
            for figure in self.key_figures()
        ]

    def table(self, untrained: ProtocolResult | None = None) -> str:
        """The tables as plain text, with the numbers of an untrained model beside them."""
        return "\n\n".join(table.to_text() for table in self.tables_beside(untrained))


@dataclass(frozen=True)
class Evaluation(Mapping[str, ProtocolResult]):
    """The results of several protocols on one model, by their keys in ``evaluation.json``.

    Args:
        results: such as ``{"zero_shot": zero_shot(...), "retrieval": retrieval(...)}``, in the order shown.
        untrained: the same for a model of the same architecture with random weights.
    """

    results: Mapping[str, ProtocolResult] = field(default_factory=dict)
    untrained: Evaluation | None = None

    def __getitem__(self, key: str) -> ProtocolResult:
        return self.results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def pairs(self) -> Iterator[tuple[str, ProtocolResult, ProtocolResult | None]]:
        """Key, result and the result of the untrained model, protocol by protocol."""
        for key, result in self.results.items():
            yield key, result, None if self.untrained is None else self.untrained.get(key)

    def tables(self) -> list[tuple[str, Table]]:
        """The tables of every protocol, with the untrained model's numbers beside them, and their protocol's key."""
        return [(key, table) for key, result, other in self.pairs() for table in result.tables_beside(other)]

    def to_dict(self) -> dict[str, Any]:
        """The content of ``evaluation.json``: plain dictionaries, lists, numbers and None."""
        content: dict[str, Any] = {key: result.to_dict() for key, result in self.results.items()}
        return content if self.untrained is None else {**content, "untrained": self.untrained.to_dict()}

    def to_csv(self) -> str:
        """Every number of every table, one line each (:data:`medvl.evaluation.tables.CSV_COLUMNS`)."""
        return to_csv({"protocol": key, **record} for key, table in self.tables() for record in table.records())

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON, and :meth:`to_csv` beside it; return the path of the JSON file."""
        path = Path(path)
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        write_text(path.with_suffix(".csv"), self.to_csv())
        return path

    def table(self) -> str:
        """The numbers as plain-text tables, each under its title."""
        return "\n\n".join(f"{table.heading}\n{table.to_text()}" for _, table in self.tables())


def evaluate(
    embeddings: Embeddings,
    encode_text: Any,
    *,
    class_prompts: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    names: Sequence[str] = (),
    untrained: Evaluation | None = None,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """Zero-shot classification where there are labels and prompts, and retrieval where there are reports.

    Args:
        embeddings: of the test studies.
        encode_text: the model, or its function from strings to (M, D).
        class_prompts: for each finding, ``{"present": [...], "absent": [...]}``.
        names: the K findings in the order of the labels' columns.
        untrained: the evaluation of an untrained model, to be shown beside this one.
        bootstrap: of the intervals, clustered by patient.
        seed: of the shuffled pairs.
        **options: further arguments of :func:`medvl.evaluation.zero_shot`, such as ``ensemble`` and ``logit_scale``.

    Returns:
        The results, under ``"zero_shot"`` and ``"retrieval"``.

    Raises:
        ValueError: As the protocols do.
    """
    from medvl.evaluation.protocols.retrieval import retrieval
    from medvl.evaluation.protocols.zero_shot import zero_shot

    results: dict[str, ProtocolResult] = {}
    if embeddings.labels is not None and class_prompts:
        results["zero_shot"] = zero_shot(embeddings, class_prompts, encode_text, names, bootstrap=bootstrap, **options)
    if bool(embeddings.has_text.any()):
        results["retrieval"] = retrieval(embeddings, bootstrap=bootstrap, seed=seed)
    return Evaluation(results, untrained)
