"""The cells that the labels of one report give a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.text.characters import lower_case, plain_characters
from medvl.text.explanation import explain_findings
from medvl.text.findings import Mention, combine_states, find_findings, label_sentences
from medvl.text.reading import read_sentences
from medvl.text.sentences import split_sentences
from medvl.text.vocabulary import Vocabulary
from medvl.utils.checks import error_message

TEXT_UNITS = ("report", "sentence")
_CELLS = {1.0: "1", 0.0: "0", -1.0: "-1"}
_ASSERTIONS = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
_EXPLANATIONS = ("mention", "cue", "sentence")
_SENTENCE_COLUMNS = ("sentence_number", "sentence_start", "sentence_end", "sentence")


@dataclass
class LabelSummary:
    """Counts of a run of :func:`medvl.workflows.label_table`.

    Args:
        rows: number of rows read.
        empty: number of rows without a report, whose states are all blank.
        written: number of rows written.
        skipped_rows: number of rows that cannot be read, which are not written (``on_error="skip"``).
        skipped: number of sentences in sections without observations, which give no state.
        other_language: number of reports with a sentence that is mostly in another language, which gives no state.
        unmatched: for each joined table, the number of rows without a row in it.
        states: for each finding, the number of rows in which it is present, absent and uncertain.
    """

    rows: int = 0
    empty: int = 0
    written: int = 0
    skipped_rows: int = 0
    skipped: int = 0
    other_language: int = 0
    unmatched: Counter[str] = field(default_factory=Counter)
    states: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, other: LabelSummary) -> None:
        """Add the counts of other rows."""
        for name in ("rows", "empty", "written", "skipped_rows", "skipped", "other_language"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.unmatched.update(other.unmatched)
        for finding, counts in other.states.items():
            self.states.setdefault(finding, Counter()).update(counts)

    def to_dict(self) -> dict[str, Any]:
        """The counts for a JSON file."""
        counts = {name: dict(found) for name, found in self.states.items()}
        return {**vars(self), "unmatched": dict(self.unmatched), "states": counts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSummary:
        """The summary that :meth:`to_dict` wrote."""
        counts = {finding: Counter(found) for finding, found in values["states"].items()}
        return cls(**{**values, "unmatched": Counter(values["unmatched"]), "states": counts})


def label_columns(kept: Sequence[str], names: Sequence[str], text_unit: str, explain: bool) -> list[str]:
    """The columns of a labeled table: those kept of the input, and those that :func:`label_cells` gives.

    Raises:
        ValueError: If a column would be there twice.
    """
    place = _SENTENCE_COLUMNS if text_unit == "sentence" else ()
    explanations = [*(f"{name} {part}" for name in names for part in _EXPLANATIONS), "explanation"] if explain else []
    header = [*kept, *place, *names, *explanations]
    if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
        raise ValueError(error_message("path", "be a table without the columns that the output adds", repeated))
    return header


def label_cells(
    text: str, vocabulary: Vocabulary, text_unit: str, explain: bool, summary: LabelSummary
) -> Iterator[list[Any]]:
    """The added cells of each output row of one report, counted in ``summary``.

    Args:
        text: the report.
        vocabulary: the findings.
        text_unit: ``"report"`` for one row, ``"sentence"`` for one row for each sentence.
        explain: whether to add the mention, the cue and the sentence of each state, and how the text was read.
        summary: the counts to add to.
    """
    summary.rows += 1
    summary.empty += not text.strip()
    states, reasons = report_states(text, vocabulary)
    summary.skipped += reasons["section"]
    summary.other_language += reasons["language"] > 0
    mentions = find_findings(text, vocabulary) if explain else None
    explanations = explain_findings(text, vocabulary) if explain else []
    if text_unit == "report":
        summary.written += 1
        cells = _label_cells(text, states.tolist(), vocabulary, mentions, summary)
        yield [*cells, "\n".join(map(str, explanations))] if explain else cells
        return
    _, by_sentence = label_sentences(text, vocabulary)
    for number, ((start, end), row) in enumerate(
        zip(split_sentences(text, vocabulary.conventions), by_sentence.tolist(), strict=True)
    ):
        own = None if mentions is None else [m for m in mentions if start <= m.span.start < end]
        summary.written += 1
        how = [str(one) for one in explanations if one.span == (start, end)] or [""] if explain else []
        yield [number, start, end, text[start:end], *_label_cells(text, row, vocabulary, own, summary), *how]


def report_states(text: str, vocabulary: Vocabulary) -> tuple[NDArray[np.float32], Counter[str]]:
    """The states (K,) of a report, as of :func:`medvl.text.label_report`, and how many sentences give none, by reason.

    The reasons are those of :func:`medvl.text.skipped_sentences`: ``"section"`` and ``"language"``.
    """
    plain, _ = plain_characters(text)
    readings = list(read_sentences(plain, lower_case(plain), vocabulary))
    reasons = Counter(reading for _, reading in readings if isinstance(reading, str))
    return combine_states(readings, vocabulary), reasons


def _label_cells(
    text: str, row: list[float], vocabulary: Vocabulary, mentions: list[Mention] | None, summary: LabelSummary
) -> list[str]:
    """States (K,) as cells, with explanations if there are mentions; counts them in ``summary``."""
    states = dict(zip(vocabulary.names, row, strict=True))
    for name, state in states.items():
        if state in _ASSERTIONS:
            summary.states.setdefault(name, Counter())[_ASSERTIONS[state]] += 1
    cells = [_CELLS.get(state, "") for state in states.values()]
    if mentions is not None:
        for name, state in states.items():
            cells += _explanation(text, name, _ASSERTIONS.get(state), mentions)
    return cells


def _explanation(text: str, name: str, assertion: str | None, mentions: list[Mention]) -> list[str]:
    """The mention, cue and sentence that gave a finding its state; blank where no single mention did."""
    for mention in mentions:
        if mention.finding == name and mention.assertion == assertion:
            spans = (mention.span, mention.cue, mention.sentence)
            return ["" if span is None else text[span.start : span.end] for span in spans]
    return [""] * len(_EXPLANATIONS)
