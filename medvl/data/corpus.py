"""The texts that a tokenizer is trained on."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medvl.data.splits import group_key
from medvl.data.study_list import StudyList
from medvl.text import load_prompt_templates
from medvl.text.prompts import STATES

Studies = Sequence[Mapping[str, Any]]


class TextCorpus(NamedTuple):
    """Texts, and the patients whose reports have each of them, for :func:`medvl.transforms.train_tokenizer`.

    Both are made of the studies when they are asked for, so that a million of them need little memory.

    Args:
        texts: M texts.
        patients: M sets of patients (of studies where no patient is known), empty for a text that is no patient's.
    """

    texts: Sequence[str]
    patients: Sequence[Collection[Hashable]]


class _Texts(Sequence[str]):
    """Texts of studies, each by the number of its study and its number in it, and prompts after them."""

    def __init__(self, studies: Studies, places: array[int], parts: array[int], prompts: Sequence[str]) -> None:
        self._studies, self.places, self._parts, self._prompts = studies, places, parts, prompts

    def __len__(self) -> int:
        return len(self.places) + len(self._prompts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        number = len(self.places)
        if index >= number:
            return self._prompts[index - number]
        return _texts_of(self._studies, self.places[index])[self._parts[index]]

    def __iter__(self) -> Iterator[str]:
        place, texts = -1, []
        for index, part in zip(self.places, self._parts, strict=True):
            if index != place:
                place, texts = index, _texts_of(self._studies, index)
            yield texts[part]
        yield from self._prompts


class _Patients(Sequence[Collection[Hashable]]):
    """The patients of each of some texts: those in ``shared``, by number, or the patient of the text's study."""

    def __init__(
        self, studies: Studies, places: array[int], prompts: int, shared: Mapping[int, set[Hashable]] | None
    ) -> None:
        self._studies, self._places, self._prompts, self._shared = studies, places, prompts, shared

    def __len__(self) -> int:
        return len(self._places) + self._prompts

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if self._shared is None or index >= len(self._places):
            return set()
        return self._shared[index] if index in self._shared else {_group_of(self._studies, self._places[index])}


def _texts_of(studies: Studies, place: int) -> list[str]:
    """The texts of a study, with one that is blank."""
    if isinstance(studies, StudyList):
        return studies.value("sentences", place) or [studies.text("text", place) or studies.text("report", place)]
    study = studies[place]
    return study.get("sentences") or [study.get("text") or study.get("report") or ""]


def _group_of(studies: Studies, place: int) -> tuple[str, Hashable]:
    if not isinstance(studies, StudyList):
        return group_key(studies[place])
    patient = studies.text("patient_id", place)
    return ("patient", patient) if patient else ("study", studies.text("study_id", place))


def text_corpus(
    studies: Iterable[Mapping[str, Any]],
    names: Sequence[str] = (),
    templates: str = "chexpert14",
    limit: int = 64,
    unique: bool = True,
    of_patients: bool = True,
    max_patients: int | None = None,
) -> TextCorpus:
    """Every text of some studies, and prompts of every state of some findings, since those are read too.

    Args:
        studies: with ``sentences``, ``text`` or ``report``; those without give nothing.
        names: findings of which prompts are written.
        templates: name or path of prompt templates, see :func:`medvl.text.load_prompt_templates`.
        limit: most prompts of a finding and state.
        unique: whether a text that several studies have is listed once.
        of_patients: whether these are reports of patients; false for generated ones.
        max_patients: number of patients of a text after which no more are counted; None for all.

    Example:
        >>> studies = [{"study_id": "a", "text": "Edema."}, {"study_id": "b", "text": "Edema."}]
        >>> corpus = text_corpus(studies, ["COVID-19"], limit=1)
        >>> list(corpus.texts), [len(patients) for patients in corpus.patients]
        (['Edema.', 'COVID-19.', 'No COVID-19.', 'Possible COVID-19.'], [2, 0, 0, 0])
    """
    held: Studies = studies if isinstance(studies, Sequence) else list(studies)
    places, parts = array("q"), array("q")
    hashes = array("q")  # a text's own would need its memory again
    for place in range(len(held)):
        for part, text in enumerate(_texts_of(held, place)):
            if text.strip():
                places.append(place)
                parts.append(part)
                if unique:
                    hashes.append(hash(text))
    phrasings = load_prompt_templates(templates)
    prompts = list(
        dict.fromkeys(
            prompt for name in names for state in STATES for prompt in getattr(phrasings, state)(name, limit=limit)
        )
    )
    shared: dict[int, set[Hashable]] = defaultdict(set)
    if unique:
        first, counts, of_text = _first_places(hashes)
        written = {hash(prompt) for prompt in prompts}
        taken = {number: hashes[row] for number, row in enumerate(first) if hashes[row] in written}
        prompts = [prompt for prompt in prompts if hash(prompt) not in set(taken.values())]
        for row, number in enumerate(of_text) if of_patients else ():
            if counts[number] > 1 and number not in taken and len(shared[number]) < (max_patients or len(hashes)):
                shared[number].add(_group_of(held, places[row]))
        for number in taken:  # written, whoever's report has it too
            shared[number] = set()
        places, parts = (array("q", np.asarray(values, dtype=np.int64)[first].tobytes()) for values in (places, parts))
    texts = _Texts(held, places, parts, prompts)
    return TextCorpus(texts, _Patients(held, places, len(prompts), dict(shared) if of_patients else None))


def _first_places(hashes: array[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows where each distinct hash stands first, ascending, how often each stands, and the number of each row's."""
    _, first, of_text, counts = np.unique(
        np.asarray(hashes, dtype=np.int64), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order], counts[order], rank[of_text]
