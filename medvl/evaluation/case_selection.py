"""Balanced selections of studies that show one finding alone (CheXpert 5x200 and 8x200)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.targets import check_states, require_labels
from medvl.utils.checks import check_integer, error_message

CHEXPERT_COMPETITION_FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five findings of CheXpert's competition, the classes of the 5x200 layout (Huang et al., 2021)."""

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
    """The class of each study that shows exactly one of the classes.

    A study belongs to a class where that class is present and no other finding in ``among`` is present or uncertain; to "No
    Finding", likewise, where its label says so.

    Args:
        embeddings: studies with ``labels`` (N, K).
        names: the K findings in the order of the labels' columns.
        classes: C of them.
        among: the findings that must not be present or uncertain beside it; None for the classes themselves.

    Returns:
        Class numbers (N,), -1 for a study of none.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, a state is none of 1, 0, -1 and NaN, or the
            classes are fewer than two, not unique or not among the names.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [torch.nan, 1.0], [1.0, -1.0], [0.0, 0.0]])
        >>> embeddings = Embeddings(torch.ones(5, 1), torch.ones(5, 1), labels=labels)
        >>> exclusive_classes(embeddings, ["Edema", "Fracture"], ["Fracture", "Edema"])
        array([ 1, -1,  0, -1, -1])
    """
    return exclusive_label_classes(require_labels(embeddings, names).numpy(), names, classes, among)


def exclusive_label_classes(
    labels: np.ndarray, names: Sequence[str], classes: Sequence[str], among: Sequence[str] | None = None
) -> np.ndarray:
    """The class of each label (N, K) that has exactly one of the classes; as :func:`exclusive_classes`."""
    unknown = [name for name in (*classes, *(among or ())) if name not in names]
    if unknown or len(set(classes)) < max(2, len(classes)):
        raise ValueError(
            error_message("classes", f"be two or more different ones of {list(names)}", unknown or list(classes))
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
    what: str = "cases",
) -> np.ndarray:
    """Draw equally many cases of every class.

    Args:
        class_numbers: class of each case (N,), -1 for none.
        classes: their names.
        per_class: number of each; where a class has fewer, as many of every class as it has, with a warning.
        generator: of the draws.
        what: name of the cases, for messages.

    Returns:
        Their row numbers, ascending.

    Raises:
        ValueError: If a class has no case or ``per_class`` is below 1.
    """
    check_integer(per_class, f"number of {what} of each class", minimum=1)
    available = np.bincount(class_numbers[class_numbers >= 0], minlength=len(classes))
    without = [name for name, count in zip(classes, available, strict=True) if not count]
    if without:
        raise ValueError(f"No {what} are left that show one class alone, of {', '.join(without)}.")
    number = min(per_class, int(available.min()))
    if number < per_class:
        warnings.warn(
            f"{number} in place of {per_class} {what} of each class, as there are no more of "
            f"{classes[int(available.argmin())]}.",
            RuntimeWarning,
            stacklevel=3,
        )
    drawn = [generator.permutation(np.flatnonzero(class_numbers == c))[:number] for c in range(len(classes))]
    return np.sort(np.concatenate(drawn))
