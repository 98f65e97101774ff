"""Transforms that make prompts from labels, and that place learnable tokens beside a class name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform

from medvl.functional import insert_prompt_tokens
from medvl.functional.prompt_tokens import POSITIONS, text_span
from medvl.text import PromptTemplates, load_prompt_templates
from medvl.transforms.study import RandStudyMapTransform, StudyMapTransform, study_id_of
from medvl.utils.errors import StudyError

NO_FINDING = "No Finding"
TOKEN_KEYS = ("input_ids", "attention_mask", "sentence_ids")
_STATE_NAMES = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}


class LabelsToPrompt(Randomizable, Transform):
    """Write a label as text: prompts of its findings.

    Findings that are present or uncertain are written first; where there are none, "No Finding" if it is present, else
    absent findings. A study without any state has nothing to say and is an error: it is never called normal.

    Args:
        names: the K finding names, in the order of the label.
        templates: name, path, or loaded prompt templates; see :func:`medvl.text.load_prompt_templates`.
        mode: ``"random"`` draws one prompt for each of up to ``max_findings`` findings and joins them, for training;
            ``"all"`` lists every prompt of every finding that speaks, for evaluation.
        max_findings: most findings in one text.

    Raises:
        ValueError: for an unknown ``mode``, ``max_findings`` below 1, no names or one twice; for a label of another length
            or with values that are no states, or one without any state.

    Example:
        >>> write = LabelsToPrompt(["No Finding", "Edema"]).set_random_state(seed=0)
        >>> write([0, 1])
        'Moderate alveolar edema in both lungs is noted.'
        >>> LabelsToPrompt(["No Finding", "Edema"], mode="all")([1, 0])[:2]
        ['No acute cardiopulmonary abnormality.', 'Normal chest radiograph.']
    """

    def __init__(
        self,
        names: Sequence[str],
        templates: str | Path | PromptTemplates = "chexpert14",
        mode: str = "random",
        max_findings: int = 3,
    ) -> None:
        if mode not in ("random", "all"):
            raise ValueError(f"mode must be 'random' or 'all', got {mode!r}")
        if max_findings < 1:
            raise ValueError(f"max_findings must be at least 1, got {max_findings}")
        if isinstance(names, str) or not len(names):
            raise ValueError(f"names must be a sequence of finding names, got {names!r}")
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ, got {list(names)}")
        self.names = tuple(names)
        self.templates = load_prompt_templates(templates)
        self.mode, self.max_findings = mode, max_findings
        self.order: np.ndarray = np.zeros(0, dtype=int)

    def randomize(self, data: int) -> None:
        """Draw an order of ``data`` findings."""
        self.order = self.R.permutation(data)

    def __call__(self, label: torch.Tensor | np.ndarray | Sequence[float]) -> str | list[str]:
        """Write one label.

        Args:
            label: (K,) states: 1 present, 0 absent, -1 uncertain, NaN not mentioned.

        Returns:
            A text, or with ``mode="all"`` the list of prompts.
        """
        chosen = self._choose(label)
        if self.mode == "all":
            return [prompt for name, state in chosen for prompt in getattr(self.templates, state)(name)]
        self.randomize(len(chosen))
        picked = [chosen[i] for i in self.order[: self.max_findings]]
        return " ".join(self.templates.sample(name, state, self.R) for name, state in picked)

    def _choose(self, label: torch.Tensor | np.ndarray | Sequence[float]) -> list[tuple[str, str]]:
        values = torch.as_tensor(label, dtype=torch.float32)
        if values.shape != (len(self.names),):
            raise ValueError(f"label must have {len(self.names)} states, got shape {tuple(values.shape)}")
        states = {}
        for name, value in zip(self.names, values.tolist(), strict=True):
            if value == value:
                if value not in _STATE_NAMES:
                    raise ValueError(f"label must hold 1, 0, -1 or NaN, got {value:g} for {name}")
                states[name] = _STATE_NAMES[value]
        found = [(n, s) for n, s in states.items() if s != "absent" and n.lower() != NO_FINDING.lower()]
        normal = [(n, s) for n, s in states.items() if s == "present" and n.lower() == NO_FINDING.lower()]
        absent = [(n, s) for n, s in states.items() if s == "absent" and n.lower() != NO_FINDING.lower()]
        chosen = found or normal or absent
        if not chosen:
            raise ValueError("label has no state to write: every finding (No Finding apart) is NaN (not mentioned)")
        return chosen


class LabelsToPromptd(RandStudyMapTransform):
    """Dictionary form of :class:`LabelsToPrompt`: writes ``text``.

    Args:
        keys: the key of the label.
        names: see :class:`LabelsToPrompt`.
        templates: see :class:`LabelsToPrompt`.
        mode: see :class:`LabelsToPrompt`.
        max_findings: see :class:`LabelsToPrompt`.
        text_key: where the prompt (or with ``mode="all"`` the list) goes.
        overwrite: write also where the study has a text under ``text_key`` already.
        allow_missing_keys: do nothing for a study without a label.

    Raises:
        ValueError: if ``keys`` names more than one key; for the rest see :class:`LabelsToPrompt`.

    Example:
        >>> LabelsToPromptd(names=["Edema"])({"label": [1], "text": "Wet lungs."})["text"]
        'Wet lungs.'
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "label",
        names: Sequence[str] = (),
        templates: str | Path | PromptTemplates = "chexpert14",
        mode: str = "random",
        max_findings: int = 3,
        text_key: str = "text",
        overwrite: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, LabelsToPrompt(names, templates, mode, max_findings), allow_missing_keys)
        self.text_key, self.overwrite = text_key, overwrite

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Write one label."""
        return {self.text_key: self.transform(data[key])}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the study with a prompt, unless it has a text that is to stay."""
        return dict(data) if self.text_key in data and not self.overwrite else super().__call__(data)


LabelsToPromptD = LabelsToPromptDict = LabelsToPromptd


class AddPromptTokens(Transform):
    """Place learnable tokens beside a class name (CoOp, Zhou et al. 2022).

    The ids begin at ``vocab_size``, past the text model's own table, where
    :class:`medvl.networks.ContinuousPromptEmbedding` serves them from learned vectors.

    Args:
        num_tokens: tokens to add, at least 1.
        vocab_size: size of the text model's embedding table.
        position: ``"front"`` after the opening special tokens, ``"end"`` before the closing ones, ``"middle"`` half
            before and half after the text.
        per_class: a set of tokens of its own for each class, instead of one for all.
        max_length: longest sequence; the text gives way, never the prompt tokens.

    Raises:
        ValueError: for arguments out of range, or if ``max_length`` leaves no room for a token of the text.

    Example:
        >>> tokens = {"input_ids": [2, 50, 3], "attention_mask": [1, 1, 1], "sentence_ids": [-1, 0, -1]}
        >>> AddPromptTokens(2, vocab_size=100, position="middle")(tokens)["input_ids"].tolist()
        [2, 100, 50, 101, 3]
        >>> AddPromptTokens(2, vocab_size=100, per_class=True)(tokens, class_index=3)["input_ids"].tolist()
        [2, 106, 107, 50, 3]
    """

    def __init__(
        self,
        num_tokens: int,
        vocab_size: int,
        position: str = "front",
        per_class: bool = False,
        max_length: int | None = None,
    ) -> None:
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        if position not in POSITIONS:
            raise ValueError(f"position must be one of {POSITIONS}, got {position!r}")
        self.num_tokens, self.vocab_size, self.position = num_tokens, vocab_size, position
        self.per_class, self.max_length = per_class, max_length

    def __call__(self, tokens: Mapping[str, Any], class_index: int = 0) -> dict[str, torch.Tensor]:
        """Add the tokens.

        Args:
            tokens: ``input_ids``, ``attention_mask`` and ``sentence_ids``, each (L,), from :class:`TokenizeText`.
            class_index: the class, where ``per_class``.

        Returns:
            The same three, (L + num_tokens,) or ``max_length`` if that is less; prompt tokens count to the sentence
            that they stand beside.
        """
        if class_index < 0:
            raise ValueError(f"class_index must be at least 0, got {class_index}")
        ids, mask, sentences = (torch.as_tensor(tokens[name], dtype=torch.int64)[None] for name in TOKEN_KEYS)
        if self.max_length is not None:
            ids, mask, sentences = self._make_room(ids, mask, sentences)
        first = self.vocab_size + (class_index * self.num_tokens if self.per_class else 0)
        prompt = torch.arange(first, first + self.num_tokens)
        out = insert_prompt_tokens(ids, mask, sentences, prompt, self.position)
        return {name: values[0, : self.max_length] for name, values in zip(TOKEN_KEYS, out, strict=True)}

    def _make_room(
        self, ids: torch.Tensor, mask: torch.Tensor, sentences: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cut the end of the text as far as the prompt tokens need its place."""
        start, stop = (int(place) for place in text_span(mask, sentences))
        surplus = max(0, int(mask.sum()) + self.num_tokens - int(self.max_length or 0))
        if surplus > max(0, stop - start - 1):
            raise ValueError(
                f"max_length {self.max_length} leaves no room for the text beside {self.num_tokens} prompt tokens"
            )
        kept = torch.cat((torch.arange(stop - surplus), torch.arange(stop, ids.shape[1])))
        return ids[:, kept], mask[:, kept], sentences[:, kept]


class AddPromptTokensd(StudyMapTransform):
    """Dictionary form of :class:`AddPromptTokens`: changes ``input_ids``, ``attention_mask`` and ``sentence_ids``.

    Args:
        keys: the key of the token ids; the other two are found beside it.
        num_tokens: see :class:`AddPromptTokens`.
        vocab_size: see :class:`AddPromptTokens`.
        position: see :class:`AddPromptTokens`.
        per_class: see :class:`AddPromptTokens`.
        max_length: see :class:`AddPromptTokens`.
        class_key: the key of the class, an index, read where ``per_class``.
        allow_missing_keys: do nothing for a study without tokens.

    Raises:
        medvl.utils.errors.StudyError: where the other two keys, or that of the class, are missing beside the token ids.

    Example:
        >>> add = AddPromptTokensd(num_tokens=1, vocab_size=9)
        >>> out = add({"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "sentence_ids": [-1, 0, -1]})
        >>> out["input_ids"].tolist(), out["sentence_ids"].tolist()
        ([2, 9, 5, 3], [-1, 0, 0, -1])
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "input_ids",
        num_tokens: int = 4,
        vocab_size: int = 0,
        position: str = "front",
        per_class: bool = False,
        max_length: int | None = None,
        class_key: str = "class_index",
        allow_missing_keys: bool = False,
    ) -> None:
        transform = AddPromptTokens(num_tokens, vocab_size, position, per_class, max_length)
        super().__init__(keys, transform, allow_missing_keys)
        self.class_key = class_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Add prompt tokens to one sequence."""
        prefix, per_class = str(key).removesuffix("input_ids"), self.transform.per_class
        for needed in [*(prefix + name for name in TOKEN_KEYS), *([self.class_key] if per_class else [])]:
            if needed not in data:
                raise StudyError(study_id_of(data), needed, f"the key is missing; it must stand beside {key}.")
        tokens = {name: data[prefix + name] for name in TOKEN_KEYS}
        added = self.transform(tokens, int(data[self.class_key]) if per_class else 0)
        return {prefix + name: value for name, value in added.items()}


AddPromptTokensD = AddPromptTokensDict = AddPromptTokensd
