"""Transforms of finding states: from a report, and to the numbers that a loss uses."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Transform

from medvl.text import Vocabulary, label_report, load_vocabulary, split_sentences
from medvl.text.spans import require_text
from medvl.transforms.study import StudyMapTransform


class LabelPolicy:
    """What number a loss sees for each finding state; the one place where that is decided.

    States are 1 present, 0 absent, -1 uncertain and NaN not mentioned. The default is what MedCLIP's similarity of label
    vectors wants: present 1, absent -1, and nothing (0) for what is uncertain or not mentioned. For a cross entropy over
    the findings, ``LabelPolicy(absent=0, uncertain=0)`` is CheXpert's U-Zeros and ``LabelPolicy(absent=0, uncertain=1)``
    its U-Ones; ``float("nan")`` leaves a state out of losses that skip NaN.

    Args:
        present: number for present.
        absent: number for absent.
        uncertain: number for uncertain.
        missing: number for not mentioned.

    Example:
        >>> LabelPolicy()([1, 0, -1, float("nan")]).tolist()
        [1.0, -1.0, 0.0, 0.0]
        >>> LabelPolicy(absent=0, uncertain=1)(np.array([1, 0, -1, np.nan])).tolist()
        [1.0, 0.0, 1.0, 0.0]
    """

    def __init__(
        self, present: float = 1.0, absent: float = -1.0, uncertain: float = 0.0, missing: float = 0.0
    ) -> None:
        values = {"present": present, "absent": absent, "uncertain": uncertain, "missing": missing}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
                raise ValueError(f"{name} must be a finite number or NaN, got {value!r}")
        self.present, self.absent, self.uncertain, self.missing = map(float, values.values())

    def __repr__(self) -> str:
        return (
            f"LabelPolicy(present={self.present}, absent={self.absent}, uncertain={self.uncertain}, "
            f"missing={self.missing})"
        )

    def __call__(self, states: torch.Tensor | np.ndarray | Sequence[float]) -> torch.Tensor:
        """Turn states into numbers.

        Args:
            states: (..., K) of 1, 0, -1 and NaN.

        Returns:
            float32 tensor of the same shape.

        Raises:
            ValueError: if a state is none of the four.
        """
        states = torch.as_tensor(states, dtype=torch.float32)
        missing = states.isnan()
        wrong = ~(missing | (states == 1) | (states == 0) | (states == -1))
        if wrong.any():
            raise ValueError(f"states must be 1, 0, -1 or NaN, got {states[wrong][0].item():g}")
        numbers = torch.full_like(states, self.absent)
        numbers[states == 1] = self.present
        numbers[states == -1] = self.uncertain
        numbers[missing] = self.missing
        return numbers


class ApplyLabelPolicy(Transform):
    """Apply a :class:`LabelPolicy`.

    Args:
        policy: the policy, or None to make one of the other arguments.
        present: see :class:`LabelPolicy`.
        absent: see :class:`LabelPolicy`.
        uncertain: see :class:`LabelPolicy`.
        missing: see :class:`LabelPolicy`.

    Raises:
        ValueError: for a policy beside other numbers than the default's; for the rest see :class:`LabelPolicy`.

    Example:
        >>> ApplyLabelPolicy(uncertain=0.5)([1, -1]).tolist()
        [1.0, 0.5]
    """

    def __init__(
        self,
        policy: LabelPolicy | None = None,
        present: float = 1.0,
        absent: float = -1.0,
        uncertain: float = 0.0,
        missing: float = 0.0,
    ) -> None:
        own = LabelPolicy(present, absent, uncertain, missing)
        if policy is not None and repr(own) != repr(LabelPolicy()):
            raise ValueError(f"policy and numbers of its own exclude each other, got {policy!r} and {own!r}")
        self.policy = own if policy is None else policy

    def __call__(self, states: torch.Tensor | np.ndarray | Sequence[float]) -> torch.Tensor:
        """Return float32 numbers of the same shape."""
        return self.policy(states)


class ApplyLabelPolicyd(StudyMapTransform):
    """Dictionary form of :class:`ApplyLabelPolicy`.

    Args:
        keys: keys of states.
        policy: see :class:`ApplyLabelPolicy`.
        present: see :class:`LabelPolicy`.
        absent: see :class:`LabelPolicy`.
        uncertain: see :class:`LabelPolicy`.
        missing: see :class:`LabelPolicy`.
        allow_missing_keys: skip keys that a study lacks.

    Example:
        >>> ApplyLabelPolicyd(keys="label")({"label": [1.0, 0.0]})["label"].tolist()
        [1.0, -1.0]
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        policy: LabelPolicy | None = None,
        present: float = 1.0,
        absent: float = -1.0,
        uncertain: float = 0.0,
        missing: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ApplyLabelPolicy(policy, present, absent, uncertain, missing), allow_missing_keys)


ApplyLabelPolicyD = ApplyLabelPolicyDict = ApplyLabelPolicyd


class LabelReport(Transform):
    """Finding states of a report; see :func:`medvl.text.label_report`.

    Args:
        vocabulary: name, path, or a loaded vocabulary.
        by: ``"report"`` for one state a finding, ``"sentence"`` for one a sentence and finding.

    Raises:
        ValueError: for any other ``by``.

    Example:
        >>> LabelReport()("Heart size is normal.").nan_to_num(9)[:4].tolist()
        [1.0, 9.0, 0.0, 9.0]
        >>> LabelReport(by="sentence")("No edema. Pneumonia.").shape
        torch.Size([2, 14])
    """

    def __init__(self, vocabulary: str | Path | Vocabulary = "chexpert14", by: str = "report") -> None:
        if by not in ("report", "sentence"):
            raise ValueError(f"by must be 'report' or 'sentence', got {by!r}")
        self.by = by
        self.vocabulary = load_vocabulary(vocabulary)

    def __call__(self, report: str | list[str] | tuple[str, ...]) -> torch.Tensor:
        """Label one report.

        Args:
            report: the text, or the list of its sentences.

        Returns:
            float32 (K,), or (S, K) by sentence: 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        """
        if self.by == "report":
            text = "\n\n".join(report) if isinstance(report, list | tuple) else report
            return torch.from_numpy(label_report(text, self.vocabulary))
        if not isinstance(report, list | tuple):
            report = [report[start:end] for start, end in split_sentences(require_text(report))]
        states = [label_report(sentence, self.vocabulary) for sentence in report]
        return torch.from_numpy(np.array(states, dtype=np.float32).reshape(len(states), len(self.vocabulary.names)))


class LabelReportd(StudyMapTransform):
    """Dictionary form of :class:`LabelReport`: writes ``text_label``.

    Args:
        keys: the key of the report, or of the list of its sentences.
        label_key: where the states go.
        vocabulary: see :class:`LabelReport`.
        by: see :class:`LabelReport`.
        allow_missing_keys: do nothing for a study without a report.

    Raises:
        ValueError: if ``keys`` names more than one key.

    Example:
        >>> LabelReportd()({"report": "No edema."})["text_label"].shape
        torch.Size([14])
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "report",
        label_key: str = "text_label",
        vocabulary: str | Path | Vocabulary = "chexpert14",
        by: str = "report",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, LabelReport(vocabulary, by), allow_missing_keys)
        self.label_key = label_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Label one report."""
        return {self.label_key: self.transform(data[key])}


LabelReportD = LabelReportDict = LabelReportd
