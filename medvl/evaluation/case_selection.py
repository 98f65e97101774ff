"""Balanced sets of cases that show one finding alone (the 5x200 and 8x200 layouts)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.multi_label import check_states, checked_labels

CHEXPERT_COMPETITION_FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five findings of CheXpert's competition: the classes of the 5x200 layout (Huang et al., 2021)."""

CHEXPERT_8X200_CLASSES = (
    "No Finding",
    "Atelectasis",
    "Cardiomegaly",
    "Edema",
    "Fracture",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
"""The classes of the 8x200 layout (Zhang et al., 2020)."""


def exclusive_classes(
    embeddings: Embeddings, names: Sequence[str], classes: Sequence[str], among: Sequence[str] | None = None
) -> np.ndarray:
    """The one class that each study shows, where it shows one alone.

    A study is of a class where that class is present and no other finding in ``among`` is present or uncertain. "No
    Finding" among the classes is a study whose label says so, with no other finding in ``among`` present or uncertain.

    Args:
        embeddings: studies with ``labels`` (N, K).
        names: the K findings in the order of the labels' columns.
        classes: C of them.
        among: the findings that must not be there beside it; None for the classes themselves.

    Returns:
        Class numbers (N,), -1 where a study is of none.

    Raises:
        ValueError: if labels are missing or too wide, a state is none of 1, 0, -1 and NaN, or a class is not among the
            names, or stands there twice.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [torch.nan, 1.0], [1.0, -1.0], [0.0, 0.0]])
        >>> embeddings = Embeddings(torch.ones(5, 1), torch.ones(5, 1), labels=labels)
        >>> exclusive_classes(embeddings, ["Edema", "Fracture"], ["Fracture", "Edema"])
        array([ 1, -1,  0, -1, -1])
    """
    labels = checked_labels(embeddings, names).numpy()
    unknown = [name for name in (*classes, *(among or ())) if name not in names]
    if unknown or len(set(classes)) < max(2, len(classes)):
        raise ValueError(
            f"classes must be two or more different ones of {list(names)}; received {unknown or list(classes)}"
        )
    columns = [list(names).index(name) for name in classes]
    others = [list(names).index(name) for name in dict.fromkeys((*classes, *(among or ())))]
    check_states(labels[:, others])
    shown = labels == 1
    disturbed = shown | (labels == -1)
    found = np.full(len(labels), -1)
    for number, column in enumerate(columns):
        rest = [other for other in others if other != column]
        found[shown[:, column] & ~disturbed[:, rest].any(axis=1)] = number
    return found


def draw_per_class(
    class_numbers: np.ndarray,
    classes: Sequence[str],
    per_class: int,
    generator: np.random.Generator,
    purpose: str = "cases",
) -> np.ndarray:
    """Rows of equally many cases of every class, in the order of the rows.

    Args:
        class_numbers: class of each row (N,), -1 for none.
        classes: their names.
        per_class: how many of each; where a class has fewer, all classes give as many as it has, with a warning.
        generator: of the draws.
        purpose: what is drawn, for the message.

    Returns:
        Row numbers, ascending.

    Raises:
        ValueError: if a class has no row or ``per_class`` is below 1.
    """
    if per_class < 1:
        raise ValueError(f"the number of {purpose} of each class must be at least 1; received {per_class}")
    available = np.bincount(class_numbers[class_numbers >= 0], minlength=len(classes))
    without = [name for name, count in zip(classes, available, strict=True) if not count]
    if without:
        raise ValueError(f"no {purpose} left that show one class alone for: {', '.join(without)}")
    number = min(per_class, int(available.min()))
    if number < per_class:
        warnings.warn(
            f"{number} in place of {per_class} {purpose} of each class: there are no more of "
            f"{classes[int(available.argmin())]}",
            RuntimeWarning,
            stacklevel=3,
        )
    drawn = [generator.permutation(np.flatnonzero(class_numbers == c))[:number] for c in range(len(classes))]
    return np.sort(np.concatenate(drawn))
