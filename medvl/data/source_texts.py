"""The texts of studies from several sources: sections, sentences and labels, held by column."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cells import normalize_name
from medvl.data.label_columns import match_names
from medvl.data.sources import IMAGE_LABEL, TEXT_LABEL, kind_codes
from medvl.data.study_columns import NOT_MENTIONED, Column, StatesColumn, TextColumn, states_as_float
from medvl.data.study_list import StudyList
from medvl.data.text_labels import log_other_language, read_states
from medvl.text import finding_names, split_sentences
from medvl.text.content import count_words
from medvl.transforms import ExtractSections

TEXT_UNITS = ("report", "sentence")
NO_FINDING = "no finding"


class SourceTexts(Sequence[str]):
    """The texts that are labeled: of each study the text of its report, then the sentences of that.

    A sentence is held as its span in the text, and a text only where it is not the whole report.

    Args:
        reports: the reports.
        where: (N,), the studies whose reports are texts.
        labeled: (N,), those among them whose texts are labeled.
        sections: the sections that make up a report's text.
        by_sentence: whether to split the texts that are labeled into sentences.
    """

    def __init__(
        self,
        reports: Column,
        where: NDArray[np.bool_],
        labeled: NDArray[np.bool_],
        sections: Sequence[str],
        by_sentence: bool,
    ) -> None:
        self.where, self.labeled, self.split = where, labeled, labeled & by_sentence
        self._reports, self._other = reports, TextColumn()
        spans, ends = array("I"), array("q")
        extract = ExtractSections(sections)
        for place, (has_text, is_split) in enumerate(zip(where.tolist(), self.split.tolist(), strict=True)):
            report = reports[place] if has_text else ""
            text = extract(report) if has_text else ""
            self._other.append("" if text == report else text)
            for span in _sentence_spans(text) if is_split else ():
                spans.extend(span)
            ends.append(len(spans) // 2)
        self.spans = np.frombuffer(spans, dtype=np.uint32).reshape(-1, 2)
        self.ends = np.asarray(ends, dtype=np.int64)
        sizes = labeled + np.diff(self.ends, prepend=0)
        self._starts: NDArray[np.int64] = np.cumsum(sizes) - sizes

    def text(self, place: int) -> str:
        """The text of a study."""
        return self._other[place] or self._reports[place] or ""

    def rows(self, place: int) -> slice:
        """The rows of a study's sentences among those of all."""
        return slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))

    def sentences(self, place: int) -> list[str]:
        """The sentences of a study."""
        text = self.text(place)
        return [text[start:end] for start, end in self.spans[self.rows(place)].tolist()]

    def __len__(self) -> int:
        return int(self.labeled.sum()) + len(self.spans)

    def __getitem__(self, index: Any) -> Any:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        part = index - int(self._starts[place])
        return self.sentences(place)[part - 1] if part else self.text(place)

    def __iter__(self) -> Iterator[str]:
        for place in np.flatnonzero(self.labeled).tolist():
            yield self.text(place)
            if self.split[place]:
                yield from self.sentences(place)

    def is_whole(self) -> NDArray[np.bool_]:
        """Which of the texts are those of a study, not sentences."""
        whole = np.zeros(len(self), dtype=bool)
        whole[self._starts[self.labeled]] = True
        return whole

    def keep_sentences(self, kept: NDArray[np.bool_]) -> None:
        """Keep some of the sentences; the sequence is not that of the texts to label after this."""
        self.spans = self.spans[kept]
        self.ends = np.concatenate([[0], np.cumsum(kept)])[self.ends]


class WholeTextColumn:
    """The texts of studies whose sentences are not apart."""

    def __init__(self, texts: SourceTexts) -> None:
        self._texts = texts
        self.filled = texts.where & ~texts.split

    def __len__(self) -> int:
        return len(self.filled)

    def __getitem__(self, index: int) -> str:
        return self._texts.text(index) if self.filled[index] else ""


class SentencesColumn:
    """The sentences of studies, a list each."""

    def __init__(self, texts: SourceTexts) -> None:
        self._texts = texts
        self.filled = texts.split

    def __len__(self) -> int:
        return len(self.filled)

    def __getitem__(self, index: int) -> list[str] | None:
        return self._texts.sentences(index) if self.filled[index] else None


class TextLabelColumn:
    """The labels of texts: (K,) of a whole text, or (S, K) of its sentences.

    Args:
        texts: the texts.
        whole: (N, K) int8, the states of whole texts.
        sentences: (S of all studies, K) int8, the states of sentences.
    """

    def __init__(self, texts: SourceTexts, whole: NDArray[np.int8], sentences: NDArray[np.int8]) -> None:
        self._texts, self._whole, self._sentences = texts, whole, sentences
        self.filled = texts.where

    def __len__(self) -> int:
        return len(self.filled)

    def __getitem__(self, index: int) -> NDArray[np.float32] | None:
        if not self.filled[index]:
            return None
        is_split = self._texts.split[index]
        return states_as_float(self._sentences[self._texts.rows(index)] if is_split else self._whole[index])


def add_texts(
    studies: StudyList,
    labels: NDArray[np.int8],
    names: Sequence[str],
    text_unit: str,
    sections: Sequence[str],
    vocabulary: str | Path,
    label_cache: str | Path | None,
    packed: Sequence[str | Path] = (),
    require_findings: bool = False,
) -> tuple[StudyList, int]:
    """Add ``text`` or ``sentences`` and ``text_label`` to studies with a report, and label images from their reports.

    Args:
        studies: with ``kind``, and ``report`` unless the kind is ``image-label``.
        labels: (N, K), the states of the studies' labels.
        names: the K findings, in the order of the labels.
        text_unit: ``"report"`` or ``"sentence"``.
        sections: the sections that make up a report's text.
        vocabulary: findings that texts are labeled with.
        label_cache: see :func:`label_texts`.
        packed: further caches, which are only read: those of packed studies.
        require_findings: whether to drop texts that mention no finding.

    Returns:
        The studies, and the number of texts that were dropped.
    """
    kinds = kind_codes(studies)
    has_text, has_image, given = kinds != IMAGE_LABEL, kinds != TEXT_LABEL, studies.has("label")
    labeled = has_text & (has_image | ~given)  # the label of a text alone is its own
    texts = SourceTexts(studies.column_of("report"), has_text, labeled, sections, text_unit == "sentence")
    found, text_of = read_states(texts, vocabulary, label_cache, packed=packed)
    states = np.full((len(found), len(names)), NOT_MENTIONED, dtype=np.int8)
    if len(texts):
        states[:, match_names(finding_names(vocabulary), names)] = found[:, :-1]
    is_whole = texts.is_whole()
    log_other_language(found[text_of[is_whole], -1] > 0)
    whole, sentences = labels.copy(), states[text_of[~is_whole]]
    whole[labeled] = states[text_of[is_whole]]
    del found, text_of, states
    # A report's "No Finding" is not copied into a label, which may have findings that the report lacks.
    is_no_finding = np.array([normalize_name(name) == NO_FINDING for name in names], dtype=bool)
    filled = (labels == NOT_MENTIONED) & (has_text & has_image)[:, None] & ~(given[:, None] & is_no_finding)
    labels = np.where(filled, whole, labels)
    has_label, dropped = has_image & (given | has_text), 0
    kept = np.ones(len(studies), dtype=bool)
    if require_findings:
        known_rows = (sentences != NOT_MENTIONED).any(axis=1)
        texts.keep_sentences(known_rows)
        sentences, dropped = sentences[known_rows], int((~known_rows).sum())
        known = np.where(texts.split, np.diff(texts.ends, prepend=0) > 0, (whole != NOT_MENTIONED).any(axis=1))
        kept = ~has_text | np.where(has_label, (labels != NOT_MENTIONED).any(axis=1), known)
        dropped += int((~kept & has_text & ~texts.split).sum())
    columns: dict[str, Column] = {
        "text": WholeTextColumn(texts),
        "sentences": SentencesColumn(texts),
        "text_label": TextLabelColumn(texts, whole, sentences),
        "label": StatesColumn(labels, has_label),
    }
    out = studies.with_columns(columns)
    return (out if kept.all() else out.select(kept)), dropped


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """The spans of sentences that have words: none for a text without any, unlike :func:`medvl.text.content_sentences`."""
    return (span for span in split_sentences(text) if count_words(text[span[0] : span[1]]))


def split_into_sentences(text: str) -> list[str]:
    """The sentences that have words."""
    return [text[start:end] for start, end in _sentence_spans(text)]
