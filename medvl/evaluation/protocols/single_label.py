"""Zero-shot classification into classes of which each image shows exactly one (CheXpert 5x200)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvl.evaluation.case_selection import CHEXPERT_COMPETITION_FINDINGS, draw_per_class, exclusive_classes
from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.zero_shot import prompt_similarity
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.targets import require_labels
from medvl.utils.checks import check_text_list
from medvl.utils.counts import count_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SingleLabelResult", "zero_shot_single_label"]

TIE_TOLERANCE = 8 * float(np.finfo(np.float32).eps)
"""Cosines closer than this are ties."""


@dataclass(frozen=True)
class SingleLabelResult(ProtocolResult):
    """Zero-shot classification of N studies into C classes.

    Args:
        values: ``accuracy`` and ``macro_f1``.
        class_f1: F1 of each class.
        confusion: number of studies by class (rows) and predicted class (columns), (C, C).
        classes: names of the classes.
        similarity: cosine of each study with each class (N, C).
        targets: class number of each study (N,).
        predictions: predicted class number of each study (N,), a wrong one where it ties with the true one.
        study_ids: of the N studies.
        patient_ids: of the N studies.
        class_prompts: the prompts used, by class.
        settings: ensemble, numbers of cases, seed, bootstrap.
    """

    values: dict[str, Estimate]
    class_f1: dict[str, Estimate]
    confusion: np.ndarray
    classes: tuple[str, ...]
    similarity: np.ndarray
    targets: np.ndarray
    predictions: np.ndarray
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    class_prompts: dict[str, list[str]]
    settings: dict[str, Any]

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 1 / C."""
        return 1 / len(self.classes)

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) by name for weights (B, N) of the studies; see :func:`medvl.evaluation.compare`."""
        return classification_statistics(self.targets, self.predictions, self.classes, weights)

    def case_table(self) -> pd.DataFrame:
        """One row for each study: ids, class, predicted class, whether correct, and the cosine with every class."""
        import pandas as pd

        table = pd.DataFrame(
            {
                "study_id": self.study_ids,
                "patient_id": self.patient_ids,
                "target": [self.classes[c] for c in self.targets],
                "predicted": [self.classes[c] for c in self.predictions],
                "correct": self.targets == self.predictions,
            }
        )
        return table.assign(**{name: self.similarity[:, column] for column, name in enumerate(self.classes)})

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        return {
            **{name: estimate.to_dict() for name, estimate in self.values.items()},
            "chance": {"accuracy": self.chance},
            "class_f1": {name: estimate.to_dict() for name, estimate in self.class_f1.items()},
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
            "cases": len(self.targets),
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Accuracy and F1, and the confusion matrix."""
        rows = [
            Row(f"F1, {name}", [Cell(int((self.targets == c).sum()), spec="d"), Cell.of(self.class_f1[name])])
            for c, name in enumerate(self.classes)
        ]
        total = Cell(len(self.targets), spec="d")
        rows.append(Row("Macro F1", [total, Cell.of(self.values["macro_f1"])]))
        rows.append(Row("Accuracy", [total, Cell.of(self.values["accuracy"], chance=self.chance)]))
        columns = [Column("Cases"), Column("Value", compared=True, chart=True)]
        title = "Single-label zero-shot"
        confusion = [
            Row(name, [Cell(int(count), spec="d") for count in counts])
            for name, counts in zip(self.classes, self.confusion, strict=True)
        ]
        predicted = [Column(f"Predicted {name}") for name in self.classes]
        return [
            Table("single-label", title, "Metric", columns, rows, DESCRIPTION),
            Table("single-label-confusion", title, "Class", predicted, confusion, caption="Confusion matrix"),
        ]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        return EXPLANATIONS

    def key_figures(self) -> list[KeyFigure]:
        """The accuracy."""
        cell = Cell.of(self.values["accuracy"], chance=self.chance, note=f"of {len(self.classes)} classes")
        return [KeyFigure("Single-label accuracy", cell)]


DESCRIPTION = "Which one of the classes does an image show? Over images that show exactly one of them."
EXPLANATIONS = {
    "F1": "Harmonic mean of the fraction of a class that is found and the fraction of the images given the class that have it: "
    "1 is best.",
    "Macro F1": "Mean of F1 over the classes, each counted the same.",
    "Accuracy": "Fraction of the images that are given the right class: by chance 1 divided by the number of classes.",
}


def zero_shot_single_label(
    embeddings: Embeddings,
    class_prompts: Mapping[str, Sequence[str]],
    encode_text: Any,
    names: Sequence[str],
    *,
    per_class: int | None = 200,
    exclusive_among: Sequence[str] | None = None,
    ensemble: Literal["mean", "max"] = "mean",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> SingleLabelResult:
    """Which one of C classes does an image show? The 5x200 protocol (Huang et al., 2021) for any classes.

    Equally many studies of every class are drawn that show that class alone; the prediction is the class with the largest
    cosine (:func:`medvl.functional.class_similarity`). Ties of a wrong class with the true one count as errors.
    With TP the correct predictions of a class::

        accuracy = fraction of studies predicted correctly,    macro F1 = mean_c 2 TP_c / (predicted_c + studies_c).

    Args:
        embeddings: studies with ``labels`` (N, K).
        class_prompts: texts for each class, at least one each; the classes are its keys, such as
            :data:`medvl.evaluation.case_selection.CHEXPERT_COMPETITION_FINDINGS`.
        encode_text: the model, or its function from strings to (M, D).
        names: the K findings in the order of the labels' columns.
        per_class: studies of each class; None takes every study that shows one class alone, balanced or not.
        exclusive_among: findings that must not be present or uncertain beside a study's class; None for the classes.
        ensemble: how several prompts are combined, ``"mean"`` or ``"max"``.
        bootstrap: of the intervals, clustered by patient.
        seed: of the draws.

    Returns:
        The metrics. Where a class has fewer studies than asked for, as many of every class as it has are drawn, with a warning.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, or a class is not among the names, or has no
            prompt or no study.

    Example:
        >>> import torch
        >>> embeddings = Embeddings(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.ones(3, 2),
        ...     labels=torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        >>> encode = lambda texts: torch.tensor([[1.0, 0.0] if text == "edema" else [0.0, 1.0] for text in texts])
        >>> result = zero_shot_single_label(embeddings, {"Edema": ["edema"], "Fracture": ["fracture"]}, encode,
        ...     ["Edema", "Fracture"], per_class=None)
        >>> round(result.values["accuracy"].value, 4), result.confusion.tolist()
        (0.6667, [[1, 1], [0, 1]])
    """
    classes = tuple(class_prompts)
    for name, texts in class_prompts.items():
        check_text_list(texts, f"class_prompts[{name!r}]")
    numbers = exclusive_classes(embeddings, names, classes, exclusive_among)
    if per_class is None:
        rows = np.flatnonzero(numbers >= 0)
        if not len(rows):
            raise ValueError(f"No study shows one of the classes alone, of {', '.join(classes)}.")
        without = [name for c, name in enumerate(classes) if not (numbers == c).any()]
        if without:
            warnings.warn(
                f"{count_of(len(without), 'class is', 'classes are')} shown alone by no study, and therefore without an "
                f"F1: {', '.join(without)}.",
                RuntimeWarning,
                stacklevel=2,
            )
    else:
        rows = draw_per_class(numbers, classes, per_class, np.random.default_rng(seed), "studies")
    targets = numbers[rows]
    similarity = prompt_similarity(embeddings, class_prompts, encode_text, ensemble)[0][rows]
    predictions = predict_classes(similarity, targets)
    patients = tuple(embeddings.patient_ids[row] for row in rows)
    found = bootstrap_estimates(
        lambda weights: classification_statistics(targets, predictions, classes, weights),
        patients,
        bootstrap,
    )
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (targets, predictions), 1)
    return SingleLabelResult(
        values={name: found[name] for name in ("accuracy", "macro_f1")},
        class_f1={name: found[f"f1/{name}"] for name in classes},
        confusion=confusion,
        classes=classes,
        similarity=similarity,
        targets=targets,
        predictions=predictions,
        study_ids=tuple(embeddings.study_ids[row] for row in rows),
        patient_ids=patients,
        class_prompts={name: list(texts) for name, texts in class_prompts.items()},
        settings={
            "per_class": per_class,
            "exclusive_among": list(exclusive_among or classes),
            "ensemble": ensemble,
            "bootstrap": bootstrap.to_dict(),
            "seed": seed,
        },
    )


def predict_classes(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Class of the largest score (N,) of scores (N, C); a tie of a wrong class with the true one is an error.

    Example:
        >>> predict_classes(np.array([[0.5, 0.5], [-0.1, -0.2]]), np.array([0, 0]))
        array([1, 0])
    """
    lowered = scores.copy()
    lowered[np.arange(len(scores)), targets] -= TIE_TOLERANCE
    return lowered.argmax(axis=1)


def classification_statistics(
    targets: np.ndarray, predictions: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Accuracy, macro F1 and F1 by class (B,) for weights (B, N); classes without weight are left out of the mean."""
    weights = weights.astype(float)
    named = {"accuracy": weights @ (targets == predictions) / weights.sum(axis=1)}
    scores = []
    for number in range(len(classes)):
        positive, predicted = weights @ (targets == number), weights @ (predictions == number)
        true_positive = weights @ ((targets == number) & (predictions == number))
        with np.errstate(invalid="ignore"):
            scores.append(np.where(positive > 0, 2 * true_positive / (positive + predicted), np.nan))
    named["macro_f1"] = np.nanmean(scores, axis=0)
    return named | {f"f1/{name}": score for name, score in zip(classes, scores, strict=True)}


def _run(context: ProtocolContext) -> SingleLabelResult:
    embeddings = context.embeddings()
    classes = context.options.get("classes") or _default_classes(embeddings, context.findings)
    class_prompts = {name: sides["present"] for name, sides in context.class_prompts(classes).items()}
    return zero_shot_single_label(
        embeddings, class_prompts, context.model, context.findings, bootstrap=context.bootstrap, seed=context.seed
    )


def _default_classes(embeddings: Embeddings, names: Sequence[str]) -> list[str]:
    """The findings of CheXpert's competition where all are among the names, else every finding that is present."""
    if set(CHEXPERT_COMPETITION_FINDINGS) <= set(names):
        return list(CHEXPERT_COMPETITION_FINDINGS)
    present = (require_labels(embeddings, names) == 1).any(0)
    return [name for name, given in zip(names, present.tolist(), strict=True) if given]


register_protocol(Protocol("single-label", _run, requires=["labels"], options=["classes"], on_request=True, order=20))
