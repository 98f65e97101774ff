"""Retrieval of images that show the finding of the query (CheXpert 8x200)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES, draw_per_class, exclusive_classes
from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.embeddings import Embeddings, normalized_embeddings, text_encoder
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.functional import precision_at_k
from medvl.utils.checks import check_text_list, error_message

if TYPE_CHECKING:
    import pandas as pd

    from medvl.evaluation.retrieval_lists import RetrievalLists

__all__ = ["LabelQueries", "LabelRetrievalResult", "label_retrieval"]


@dataclass(frozen=True)
class LabelQueries:
    """Precision of one kind of query, images or texts.

    Args:
        values: ``precision_at_K`` by name.
        classes: their means by class.
        precisions: of each query (Q, len(ks)).
        query_classes: class number of each query (Q,).
        query_ids: study id of each image query, or the text (Q,).
        groups: patient of each image query; each text is its own group (Q,).
    """

    values: dict[str, Estimate]
    classes: dict[str, dict[str, float]]
    precisions: np.ndarray
    query_classes: np.ndarray
    query_ids: tuple[str, ...]
    groups: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The metrics as ``evaluation.json`` has them; NaN as None."""
        return {
            **{name: estimate.to_dict() for name, estimate in self.values.items()},
            "classes": {
                label: {name: None if math.isnan(value) else value for name, value in row.items()}
                for label, row in self.classes.items()
            },
            "queries": len(self.query_ids),
        }


@dataclass(frozen=True)
class LabelRetrievalResult(ProtocolResult):
    """Retrieval by finding with image queries and, where texts were given, text queries.

    Args:
        queries: by ``"image_to_image"`` and ``"text_to_image"``.
        chance: expected precision of a random order, the mean fraction of the query's class among the candidates, by kind.
        classes: names of the classes.
        candidate_ids: study ids of the candidates (M,).
        settings: numbers of cases, depths, seed, bootstrap.
    """

    queries: dict[str, LabelQueries]
    chance: dict[str, float]
    classes: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def study_ids(self) -> tuple[str, ...]:
        """The query of each row of :meth:`statistics`: study ids of images, then texts."""
        return tuple(query for part in self.queries.values() for query in part.query_ids)

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Patients of the image queries; each text is its own."""
        return tuple(group for part in self.queries.values() for group in part.groups)

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) such as ``image_to_image/precision_at_5`` for weights (B, Q) of all queries."""
        named, start = {}, 0
        for kind, part in self.queries.items():
            stop = start + len(part.query_ids)
            for name, value in _weighted_precision(part.precisions, list(part.values), weights[:, start:stop]).items():
                named[f"{kind}/{name}"] = value
            start = stop
        return named

    def case_table(self) -> pd.DataFrame:
        """One row for each query: kind, study or text, class, and the precision at each depth."""
        import pandas as pd

        tables = []
        for kind, part in self.queries.items():
            table = pd.DataFrame(
                {"kind": kind, "query": part.query_ids, "class": [self.classes[c] for c in part.query_classes]}
            )
            tables.append(table.assign(**{name: part.precisions[:, i] for i, name in enumerate(part.values)}))
        return pd.concat(tables, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        return {
            **{kind: {**part.to_dict(), "chance": self.chance[kind]} for kind, part in self.queries.items()},
            "candidates": len(self.candidate_ids),
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Precision by kind of query and depth."""
        rows = [
            Row(
                f"{TITLES[kind]}, {name.replace('precision_at_', 'P@')}",
                [Cell.of(estimate, chance=self.chance[kind])],
            )
            for kind, part in self.queries.items()
            for name, estimate in part.values.items()
        ]
        description = (
            "Does an image, or a sentence, find other images of the same finding? The search is among images that show one of "
            f"these alone: {', '.join(self.classes)}."
        )
        columns = [Column("Precision", compared=True, chart=True)]
        return [Table("label-retrieval", "Retrieval by finding", "Query", columns, rows, description)]

    def explanations(self) -> dict[str, str]:
        """What precision at k means."""
        return EXPLANATIONS


EXPLANATIONS = {
    "P@k": "Of the k most similar images, the fraction that show the finding of the query. Chance is the finding's fraction of "
    "the images that are searched; 1 is best."
}
TITLES = {"image_to_image": "Image queries", "text_to_image": "Text queries"}
IMAGE_QUERIES, MAX_CANDIDATES = 10, 200


def label_retrieval(
    embeddings: Embeddings,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    class_prompts: Mapping[str, Sequence[str]] | None = None,
    encode_text: Any = None,
    ks: Sequence[int] = (5, 10, 50),
    per_class: int = 200,
    queries_per_class: int = 10,
    exclusive_among: Sequence[str] | None = None,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> LabelRetrievalResult:
    """Precision at k of retrieving images of the query's class: the 8x200 protocol (Zhang et al., 2020) for any classes.

    Of every class, ``queries_per_class`` studies are drawn as image queries and ``per_class`` others as candidates, all
    showing that class alone (:func:`~medvl.evaluation.exclusive_classes`). No candidate is of a query's
    patient, which would be retrieved for the patient and not for the finding. Text queries describe a class. The precision
    at k is::

        P@k = fraction of the k candidates nearest to the query that are of its class; ties are ranked pessimistically.

    Args:
        embeddings: studies with ``labels`` (N, K).
        names: the K findings in the order of the labels' columns.
        classes: C of them, such as :data:`medvl.evaluation.case_selection.CHEXPERT_8X200_CLASSES`.
        class_prompts: texts for each class, which are the text queries; None for image queries only.
        encode_text: the model, or its function from strings to (M, D); needed with ``class_prompts``.
        ks: depths.
        per_class: candidates of each class.
        queries_per_class: image queries of each class.
        exclusive_among: findings that must not be present or uncertain beside a study's class; None for the classes.
        bootstrap: of the intervals, over the queries, clustered by patient; the candidates stay.
        seed: of the draws.

    Returns:
        The metrics. A depth beyond the number of candidates is NaN, with a warning. Where a class has fewer studies than
        asked for, as many of every class as it has are drawn, with a warning.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, a class is not among the names or has no
            study, or there are prompts without an encoder or not for every class.

    Example:
        >>> image = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]).repeat(2, 1)
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).repeat(2, 1)
        >>> result = label_retrieval(Embeddings(image, image, labels=labels), ["Edema", "Fracture"], ["Edema", "Fracture"],
        ...     ks=[1], per_class=3, queries_per_class=1)
        >>> result.queries["image_to_image"].values["precision_at_1"].value, result.chance["image_to_image"]
        (1.0, 0.5)
    """
    if not ks or any(k < 1 for k in ks):
        raise ValueError(error_message("ks", "be depths of at least 1", list(ks)))
    numbers = exclusive_classes(embeddings, names, classes, exclusive_among)
    generator = np.random.default_rng(seed)
    drawn = draw_per_class(numbers, classes, queries_per_class, generator, "image queries")
    patients = np.array(embeddings.patient_ids)
    left = np.where(np.isin(patients, patients[drawn]), -1, numbers)
    rows = draw_per_class(left, classes, per_class, generator, "candidates")
    deep = [k for k in ks if k > len(rows)]
    if deep:
        warnings.warn(
            f"Precision at {', '.join(map(str, deep))} is undefined among {len(rows)} candidates.",
            RuntimeWarning,
            stacklevel=2,
        )
    options: dict[str, Any] = {"ks": tuple(ks), "bootstrap": bootstrap}
    candidates, kinds = (embeddings.image[rows], numbers[rows]), {}
    kinds["image_to_image"] = _precision_of(
        embeddings.image[drawn],
        numbers[drawn],
        tuple(embeddings.study_ids[row] for row in drawn),
        tuple(patients[drawn].tolist()),
        *candidates,
        classes,
        **options,
    )
    if class_prompts is not None:
        for name in classes:
            check_text_list(class_prompts.get(name), f"class_prompts[{name!r}]")
        queries = [(text, number) for number, name in enumerate(classes) for text in class_prompts[name]]
        if encode_text is None:
            raise ValueError(error_message("encode_text", "be a model or a function from strings to vectors", None))
        query_texts = [text for text, _ in queries]
        with torch.inference_mode():
            embeds = normalized_embeddings("text", text_encoder(encode_text, as_class_prompts=True)(query_texts))
        ids = tuple(query_texts)
        kinds["text_to_image"] = _precision_of(
            embeds, np.array([number for _, number in queries]), ids, ids, *candidates, classes, **options
        )
    fractions = np.bincount(numbers[rows], minlength=len(classes)) / len(rows)
    return LabelRetrievalResult(
        queries=kinds,
        chance={kind: float(fractions[part.query_classes].mean()) for kind, part in kinds.items()},
        classes=tuple(classes),
        candidate_ids=tuple(embeddings.study_ids[row] for row in rows),
        settings={
            "per_class": per_class,
            "queries_per_class": queries_per_class,
            "exclusive_among": list(exclusive_among or classes),
            "ks": list(ks),
            "bootstrap": bootstrap.to_dict(),
            "seed": seed,
        },
    )


def listed_retrieval(
    embeddings: Embeddings,
    lists: RetrievalLists,
    *,
    encode_text: Any = None,
    ks: Sequence[int] = (5, 10, 50),
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> LabelRetrievalResult | None:
    """Precision at k of the queries and candidates of published lists; see :func:`label_retrieval`.

    Args:
        embeddings: the images of the lists, by their ids.
        lists: queries and candidates.
        encode_text: the model, or its function from strings to (M, D), for the lists' text queries; None to leave them out.
        ks: depths.
        bootstrap: of the intervals, over the queries, clustered by patient; the candidates stay.

    Returns:
        The metrics; None if no query or no candidate is among the images.
    """
    row_of = {study_id: row for row, study_id in enumerate(embeddings.study_ids)}
    classes = tuple(dict.fromkeys([*lists.queries.values(), *lists.candidates.values()]))
    queried, rows = (
        [(row_of[name], classes.index(label)) for name, label in part.items() if name in row_of]
        for part in (lists.queries, lists.candidates)
    )
    if not queried or not rows:
        return None
    picked, numbers = (np.array(part) for part in zip(*rows, strict=True))
    drawn, wanted = (np.array(part) for part in zip(*queried, strict=True))
    options: dict[str, Any] = {"ks": tuple(ks), "bootstrap": bootstrap}
    ids, patients = (tuple(values[row] for row in drawn) for values in (embeddings.study_ids, embeddings.patient_ids))
    found = (embeddings.image[picked], numbers, classes)
    kinds = {"image_to_image": _precision_of(embeddings.image[drawn], wanted, ids, patients, *found, **options)}
    texts = [(text, classes.index(label)) for label, texts in lists.texts.items() if label in classes for text in texts]
    if texts and encode_text is not None:
        query_texts = tuple(text for text, _ in texts)
        with torch.inference_mode():
            embeds = normalized_embeddings("text", text_encoder(encode_text, as_class_prompts=True)(list(query_texts)))
        of_class = np.array([number for _, number in texts])
        kinds["text_to_image"] = _precision_of(embeds, of_class, query_texts, query_texts, *found, **options)
    fractions = np.bincount(numbers, minlength=len(classes)) / len(numbers)
    return LabelRetrievalResult(
        queries=kinds,
        chance={kind: float(fractions[part.query_classes].mean()) for kind, part in kinds.items()},
        classes=classes,
        candidate_ids=tuple(embeddings.study_ids[row] for row in picked),
        settings={"lists": lists.name, "ks": list(ks), "bootstrap": bootstrap.to_dict()},
    )


def _precision_of(
    queries: Tensor,
    query_classes: np.ndarray,
    ids: tuple[str, ...],
    groups: tuple[str, ...],
    candidates: Tensor,
    candidate_classes: np.ndarray,
    classes: Sequence[str],
    *,
    ks: tuple[int, ...],
    bootstrap: BootstrapConfig,
) -> LabelQueries:
    """Precision of some queries (Q, D) among candidates (M, D)."""
    names = [f"precision_at_{k}" for k in ks]
    of_queries, of_candidates = torch.as_tensor(query_classes), torch.as_tensor(candidate_classes)
    precisions = np.full((len(queries), len(ks)), np.nan)
    for column, k in enumerate(ks):
        if k <= len(candidates):
            precisions[:, column] = precision_at_k(queries, candidates, of_queries, of_candidates, k=k).numpy()
    return LabelQueries(
        values=bootstrap_estimates(lambda weights: _weighted_precision(precisions, names, weights), groups, bootstrap),
        classes={
            name: dict(zip(names, precisions[query_classes == number].mean(axis=0).tolist(), strict=True))
            for number, name in enumerate(classes)
        },
        precisions=precisions,
        query_classes=query_classes,
        query_ids=ids,
        groups=groups,
    )


def _weighted_precision(precisions: np.ndarray, names: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean precision (B,) at each depth for weights (B, Q); NaN where no query has weight."""
    with np.errstate(invalid="ignore"):
        means = weights.astype(float) @ precisions / weights.sum(axis=1, keepdims=True)
    return {name: means[:, column] for column, name in enumerate(names)}


def _run(context: ProtocolContext) -> LabelRetrievalResult | None:
    """Among the classes of 8x200 that have cases enough for queries and candidates; None for fewer than two."""
    embeddings = context.embeddings()
    if context.retrieval_lists is not None:
        ks = [k for k in (5, 10, 50) if k <= len(context.retrieval_lists.candidates)]
        return listed_retrieval(
            embeddings, context.retrieval_lists, encode_text=context.model, ks=ks, bootstrap=context.bootstrap
        )
    classes = [name for name in CHEXPERT_8X200_CLASSES if name in context.findings]
    while len(classes) > 1:
        numbers = exclusive_classes(embeddings, context.findings, classes)
        counts = np.bincount(numbers + 1, minlength=len(classes) + 1)[1:]
        enough = [name for name, count in zip(classes, counts, strict=True) if count >= 2 * IMAGE_QUERIES]
        if len(enough) == len(classes):
            break
        classes = enough
    if len(classes) < 2:
        return None
    class_prompts = context.class_prompts(classes)
    return label_retrieval(
        embeddings,
        context.findings,
        classes,
        class_prompts={name: class_prompts[name]["present"] for name in classes},
        encode_text=context.model,
        ks=(5, 10),
        per_class=min(MAX_CANDIDATES, int(counts.min()) - IMAGE_QUERIES),
        queries_per_class=IMAGE_QUERIES,
        bootstrap=context.bootstrap,
        seed=context.seed,
    )


register_protocol(Protocol("label-retrieval", _run, requires=["labels"], order=40))
