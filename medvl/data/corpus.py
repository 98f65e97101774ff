"""The texts that a tokenizer is trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from medvl.data.splits import group_key
from medvl.text import load_prompt_templates
from medvl.text.prompts import STATES


class TextCorpus(NamedTuple):
    """Texts, and the patients whose reports have each of them, for :func:`medvl.transforms.train_tokenizer`.

    Args:
        texts: M texts.
        patients: M sets of patients (of studies where no patient is known), empty for a text that is no patient's.
    """

    texts: list[str]
    patients: list[set[Hashable]]


def text_corpus(
    studies: Iterable[Mapping[str, Any]],
    names: Sequence[str] = (),
    templates: str = "chexpert14",
    limit: int = 64,
    unique: bool = True,
    of_patients: bool = True,
) -> TextCorpus:
    """Every text of some studies, and prompts of every state of some findings, since those are read too.

    Args:
        studies: with ``sentences``, ``text`` or ``report``; those without give nothing.
        names: findings of which prompts are written.
        templates: name or path of prompt templates, see :func:`medvl.text.load_prompt_templates`.
        limit: most prompts of a finding and state.
        unique: whether a text that several studies have is listed once.
        of_patients: whether these are reports of patients; false for generated ones.

    Example:
        >>> studies = [{"study_id": "a", "text": "Edema."}, {"study_id": "b", "text": "Edema."}]
        >>> corpus = text_corpus(studies, ["COVID-19"], limit=1)
        >>> corpus.texts, [len(patients) for patients in corpus.patients]
        (['Edema.', 'COVID-19.', 'No COVID-19.', 'Possible COVID-19.'], [2, 0, 0, 0])
    """
    texts: list[str] = []
    patients: list[set[Hashable]] = []
    patients_of: dict[str, set[Hashable]] = defaultdict(set)
    for study in studies:
        for text in study.get("sentences") or [study.get("text") or study.get("report") or ""]:
            if not text.strip():
                continue
            if not unique or text not in patients_of:
                texts.append(text)
                patients.append(patients_of[text] if unique or not of_patients else {group_key(study)})
            if of_patients:
                patients_of[text].add(group_key(study))
    phrasings = load_prompt_templates(templates)
    prompts = [prompt for name in names for state in STATES for prompt in getattr(phrasings, state)(name, limit=limit)]
    for prompt in dict.fromkeys(prompts):
        if prompt in patients_of and unique:
            patients_of[prompt].clear()  # written, whoever's report has it too
        else:
            texts.append(prompt)
            patients.append(set())
    return TextCorpus(texts, patients)
