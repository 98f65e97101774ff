"""The texts of studies from several sources: sections, sentences and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import normalize_name
from medvl.data.label_columns import match_names, reorder_states
from medvl.data.text_labels import log_other_language, read_texts
from medvl.text import load_vocabulary, split_sentences
from medvl.text.content import count_words
from medvl.transforms import ExtractSections

TEXT_UNITS = ("report", "sentence")
NO_FINDING = "no finding"


def add_texts(
    studies: Sequence[dict[str, Any]],
    names: Sequence[str],
    text_unit: str,
    sections: Sequence[str],
    vocabulary: str | Path,
    label_cache: str | Path | None,
    packed: Sequence[str | Path] = (),
) -> None:
    """Add ``text`` or ``sentences`` and ``text_label`` to studies with a report, and label images from their reports.

    Args:
        studies: with ``kind``, and ``report`` unless the kind is ``image-label``; changed in place.
        names: the K findings, in the order of the labels.
        text_unit: ``"report"`` or ``"sentence"``.
        sections: the sections that make up a report's text.
        vocabulary: findings that texts are labeled with.
        label_cache: see :func:`label_texts`.
        packed: further caches, which are only read: those of packed studies.
    """
    extract = ExtractSections(sections)
    to_label: list[tuple[dict[str, Any], slice]] = []
    texts: list[str] = []
    for study in studies:
        if study["kind"] == "image-label":
            continue
        study["text"] = extract(study["report"])
        if study["kind"] == "text-label" and "label" in study:
            study["text_label"] = study.pop("label")
            continue
        own = [study["text"]]
        if text_unit == "sentence":
            study["sentences"] = split_into_sentences(study.pop("text"))
            own += study["sentences"]
        to_label.append((study, slice(len(texts), len(texts) + len(own))))
        texts += own
    columns = match_names(load_vocabulary(vocabulary).names, names)
    found = read_texts(texts, vocabulary, label_cache, packed=packed)
    log_other_language(np.array([found.other_language[rows.start] for _, rows in to_label], dtype=bool))
    labels = reorder_states(found.states, columns, len(names))
    is_no_finding = np.array([normalize_name(name) == NO_FINDING for name in names], dtype=bool)
    for study, rows in to_label:
        whole, by_sentence = labels[rows][0], labels[rows][1:]
        study["text_label"] = by_sentence if "sentences" in study else whole
        if study["kind"] == "image-text":
            # A report's "No Finding" is not copied into a label, which may have findings that the report lacks.
            study["label"] = _fill_missing(study["label"], whole, ~is_no_finding) if "label" in study else whole


def _fill_missing(label: NDArray[np.float32], reported: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(np.isnan(label) & where, reported, label)


def split_into_sentences(text: str) -> list[str]:
    """The sentences that have words: none for a text without any, unlike :func:`medvl.text.content_sentences`."""
    sentences = (text[start:end] for start, end in split_sentences(text))
    return [sentence for sentence in sentences if count_words(sentence)]


def drop_unlabeled_texts(studies: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The studies without the texts that mention no finding, and the number of these texts."""
    kept, unlabeled = [], 0
    for study in studies:
        if "sentences" in study:
            known = ~np.isnan(study["text_label"]).all(1)
            unlabeled += int((~known).sum())
            sentences = [sentence for sentence, labeled in zip(study["sentences"], known, strict=True) if labeled]
            study = {**study, "sentences": sentences, "text_label": study["text_label"][known]}
        if study["kind"] == "image-label" or not np.isnan(study.get("label", study["text_label"])).all():
            kept.append(study)
        else:
            unlabeled += "text" in study
    return kept, unlabeled
