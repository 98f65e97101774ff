"""How the sentences of a report were read: words, phrases, scopes of cues, rules, and what was skipped and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medvl.text.assertion import NOT_UNDERSTOOD, REASONS, AssertedFinding, Sentence, read_clauses
from medvl.text.assertion.parts import NOWHERE
from medvl.text.characters import lower_case, original_span, plain_characters
from medvl.text.phrase_kinds import BLOCKER, KIND_NAMES, ONLY_ABSENT, STRUCTURE, WITH_PLACE, Meaning
from medvl.text.phrases import find_words, word_spans
from medvl.text.reading import read_sentences
from medvl.text.spans import Span
from medvl.text.structures import WordSpan
from medvl.text.vocabulary import Vocabulary, load_vocabulary
from medvl.utils.checks import check_text

_SKIPPED = {
    "section": "it stands in a section without observations",
    "language": "it is mostly in another language",
}
_NO_RULE = "The plain mention is present."


@dataclass(frozen=True)
class PhraseExplanation:
    """A phrase that was taken from a sentence.

    Args:
        text: its words.
        kinds: what it stands for, as ``"negation"`` or ``"term: Edema"``.
    """

    text: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class ScopeExplanation:
    """The scope of a cue in front of findings.

    Args:
        assertion: what the findings in it get.
        cue: the words of the cue; None for a list that an earlier sentence opened.
        covers: the words from the cue to the end of the scope.
        ended_by: the words at which it ended; None where the sentence ends it.
        rule: the name of the rule that ended it, or None.
        reason: the rule in a sentence.
    """

    assertion: str
    cue: str | None
    covers: str
    ended_by: str | None
    rule: str | None
    reason: str


@dataclass(frozen=True)
class FindingExplanation:
    """A finding with the rule that decided its assertion.

    Args:
        finding: its name; None for a statement of a normal study and for disease outside the vocabulary.
        kind: the kind of phrase that named it.
        text: its words.
        assertion: ``"present"``, ``"absent"``, ``"uncertain"`` or ``"past"``.
        cue: the words that decided it; None where the plain mention did.
        rule: the name of the rule, or None.
        reason: the rule in a sentence.
    """

    finding: str | None
    kind: str
    text: str
    assertion: str
    cue: str | None
    rule: str | None
    reason: str


@dataclass(frozen=True)
class SentenceExplanation:
    """How a sentence was read. ``str()`` gives it as plain text, :meth:`to_dict` as data.

    Args:
        text: the sentence.
        span: its place in the report.
        skipped: ``"section"`` or ``"language"`` where it gives no state; else None.
        corrected: words that were read as others, with what they were read as: plurals, misspellings.
        unknown: words that no phrase took.
        phrases: the phrases that were taken, in order.
        scopes: the scopes of cues in front of findings.
        findings: the findings with their assertions.
        understood: whether it says something about a finding or a body part; else the study is not called normal.
    """

    text: str
    span: Span
    skipped: str | None = None
    corrected: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    phrases: tuple[PhraseExplanation, ...] = ()
    scopes: tuple[ScopeExplanation, ...] = ()
    findings: tuple[FindingExplanation, ...] = ()
    understood: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and strings, as for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f'"{" ".join(self.text.split())}"']
        if self.skipped is not None:
            return f"{lines[0]}\n  skipped, since {_SKIPPED[self.skipped]}"
        if self.phrases:
            lines.append("  phrases: " + " | ".join(f"{p.text} ({', '.join(p.kinds)})" for p in self.phrases))
        if self.corrected:
            lines.append("  read as: " + ", ".join(f"{word} as {known}" for word, known in self.corrected))
        if self.unknown:
            lines.append("  in no phrase: " + ", ".join(self.unknown))
        for scope in self.scopes:
            cue = "a list before" if scope.cue is None else f'"{scope.cue}"'
            lines.append(f'  scope of {cue}: {scope.assertion}, over "{scope.covers}". {scope.reason}')
        for found in self.findings:
            by = "" if found.cue is None else f' by "{found.cue}"'
            name = found.finding or found.kind.replace("_", " ")
            lines.append(f'  {name}: {found.assertion}{by}, for "{found.text}". {found.reason}')
        if not self.understood:
            lines.append("  not understood: the study is not called normal")
        return "\n".join(lines)


def explain_findings(text: str, vocabulary: str | Path | Vocabulary = "chexpert14") -> list[SentenceExplanation]:
    """Explain how each sentence of a report was read.

    Args:
        text: the report.
        vocabulary: name or path for :func:`medvl.text.load_vocabulary`, or a loaded vocabulary.

    Returns:
        An explanation for each sentence but the headers, in order.

    Raises:
        TypeError: If ``text`` is not a string.
        FileNotFoundError: If ``vocabulary`` is neither a built-in vocabulary nor a file.

    Example:
        >>> print(explain_findings("No effusion, stable edema.")[0])
        "No effusion, stable edema."
          phrases: No (negation) | effusion (term: Pleural Effusion) | , (comma) | stable (continuing) | edema (term: Edema)
          scope of "No": absent, over "No effusion". A comma ends a scope if a statement of its own follows: "no pneumothorax, stable effusion", "..., heart is large".
          Pleural Effusion: absent by "No", for "effusion". It is in the scope of the cue.
          Edema: present, for "edema". The plain mention is present.
    """  # noqa: E501
    check_text(text)
    vocabulary = load_vocabulary(vocabulary)
    clean, origin = plain_characters(text)
    lower = lower_case(clean)
    list_scopes: dict[Span, str] = {}
    explanations = []
    for span, reading in read_sentences(clean, lower, vocabulary, list_scopes=list_scopes):
        place = original_span(span, origin)
        sentence = text[place.start : place.end]
        if isinstance(reading, str):
            explanations.append(SentenceExplanation(sentence, place, skipped=reading))
            continue
        reader = _Explainer(clean[span.start : span.end], lower[span.start : span.end], vocabulary)
        explanations.append(reader.explain(sentence, place, list_scopes.get(span), not reading.flags & NOT_UNDERSTOOD))
    return explanations


class _Explainer:
    """The words of a sentence, and what the rules made of them."""

    def __init__(self, clean: str, lower: str, vocabulary: Vocabulary) -> None:
        self.clean, self.vocabulary = clean, vocabulary
        self.raw, self.places = find_words(lower), word_spans(lower)
        self.words = vocabulary.matcher.normalize_words(self.raw)

    def explain(self, text: str, span: Span, list_scope: str | None, understood: bool) -> SentenceExplanation:
        matches = self.vocabulary.matcher.match(self.words)
        sentence, _ = read_clauses(matches, self.words, self.vocabulary, list_scope, details=True)
        taken = {word for phrase in sentence.phrases for word in range(phrase.start, phrase.end)}
        pairs = zip(self.raw, self.words, strict=True)
        return SentenceExplanation(
            text,
            span,
            None,
            tuple((raw, known) for raw, known in pairs if known is not None and known != raw),
            tuple(word for index, word in enumerate(self.raw) if index not in taken),
            tuple(self._phrase(phrase.words, phrase.meanings) for phrase in sentence.phrases),
            tuple(self._scopes(sentence)),
            tuple(self._finding(found) for clause in sentence.clauses for found in clause.findings),
            understood,
        )

    def _text(self, words: WordSpan) -> str:
        if words[0] >= words[1]:
            return ""
        return self.clean[self.places[words[0]][0] : self.places[words[1] - 1][1]]

    def _phrase(self, words: WordSpan, meanings: Sequence[Meaning]) -> PhraseExplanation:
        kinds = []
        for kind, value in meanings:
            name = "other disease" if kind == BLOCKER else KIND_NAMES[kind]
            kinds.append(name if value is None or kind == STRUCTURE else f"{name}: {value}")
        return PhraseExplanation(self._text(words), tuple(dict.fromkeys(kinds)))

    def _scopes(self, sentence: Sentence) -> list[ScopeExplanation]:
        found = []
        for scope in sentence.scopes:
            stop = len(self.words) if scope.stop == NOWHERE else sentence.phrases[scope.stop].start
            first = 0 if scope.cue is None else scope.cue[0]
            end = None if scope.stop == NOWHERE else self._text(sentence.phrases[scope.stop].words)
            cue = None if scope.cue is None else self._text(scope.cue)
            reason = REASONS[scope.ended_by] if scope.ended_by else "It reaches to the end of the sentence."
            found.append(ScopeExplanation(scope.assertion, cue, self._text((first, stop)), end, scope.ended_by, reason))
        return found

    def _finding(self, found: AssertedFinding) -> FindingExplanation:
        cue = None if found.cue is None else self._text(found.cue)
        reason = REASONS[found.rule] if found.rule else _NO_RULE
        if found.kind == ONLY_ABSENT and found.assertion != "absent":
            reason += " It counts only where it is denied."
        if found.kind == WITH_PLACE:
            reason += " It counts only where a body part that implies it follows."
        kind = "other disease" if found.kind == BLOCKER else KIND_NAMES[found.kind]
        return FindingExplanation(found.name, kind, self._text(found.words), found.assertion, cue, found.rule, reason)
