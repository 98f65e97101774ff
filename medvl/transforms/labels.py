"""Transforms of finding states: labeling of reports, and conversion to the numbers that a loss uses."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Transform

from medvl.text import Vocabulary, label_report, label_sentences, load_vocabulary, split_sentences
from medvl.text.label_table import TEXT_UNITS
from medvl.transforms.study import StudyMapTransform
from medvl.utils.checks import check_option, error_message


class LabelPolicy:
    """Map finding states to the numbers that a loss uses.

    States are 1 present, 0 absent, -1 uncertain and NaN not mentioned. The default is that of MedCLIP's similarity of label
    vectors: present 1, absent -1, uncertain 0, not mentioned 0. For a cross entropy over the findings,
    ``LabelPolicy(absent=0, uncertain=0)`` is CheXpert's U-Zeros and ``LabelPolicy(absent=0, uncertain=1)`` its U-Ones;
    ``float("nan")`` excludes a state from losses that ignore NaN.

    Args:
        present: number for present.
        absent: number for absent.
        uncertain: number for uncertain.
        missing: number for not mentioned.

    Raises:
        ValueError: If a number is infinite.
        TypeError: If an argument is not a number.

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
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(error_message(name, "be a number", repr(value)))
            if math.isinf(value):
                raise ValueError(error_message(name, "be finite or NaN", value))
        self.present, self.absent, self.uncertain, self.missing = map(float, values.values())

    def __repr__(self) -> str:
        return (
            f"LabelPolicy(present={self.present}, absent={self.absent}, uncertain={self.uncertain}, "
            f"missing={self.missing})"
        )

    def __call__(self, states: torch.Tensor | np.ndarray | Sequence[float]) -> torch.Tensor:
        """Map states to numbers.

        Args:
            states: (..., K) of 1, 0, -1 and NaN.

        Returns:
            float32 tensor of the same shape.

        Raises:
            ValueError: If a value is not one of the four states.
        """
        states = torch.as_tensor(states, dtype=torch.float32)
        missing = states.isnan()
        wrong = ~(missing | (states == 1) | (states == 0) | (states == -1))
        if wrong.any():
            raise ValueError(error_message("states", "be 1, 0, -1 or NaN", f"{states[wrong][0].item():g}"))
        numbers = torch.full_like(states, self.absent)
        numbers[states == 1] = self.present
        numbers[states == -1] = self.uncertain
        numbers[missing] = self.missing
        return numbers


class ApplyLabelPolicy(Transform):
    """Apply a :class:`LabelPolicy`.

    Args:
        policy: the policy; None makes one from the other arguments.
        present: see :class:`LabelPolicy`.
        absent: see :class:`LabelPolicy`.
        uncertain: see :class:`LabelPolicy`.
        missing: see :class:`LabelPolicy`.

    Raises:
        ValueError: If a policy and other numbers than the defaults are given; see also :class:`LabelPolicy`.

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
            raise ValueError(error_message("policy", "come without other numbers", f"{policy!r} and {own!r}"))
        self.policy = own if policy is None else policy

    def __call__(self, states: torch.Tensor | np.ndarray | Sequence[float]) -> torch.Tensor:
        """Map states (..., K) to float32 numbers of the same shape."""
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
        text_unit: ``"report"`` for one state for each finding, ``"sentence"`` for one for each sentence and finding.

    Raises:
        ValueError: If ``text_unit`` is neither.

    Example:
        >>> LabelReport()("Heart size is normal.").nan_to_num(9)[:4].tolist()
        [1.0, 9.0, 0.0, 9.0]
        >>> LabelReport(text_unit="sentence")("No edema. Pneumonia.").shape
        torch.Size([2, 14])
    """

    def __init__(self, vocabulary: str | Path | Vocabulary = "chexpert14", text_unit: str = "report") -> None:
        check_option(text_unit, "text_unit", TEXT_UNITS)
        self.text_unit = text_unit
        self.vocabulary = load_vocabulary(vocabulary)

    def __call__(self, report: str | list[str] | tuple[str, ...]) -> torch.Tensor:
        """Label one report.

        Args:
            report: the text, or the list of its sentences.

        Returns:
            float32 (K,), or (S, K) for sentences: 1 present, 0 absent, -1 uncertain, NaN not mentioned.

        Raises:
            TypeError: If ``report`` is neither a string nor a list of strings.
        """
        if self.text_unit == "report":
            text = "\n\n".join(report) if isinstance(report, list | tuple) else report
            return torch.from_numpy(label_report(text, self.vocabulary))
        if not isinstance(report, list | tuple):
            report = [report[start:end] for start, end in split_sentences(report)]
        return torch.from_numpy(label_sentences(report, self.vocabulary)[1])


class LabelReportd(StudyMapTransform):
    """Dictionary form of :class:`LabelReport`: writes ``text_label``.

    Args:
        keys: the key of the report, or of the list of its sentences.
        label_key: where the states go.
        vocabulary: see :class:`LabelReport`.
        text_unit: see :class:`LabelReport`.
        allow_missing_keys: do nothing for a study without a report.

    Raises:
        ValueError: If ``keys`` names more than one key.

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
        text_unit: str = "report",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, LabelReport(vocabulary, text_unit), allow_missing_keys)
        self.label_key = label_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Label one report."""
        return {self.label_key: self.transform(data[key])}


LabelReportD = LabelReportDict = LabelReportd
