"""Transforms that write prompts from labels, and that add learnable prompt tokens to a class name."""

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
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.errors import StudyError

NO_FINDING = "No Finding"
TOKEN_KEYS = ("input_ids", "attention_mask", "sentence_ids")
_STATE_NAMES = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}


class LabelsToPrompt(Randomizable, Transform):
    """Write a label as text, from prompts of its findings.

    The findings that are present or uncertain are written; if there are none, "No Finding" if it is present, else the absent
    findings. A label without any state is an error: it is never called normal.

    Args:
        names: the K finding names, in the order of the label.
        templates: name, path, or loaded prompt templates; see :func:`medvl.text.load_prompt_templates`.
        mode: ``"random"`` draws one prompt for each of up to ``max_findings`` findings and joins them, for training;
            ``"all"`` lists every prompt of those findings, for evaluation.
        max_findings: largest number of findings in one text, at least 1.

    Raises:
        ValueError: If ``mode`` is unknown, ``max_findings`` is below 1, or ``names`` is empty or repeats a name; if a label
            has another length, a value that is not a state, or no state at all.

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
        check_option(mode, "mode", ("random", "all"))
        check_integer(max_findings, "max_findings", minimum=1)
        if isinstance(names, str) or not len(names):
            raise ValueError(error_message("names", "be a sequence of finding names", repr(names)))
        if len(set(names)) < len(names):
            raise ValueError(error_message("names", "be distinct", list(names)))
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
            raise ValueError(error_message("label", f"have shape ({len(self.names)},)", tuple(values.shape)))
        states = {}
        for name, value in zip(self.names, values.tolist(), strict=True):
            if value == value:
                if value not in _STATE_NAMES:
                    raise ValueError(error_message("label", "hold 1, 0, -1 or NaN", f"{value:g} for {name}"))
                states[name] = _STATE_NAMES[value]
        found = [(n, s) for n, s in states.items() if s != "absent" and n.lower() != NO_FINDING.lower()]
        normal = [(n, s) for n, s in states.items() if s == "present" and n.lower() == NO_FINDING.lower()]
        absent = [(n, s) for n, s in states.items() if s == "absent" and n.lower() != NO_FINDING.lower()]
        chosen = found or normal or absent
        if not chosen:
            raise ValueError(
                error_message("label", "have a state to write", "NaN (not mentioned) for every finding but No Finding")
            )
        return chosen


class LabelsToPromptd(RandStudyMapTransform):
    """Dictionary form of :class:`LabelsToPrompt`: writes ``text``.

    Args:
        keys: the key of the label.
        names: see :class:`LabelsToPrompt`.
        templates: see :class:`LabelsToPrompt`.
        mode: see :class:`LabelsToPrompt`.
        max_findings: see :class:`LabelsToPrompt`.
        text_key: the key of the prompt, or with ``mode="all"`` of the list.
        overwrite: replace a text that the study already has under ``text_key``.
        allow_missing_keys: do nothing for a study without a label.

    Raises:
        ValueError: If ``keys`` names more than one key; see also :class:`LabelsToPrompt`.

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
        """Return a copy of the study, with a prompt unless it has a text and ``overwrite`` is False."""
        return dict(data) if self.text_key in data and not self.overwrite else super().__call__(data)


LabelsToPromptD = LabelsToPromptDict = LabelsToPromptd


class AddPromptTokens(Transform):
    """Add learnable prompt tokens to a tokenized class name (CoOp, Zhou et al. 2022).

    Their ids start at ``vocab_size``, past the text model's own table;
    :class:`medvl.networks.ContinuousPromptEmbedding` maps them to learned vectors.

    Args:
        num_tokens: number of tokens to add, at least 1.
        vocab_size: size of the text model's embedding table, at least 1.
        position: ``"front"`` after the opening special tokens, ``"end"`` before the closing ones, ``"middle"`` half
            before and half after the text.
        per_class: use separate tokens for each class instead of one set for all.
        max_length: maximum length of the sequence; the text is truncated, the prompt tokens are not. None for no limit.

    Raises:
        ValueError: If an argument is out of range, or ``max_length`` leaves no room for a token of the text.

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
        check_integer(num_tokens, "num_tokens", minimum=1)
        check_integer(vocab_size, "vocab_size", minimum=1)
        check_option(position, "position", POSITIONS)
        self.num_tokens, self.vocab_size, self.position = num_tokens, vocab_size, position
        self.per_class, self.max_length = per_class, max_length

    def __call__(self, tokens: Mapping[str, Any], class_index: int = 0) -> dict[str, torch.Tensor]:
        """Add the tokens.

        Args:
            tokens: ``input_ids``, ``attention_mask`` and ``sentence_ids``, each (L,), from :class:`TokenizeText`.
            class_index: index of the class, at least 0; it is used with ``per_class``.

        Returns:
            The same three, (L + num_tokens,) or ``max_length`` if that is less; prompt tokens get the sentence id of their
            neighbor.

        Raises:
            ValueError: If ``class_index`` is negative, or ``max_length`` leaves no room for a token of the text.
        """
        check_integer(class_index, "class_index", minimum=0)
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
        """Truncate the text so that the prompt tokens fit."""
        start, stop = (int(place) for place in text_span(mask, sentences))
        surplus = max(0, int(mask.sum()) + self.num_tokens - int(self.max_length or 0))
        if surplus > max(0, stop - start - 1):
            expected = f"leave room for a token of the text beside {self.num_tokens} prompt tokens"
            raise ValueError(error_message("max_length", expected, self.max_length))
        kept = torch.cat((torch.arange(stop - surplus), torch.arange(stop, ids.shape[1])))
        return ids[:, kept], mask[:, kept], sentences[:, kept]


class AddPromptTokensd(StudyMapTransform):
    """Dictionary form of :class:`AddPromptTokens`: changes ``input_ids``, ``attention_mask`` and ``sentence_ids``.

    Args:
        keys: the key of the token ids, with or without a prefix; the other two keys have the same prefix.
        num_tokens: see :class:`AddPromptTokens`.
        vocab_size: see :class:`AddPromptTokens`.
        position: see :class:`AddPromptTokens`.
        per_class: see :class:`AddPromptTokens`.
        max_length: see :class:`AddPromptTokens`.
        class_key: the key of the class index; it is read with ``per_class``.
        allow_missing_keys: do nothing for a study without tokens.

    Raises:
        medvl.utils.errors.StudyError: If one of the other keys is missing.

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
        self.per_class, self.class_key = per_class, class_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Add prompt tokens to one sequence."""
        prefix = str(key).removesuffix("input_ids")
        for needed in [*(prefix + name for name in TOKEN_KEYS), *([self.class_key] if self.per_class else [])]:
            if needed not in data:
                raise StudyError(study_id_of(data), needed, f"the key is missing; it must stand beside {key}.")
        tokens = {name: data[prefix + name] for name in TOKEN_KEYS}
        added = self.transform(tokens, int(data[self.class_key]) if self.per_class else 0)
        return {prefix + name: value for name, value in added.items()}


AddPromptTokensD = AddPromptTokensDict = AddPromptTokensd
