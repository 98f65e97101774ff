"""Prompts of classes as texts of their own to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvl.utils.checks import error_message

SOURCE = "prompts"
STATES = {"present": 1.0, "absent": 0.0}


def prompt_studies(
    class_prompts: Mapping[str, Mapping[str, Sequence[str]]],
    names: Sequence[str],
    exclude: Sequence[str] = ("No Finding",),
) -> list[dict[str, Any]]:
    """Every prompt that states or denies a finding, as a study of the kind ``prompt`` for :class:`~medvl.data.UnifiedDataset`.

    Zero-shot classification compares images with prompts, which reports do not contain. With these texts among the others, a
    model has seen them in training.

    Args:
        class_prompts: for each finding, ``{"present": [...], "absent": [...]}``, as :func:`medvl.text.make_class_prompts` gives
            them.
        names: the K findings, in the order of the labels.
        exclude: findings without prompts: "No Finding" speaks of all the others.

    Returns:
        One dictionary a prompt: ``study_id``, ``kind`` "prompt", ``source`` "prompts", ``text`` and ``text_label`` (K,), the
        state of its finding and NaN for the others.

    Raises:
        ValueError: If a finding is not among ``names``.

    Example:
        >>> studies = prompt_studies({"Edema": {"present": ["Edema."], "absent": ["No edema."]}}, ["Edema", "Fracture"])
        >>> [(study["text"], study["text_label"].tolist()) for study in studies]
        [('Edema.', [1.0, nan]), ('No edema.', [0.0, nan])]
    """
    unknown = [name for name in class_prompts if name not in names]
    if unknown:
        raise ValueError(error_message("class_prompts", f"be of findings among {list(names)}", repr(unknown[0])))
    studies = []
    for name in class_prompts:
        if name in exclude:
            continue
        for side, state in STATES.items():
            for number, text in enumerate(class_prompts[name][side]):
                label = np.full(len(names), np.nan, dtype=np.float32)
                label[list(names).index(name)] = state
                study_id = f"prompt {name} {side} {number}"
                studies.append(
                    {"study_id": study_id, "kind": "prompt", "source": SOURCE, "text": text, "text_label": label}
                )
    return studies
