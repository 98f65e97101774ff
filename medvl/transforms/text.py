"""Transforms of report text: selection of sections, split into sentences, draw of one sentence."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray

from medvl.text import content_sentences, extract_sections, split_sentences
from medvl.text.headers import SECTION_ALIASES, section_name
from medvl.transforms.study import RandStudyMapTransform, StudyMapTransform
from medvl.utils.checks import check_integer, check_option, check_text_list, error_message

FALLBACKS = ("all", "last_paragraph", "error")
_NUMBERED = re.compile(r"(.*?)( (?:[2-9]|[1-9][0-9]+))?", re.DOTALL)
_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n")


def section_names(sections: str | Sequence[str]) -> tuple[str, ...]:
    """The names that :func:`medvl.text.extract_sections` gives to sections, each once.

    Args:
        sections: names or headers of sections, in any case, or one of them.

    Raises:
        ValueError: If there is none, or one is no name of a section: with such a name every report would be taken whole.

    Example:
        >>> section_names(["Impression", "FINDING", "conclusion"]), section_names("impression 2")
        (('impression', 'findings'), ('impression 2',))
    """
    written = [sections] if isinstance(sections, str) else sections
    check_text_list(written, "sections")
    names = []
    for text in written:
        word, number = _NUMBERED.fullmatch(text.strip()).groups("")  # type: ignore[union-attr]
        if (name := section_name(word)) is None:
            known = ", ".join(map(repr, SECTION_ALIASES))
            raise ValueError(error_message("sections", f"hold names of sections ({known})", repr(text)))
        names.append(name + number)
    return tuple(dict.fromkeys(names))


class ExtractSections(Transform):
    """Keep the sections of a report that describe the image.

    Args:
        sections: names of the sections to keep, in the order of the result, or one name: those of
            :data:`~medvl.text.headers.SECTION_ALIASES` or any header that is read as one of them, in any case
            ("Conclusion" is the impression). Repeated sections of a name follow the first; "impression 2" is the second alone.
        fallback: the result where all of them are missing or empty: ``"all"`` the whole text, ``"last_paragraph"`` the text
            after the last blank line, ``"error"`` a ``ValueError``.
        separator: text between two sections.

    Raises:
        ValueError: If ``fallback`` is unknown, or ``sections`` is empty or holds what is no name of a section.

    Example:
        >>> ExtractSections()("INDICATION: Cough. FINDINGS: Clear lungs. IMPRESSION: Normal.")
        'Clear lungs.\\nNormal.'
        >>> ExtractSections()("Clear lungs.")
        'Clear lungs.'
    """

    def __init__(
        self, sections: Sequence[str] = ("findings", "impression"), fallback: str = "all", separator: str = "\n"
    ) -> None:
        check_option(fallback, "fallback", FALLBACKS)
        self.sections = section_names(sections)
        self.fallback, self.separator = fallback, separator

    def __call__(self, report: str) -> str:
        """Return the text of the sections.

        Args:
            report: the report.

        Raises:
            TypeError: If ``report`` is not a string.
            ValueError: If ``fallback`` is ``"error"`` and no section has text.
        """
        found = extract_sections(report)
        kept = dict.fromkeys(
            span
            for name in self.sections
            for key, span in found.items()
            if (key == name or key.startswith(f"{name} ")) and span.end > span.start
        )
        if kept:
            return self.separator.join(report[start:end] for start, end in kept)
        if self.fallback == "error":
            raise ValueError(
                error_message("report", f"have text in one of the sections {list(self.sections)}", list(found))
            )
        if self.fallback == "last_paragraph":
            return _PARAGRAPH_BREAK.split(report.strip())[-1].strip()
        return report


class ExtractSectionsd(StudyMapTransform):
    """Dictionary form of :class:`ExtractSections`: replaces the report under each key with its sections.

    Args:
        keys: keys of reports.
        sections: see :class:`ExtractSections`.
        fallback: see :class:`ExtractSections`.
        separator: see :class:`ExtractSections`.
        allow_missing_keys: skip keys that a study lacks.

    Example:
        >>> ExtractSectionsd(keys="report", sections="impression")({"report": "FINDINGS: A. IMPRESSION: Normal."})
        {'report': 'Normal.'}
    """

    def __init__(
        self,
        keys: KeysCollection = "report",
        sections: Sequence[str] = ("findings", "impression"),
        fallback: str = "all",
        separator: str = "\n",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ExtractSections(sections, fallback, separator), allow_missing_keys)


ExtractSectionsD = ExtractSectionsDict = ExtractSectionsd


class SplitSentences(Transform):
    """Split a report into sentences; see :func:`medvl.text.split_sentences`.

    Example:
        >>> SplitSentences()("No effusion. Heart is normal.")
        (['No effusion.', 'Heart is normal.'], array([[ 0, 12], [13, 29]]))
    """

    def __call__(self, report: str) -> tuple[list[str], NDArray[np.int64]]:
        """Return the S sentences and their spans in ``report``, (S, 2) of start and end."""
        spans = split_sentences(report)
        return [report[start:end] for start, end in spans], np.array(spans, dtype=np.int64).reshape(-1, 2)


class SplitSentencesd(StudyMapTransform):
    """Dictionary form of :class:`SplitSentences`: writes ``sentences`` and ``sentence_spans`` beside the report.

    Args:
        keys: the key of the report.
        sentences_key: the key of the list of sentences.
        spans_key: the key of their spans in the report, (S, 2).
        allow_missing_keys: do nothing for a study without a report.

    Raises:
        ValueError: If ``keys`` names more than one key.

    Example:
        >>> SplitSentencesd()({"report": "No effusion."})
        {'report': 'No effusion.', 'sentences': ['No effusion.'], 'sentence_spans': array([[ 0, 12]])}
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "report",
        sentences_key: str = "sentences",
        spans_key: str = "sentence_spans",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, SplitSentences(), allow_missing_keys)
        self.sentences_key, self.spans_key = sentences_key, spans_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Split one report."""
        sentences, spans = self.transform(data[key])
        return {self.sentences_key: sentences, self.spans_key: spans}


SplitSentencesD = SplitSentencesDict = SplitSentencesd


class RandSentence(Randomizable, Transform):
    """Draw one sentence of a report uniformly at random, as ConVIRT does in training (Zhang et al. 2020).

    Headers, numbers and punctuation alone ("FINDINGS:", "1.", "___") are only drawn if there is nothing else.

    Args:
        min_words: minimum number of words of two letters or more, at least 1; "No effusion." has two. If no sentence has
            that many, those with the most words are drawn from.

    Raises:
        ValueError: If ``min_words`` is below 1; at a call, if the report is empty.

    Example:
        >>> RandSentence().set_random_state(seed=0)("FINDINGS: No effusion. Heart is normal.")
        'No effusion.'
    """

    def __init__(self, min_words: int = 1) -> None:
        check_integer(min_words, "min_words", minimum=1)
        self.min_words = min_words
        self.index = 0

    def randomize(self, data: int) -> None:
        """Draw an index below ``data``."""
        self.index = int(self.R.randint(data))

    def __call__(self, report: str | Sequence[str]) -> str:
        """Draw one sentence of ``report``, which is a text or the list of its sentences."""
        eligible = content_sentences(report, self.min_words)
        if not eligible:
            raise ValueError(error_message("report", "hold a sentence", "an empty text"))
        self.randomize(len(eligible))
        return eligible[self.index]


class RandSentenced(RandStudyMapTransform):
    """Dictionary form of :class:`RandSentence`: draws from ``sentences`` or ``report`` and writes ``text``.

    Args:
        keys: the key of the report, or of the list of its sentences.
        text_key: the key of the sentence.
        min_words: see :class:`RandSentence`.
        allow_missing_keys: do nothing for a study without a report.

    Raises:
        ValueError: If ``keys`` names more than one key; see also :class:`RandSentence`.

    Example:
        >>> RandSentenced().set_random_state(seed=0)({"report": "No effusion. Heart is normal."})["text"]
        'No effusion.'
    """

    fixed_outputs = True

    def __init__(
        self,
        keys: KeysCollection = "report",
        text_key: str = "text",
        min_words: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandSentence(min_words), allow_missing_keys)
        self.text_key = text_key

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Draw a sentence of one report."""
        return {self.text_key: self.transform(data[key])}


RandSentenceD = RandSentenceDict = RandSentenced
