"""Labels of studies as the binary targets of a protocol, and what protocols check of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.statistics.calibration import best_f1_threshold
from medvl.utils.checks import check_option, error_message
from medvl.utils.counts import count_of

Uncertain = Literal["exclude", "present", "absent"]
UNCERTAIN_TARGETS = {"exclude": math.nan, "present": 1.0, "absent": 0.0}


def finding_targets(
    embeddings: Embeddings, names: Sequence[str], findings: Sequence[str], uncertain: Uncertain = "exclude"
) -> np.ndarray:
    """1 present, 0 absent or NaN excluded, for each study and each of the findings (N, F).

    Args:
        embeddings: studies with ``labels`` (N, K).
        names: the K findings in the order of the labels' columns.
        findings: the F of them to evaluate.
        uncertain: how a label of -1 counts: excluded, as present or as absent.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, names repeat, a finding is not among them, a
            state is none of 1, 0, -1 and NaN, or ``uncertain`` is unknown.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, 0.0], [-1.0, torch.nan]])
        >>> embeddings = Embeddings(torch.ones(2, 1), torch.ones(2, 1), labels=labels)
        >>> finding_targets(embeddings, ["Edema", "Fracture"], ["Fracture", "Edema"], uncertain="present")
        array([[ 0.,  1.],
               [nan,  1.]])
    """
    labels = require_labels(embeddings, names)
    unknown = [name for name in findings if name not in names]
    if unknown or not findings:
        raise ValueError(error_message("findings", f"be among {list(names)}", unknown or "none"))
    check_option(uncertain, "uncertain", tuple(UNCERTAIN_TARGETS))
    states = labels.numpy()[:, [list(names).index(name) for name in findings]].astype(float)
    check_states(states)
    return np.where(states == -1, UNCERTAIN_TARGETS[uncertain], states)


def require_labels(embeddings: Embeddings, names: Sequence[str]) -> Tensor:
    """The labels (N, K).

    Raises:
        ValueError: If there are none, they have another width than ``names``, or names repeat.
    """
    if embeddings.labels is None:
        raise ValueError(error_message("embeddings.labels", "hold the labels of the studies", None))
    width = embeddings.labels.shape[1]
    if width != len(names):
        raise ValueError(error_message("labels", f"have a column for each of the {len(names)} names", width))
    if len(set(names)) < len(names):
        raise ValueError(error_message("names", "be unique", list(names)))
    return embeddings.labels


def check_states(states: np.ndarray) -> None:
    """Raise ``ValueError`` where a state is none of 1, 0, -1 and NaN."""
    wrong = ~(np.isnan(states) | np.isin(states, (-1, 0, 1)))
    if wrong.any():
        raise ValueError(error_message("labels", "be 1, 0, -1 or NaN", f"{states[wrong][0]:g}"))


def check_disjoint_patients(**sets: Embeddings) -> None:
    """Raise where two sets share a patient; sets without patient ids pass.

    Raises:
        ValueError: With the names of the sets, the number of shared patients and one of them.
    """
    named = [(name, given) for name, given in sets.items() if given.patient_ids != list(map(str, range(len(given))))]
    for place, (first, one) in enumerate(named):
        for second, other in named[place + 1 :]:
            shared = sorted(set(one.patient_ids) & set(other.patient_ids))
            if shared:
                raise ValueError(
                    error_message(
                        f"{first} and {second}", "have no patient in common", f"{len(shared)}, {shared[0]!r} first"
                    )
                )


def f1_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Threshold that maximizes F1 of each finding (F,) from scores and targets (N, F); NaN without a present case."""
    known = ~np.isnan(targets) & ~np.isnan(scores)
    return np.array(
        [
            best_f1_threshold(scores[known[:, column], column], targets[known[:, column], column] == 1)
            for column in range(scores.shape[1])
        ]
    )


def has_both_classes(targets: np.ndarray) -> np.ndarray:
    """Which findings have present and absent cases among targets (N, F), boolean (F,)."""
    return np.asarray((targets == 1).any(axis=0) & (targets == 0).any(axis=0))


def warn_one_class(names: Sequence[str], stacklevel: int = 3) -> None:
    """Warn of findings whose labeled cases are all of one class."""
    if names:
        warnings.warn(
            f"{count_of(len(names), 'finding has', 'findings have')} one class only among the labeled cases; "
            f"left out of the macro means: {', '.join(names)}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
