"""Zero-shot classification into classes of which each image shows exactly one (the 5x200 layout)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvl.evaluation.case_selection import draw_per_class, exclusive_classes
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.zero_shot import prompt_similarity
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate, bootstrap_estimates
from medvl.evaluation.tables import text_table

if TYPE_CHECKING:
    import pandas as pd

TIE = 8 * float(np.finfo(np.float32).eps)
"""Cosines closer than this are ties."""


@dataclass(frozen=True)
class SingleLabelResult:
    """Zero-shot classification of N studies into C classes.

    Args:
        values: ``accuracy`` and ``macro_f1``.
        class_f1: F1 of each class.
        confusion: studies of each class (rows) by what they were called (columns), (C, C).
        classes: names of the classes.
        similarity: cosine of each study with each class (N, C).
        targets: class number of each study (N,).
        predictions: the class it was called (N,), a wrong one where it ties with the right one.
        study_ids: of the N studies.
        patient_ids: of the N studies.
        prompts: the prompts used, by class.
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
    prompts: dict[str, list[str]]
    settings: dict[str, Any]

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 1 / C."""
        return 1 / len(self.classes)

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (B,) by name for weights (B, N) of the studies; see :func:`medvl.evaluation.compare`."""
        return classification_figures(self.targets, self.predictions, self.classes, weights)

    def case_table(self) -> pd.DataFrame:
        """One row for each study: ids, class, predicted class, whether right, and the cosine with every class."""
        import pandas as pd

        table = pd.DataFrame(
            {
                "study_id": self.study_ids,
                "patient_id": self.patient_ids,
                "target": [self.classes[c] for c in self.targets],
                "predicted": [self.classes[c] for c in self.predictions],
                "right": self.targets == self.predictions,
            }
        )
        return table.assign(**{name: self.similarity[:, column] for column, name in enumerate(self.classes)})

    def to_dict(self) -> dict[str, Any]:
        """Figures and settings as ``evaluation.json`` has them."""
        return {
            **{name: estimate.to_dict() for name, estimate in self.values.items()},
            "chance": {"accuracy": self.chance},
            "class_f1": {name: estimate.to_dict() for name, estimate in self.class_f1.items()},
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
            "cases": len(self.targets),
            "settings": self.settings,
        }

    def table(self, untrained: SingleLabelResult | None = None) -> str:
        """The figures as a plain-text table, with an untrained model's F1 and accuracy beside them."""
        rows = [
            [name, str(int((self.targets == c).sum())), str(self.class_f1[name])] for c, name in enumerate(self.classes)
        ]
        rows.append(["Macro", str(len(self.targets)), str(self.values["macro_f1"])])
        head = ["Class", "Cases", "F1"]
        accuracy = f"Accuracy {self.values['accuracy']}, chance {self.chance:.3f}"
        if untrained is not None:
            head.append("Untrained F1")
            for row, other in zip(rows, [*untrained.class_f1.values(), untrained.values["macro_f1"]], strict=True):
                row.append(str(other))
            accuracy += f", untrained {untrained.values['accuracy']}"
        return text_table(head, rows, rule_before_last=True) + "\n" + accuracy


def zero_shot_single_label(
    embeddings: Embeddings,
    prompts: Mapping[str, Sequence[str]],
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

    As many studies of every class are drawn that show that class alone; an image is called what it has the largest cosine
    with (:func:`medvl.functional.class_similarity`). Where a wrong class ties with the right one, the image counts as wrong.

        accuracy = share of studies called right,    macro-F1 = mean_c 2 TP_c / (called_c + studies_c).

    Args:
        embeddings: studies with ``labels`` (N, K).
        prompts: texts for each class, at least one each; the classes are its keys, such as
            :data:`medvl.evaluation.case_selection.CHEXPERT_COMPETITION_FINDINGS`.
        encode_text: the model, or its function from strings to (M, D).
        names: the K findings in the order of the labels' columns.
        per_class: studies of each class; None takes every study that shows one class alone, balanced or not.
        exclusive_among: findings that must not be there (nor be uncertain) beside a study's class; None for the classes.
        ensemble: how several prompts count, ``"mean"`` or ``"max"``.
        bootstrap: of the intervals, clustered by patient.
        seed: of the draws.

    Returns:
        The figures. Where a class has fewer studies than asked, all classes have as many as it, with a warning.

    Raises:
        ValueError: if labels are missing or too wide, a class is not among the names, has no prompt or no study.

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
    classes = tuple(prompts)
    for name, texts in prompts.items():
        if isinstance(texts, str) or not texts:
            raise ValueError(f"prompts for {name!r} need a list of at least one prompt")
    numbers = exclusive_classes(embeddings, names, classes, exclusive_among)
    if per_class is None:
        rows = np.flatnonzero(numbers >= 0)
        if not len(rows):
            raise ValueError(f"no study shows one of the classes alone: {', '.join(classes)}")
        without = [name for c, name in enumerate(classes) if not (numbers == c).any()]
        if without:
            warnings.warn(
                f"{len(without)} class(es) have no study that shows them alone and no F1: {', '.join(without)}",
                RuntimeWarning,
                stacklevel=2,
            )
    else:
        rows = draw_per_class(numbers, classes, per_class, np.random.default_rng(seed), "studies")
    targets = numbers[rows]
    similarity = prompt_similarity(embeddings, prompts, encode_text, ensemble)[0][rows]
    predictions = pessimistic_argmax(similarity, targets)
    patients = tuple(embeddings.patient_ids[row] for row in rows)
    found = bootstrap_estimates(
        lambda weights: classification_figures(targets, predictions, classes, weights),
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
        prompts={name: list(texts) for name, texts in prompts.items()},
        settings={
            "per_class": per_class,
            "exclusive_among": list(exclusive_among or classes),
            "ensemble": ensemble,
            "bootstrap": bootstrap.to_dict(),
            "seed": seed,
        },
    )


def pessimistic_argmax(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Class of the largest score (N,) of scores (N, C); where a wrong class ties with the right one, the wrong one.

    Example:
        >>> pessimistic_argmax(np.array([[0.5, 0.5], [-0.1, -0.2]]), np.array([0, 0]))
        array([1, 0])
    """
    lowered = scores.copy()
    lowered[np.arange(len(scores)), targets] -= TIE
    return lowered.argmax(axis=1)


def classification_figures(
    targets: np.ndarray, predictions: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Accuracy, macro-F1 and F1 by class (B,) for weights (B, N); classes without weight have no part in the mean."""
    weights = weights.astype(float)
    named = {"accuracy": weights @ (targets == predictions) / weights.sum(axis=1)}
    scores = []
    for number in range(len(classes)):
        shown, called = weights @ (targets == number), weights @ (predictions == number)
        hit = weights @ ((targets == number) & (predictions == number))
        with np.errstate(invalid="ignore"):
            scores.append(np.where(shown > 0, 2 * hit / (shown + called), np.nan))
    named["macro_f1"] = np.nanmean(scores, axis=0)
    return named | {f"f1/{name}": score for name, score in zip(classes, scores, strict=True)}
