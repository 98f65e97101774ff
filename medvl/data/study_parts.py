"""The parts of studies of several kinds: the views of each, its texts, and what its prompts are made from."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medvl.data.collate import IMAGE_KEYS, TEXT_KEYS
from medvl.utils.checks import check_option, error_message

# For each kind, the keys that a study must have: one of each group.
_TEXT_KEYS = ("text", "sentences", "report")
_REQUIRED_KEYS = {
    "image-text": (("image",), _TEXT_KEYS),
    "image-label": (("image",), ("label",)),
    "text-label": (_TEXT_KEYS,),
    "prompt": (("text",), ("text_label",)),
}


def check_study(study: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a study lacks a key of its kind, or its labels are not one for each of its sentences."""
    name = f"study {study.get('study_id')!r}"
    for key in ("study_id", "kind", "source"):
        if key not in study:
            raise ValueError(error_message(name, f"have the key {key!r}", sorted(study)))
    check_option(study["kind"], f"kind of {name}", tuple(_REQUIRED_KEYS))
    for choice in _REQUIRED_KEYS[study["kind"]]:
        if not any(key in study for key in choice):
            expected = f"have the key {' or '.join(map(repr, choice))} of the kind {study['kind']}"
            raise ValueError(error_message(name, expected, sorted(study)))
    if "sentences" in study and study["kind"] != "image-label":
        found, number = len(study.get("text_label", ())), len(study["sentences"])
        if found != number:
            expected = f"have one row for each sentence ({number})"
            raise ValueError(error_message(f"text_label of {name}", expected, found))


class PartList(Sequence[dict[str, Any]]):
    """Dictionaries made of parts of studies when they are asked for.

    Args:
        studies: the studies.
        make: the dictionary of a part of a study; a function of a module, so that workers that are spawned get it.
    """

    def __init__(
        self, studies: Sequence[Mapping[str, Any]], make: Callable[[Mapping[str, Any], int], dict[str, Any]]
    ) -> None:
        self._studies, self._make = studies, make
        self._rows, self._numbers = array("q"), array("i")

    def append(self, row: int, part: int = 0) -> None:
        """Add a part of the study of a row."""
        self._rows.append(row)
        self._numbers.append(part)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._make(self._studies[self._rows[index]], self._numbers[index])


def group_views(studies: Sequence[Mapping[str, Any]]) -> tuple[Iterator[list[int]], list[int]]:
    """The rows of each study's views, and those of given prompts; several texts of one id are studies of their own."""
    rows, hashes, given = array("q"), array("q"), []
    for row, study in enumerate(studies):
        check_study(study)
        if study["kind"] == "prompt":
            given.append(row)
            continue
        key = (study["source"], study["kind"], study["study_id"]) if "image" in study else row
        rows.append(row)
        hashes.append(hash(key))
    place = np.asarray(rows, dtype=np.int64)
    _, first, group = np.unique(np.asarray(hashes, dtype=np.int64), return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    ends = np.append(np.flatnonzero(np.diff(first[group][order])) + 1, len(order))
    ordered = place[order]

    def groups() -> Iterator[list[int]]:
        start = 0
        for end in ends.tolist() if len(order) else ():
            yield ordered[start:end].tolist()
            start = end

    return groups(), given


def _select_keys(study: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: study[key] for key in ("study_id", "source", *keys) if key in study}


def image_of(study: Mapping[str, Any], part: int) -> dict[str, Any]:
    """The image of a study, which is one part."""
    return _select_keys(study, IMAGE_KEYS)


def text_of(study: Mapping[str, Any], part: int) -> dict[str, Any]:
    """A text of a study: the whole, or of its sentences the one of a number."""
    if "sentences" not in study:
        return {**_select_keys(study, TEXT_KEYS), "text": study.get("text", study.get("report"))}
    return {**_select_keys(study, ()), "text": study["sentences"][part], "text_label": study["text_label"][part]}


def prompt_of(study: Mapping[str, Any], part: int) -> dict[str, Any]:
    """What a prompt is made from: the label of an image, or a prompt that is given."""
    if study["kind"] == "prompt":
        return {**_select_keys(study, TEXT_KEYS), "label": study["text_label"]}
    return {**_select_keys(study, ("label",)), "text_label": study["label"]}


def distinct_texts(views: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The distinct texts of a study's views, which mostly share one: the number of the view, and that of its sentence."""
    if views[0]["kind"] == "image-label":
        return [(0, 0)]
    found: dict[Any, tuple[int, int]] = {}
    for number, study in enumerate(views):
        for part, text in enumerate(study.get("sentences", [study.get("text", study.get("report"))])):
            found.setdefault(text, (number, part))
    return list(found.values())
