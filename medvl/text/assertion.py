"""Which findings a sentence asserts, denies or leaves open: one pass over its phrases, with the scope of each cue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medvl.text.vocabulary import Kind, Vocabulary

PRESENT, ABSENT, UNCERTAIN, PAST = "present", "absent", "uncertain", "past"

_LOOK_AHEAD = 8

Words = tuple[int, int]
Item = tuple[list[Any], int, int]


class Found:
    """A finding in a sentence, in words; ``name`` is None for other disease, ``kind`` says what sort of phrase it was."""

    __slots__ = ("assertion", "cue", "decided", "joined", "kind", "name", "severity", "side", "words")

    def __init__(self, name: str | None, kind: int, words: Words, assertion: str, cue: Words | None) -> None:
        self.name, self.kind, self.words, self.assertion, self.cue = name, kind, words, assertion, cue
        self.side: str | None = None
        self.severity: str | None = None
        self.joined: str | None = None
        self.decided = False


def resolve(items: list[Item], length: int, vocabulary: Vocabulary) -> list[Found]:
    """Decide every finding of one sentence.

    Args:
        items: phrases of the sentence, as :meth:`medvl.text.phrases.Phrases.scan` gives them.
        length: number of the sentence's words.
        vocabulary: what the phrases came from.

    Returns:
        The findings in order, with what was decided about each.
    """
    return _Sentence(items, length, vocabulary).resolve()


class _Sentence:
    """Where one pass stands: the cue in force, the findings and body parts of the clause, the last side and severity."""

    def __init__(self, items: list[Item], length: int, vocabulary: Vocabulary) -> None:
        self.items, self.length, self.vocabulary = items, length, vocabulary
        self.found: list[Found] = []
        self.state: str | None = None
        self.cue: Words | None = None
        self.cue_used = self.former = False
        self.after_verb = False
        self.clause = self.subclause = 0
        self.colon = self.comma = self.verb = self.aside = -1
        self.joint: str | None = None
        self.pending: tuple[str, Words] | None = None
        self.structures: list[tuple[int, Words]] = []
        self.structures_verb = self.structures_comma = False
        self.side: str | None = None
        self.severity: str | None = None
        self.option: Words | None = None
        self.ahead: list[bool] | None = None

    def _alternative_ahead(self, index: int) -> bool:
        """Whether an "or" follows in the clause of a phrase; found for all of them at once, when first asked."""
        if self.ahead is None:
            self.ahead = self._alternatives_ahead()
        return self.ahead[index]

    def _alternatives_ahead(self) -> list[bool]:
        ahead = [False] * len(self.items)
        seen = False
        for index in range(len(self.items) - 1, -1, -1):
            ahead[index] = seen
            for kind, _ in self.items[index][0]:
                seen = True if kind == Kind.ALTERNATIVE else False if kind == Kind.STOP else seen
        return ahead

    def resolve(self) -> list[Found]:
        handlers = _HANDLERS
        for index, (meanings, start, end) in enumerate(self.items):
            for kind, value in meanings:
                handler = handlers[kind]
                if handler is not None:
                    handler(self, index, (start, end), value)
        self._use_cue_backwards(len(self.items))
        self._describe_last()
        return self.found

    # What a cue in front governs, and where that ends.

    def _open(self, state: str, words: Words) -> None:
        self.state, self.cue, self.cue_used, self.after_verb = state, words, False, False

    def _end_cue(self) -> None:
        self.state = self.cue = None

    def _negation(self, index: int, words: Words, value: Any) -> None:
        if self.state != ABSENT or self.cue_used or self.cue is None or self.cue[1] != words[0]:
            self._open(ABSENT, words)
        self.option = None

    def _uncertainty(self, index: int, words: Words, value: Any) -> None:
        if self.state == ABSENT and not (self.cue_used and self.after_verb):
            return
        self._open(UNCERTAIN, words)

    def _versus(self, index: int, words: Words, value: Any) -> None:
        """``a versus b`` leaves both open, whatever b is."""
        last = self.found[-1] if len(self.found) > self.clause else None
        if last is not None and last.assertion == PRESENT and not last.decided:
            last.assertion, last.cue = UNCERTAIN, words
        self._uncertainty(index, words, value)

    def _history(self, index: int, words: Words, value: Any) -> None:
        self._open(PAST, words)
        self.former = False

    def _former(self, index: int, words: Words, value: Any) -> None:
        if self.state == ABSENT and not self.cue_used:
            return
        self._open(PAST, words)
        self.former = True

    def _negation_both(self, index: int, words: Words, value: Any) -> None:
        if len(self.found) > self.subclause:
            self._decide_backwards(ABSENT, words)
        else:
            self._open(ABSENT, words)
            self.aside = words[0] if words[0] == self.comma else -1

    def _negation_after(self, index: int, words: Words, value: Any) -> None:
        self._decide_backwards(ABSENT, words)

    def _uncertainty_after(self, index: int, words: Words, value: Any) -> None:
        self._decide_backwards(UNCERTAIN, words)

    def _history_after(self, index: int, words: Words, value: Any) -> None:
        self._decide_backwards(PAST, words)

    def _decide_backwards(self, state: str, words: Words) -> None:
        """Let a cue behind decide the last finding of the clause and those that "and" or "or" joins to it."""
        conjunction = self.joint == "conjunction"
        position = len(self.found) - 1
        while position >= self.clause:
            found = self.found[position]
            if found.kind == Kind.STRUCTURE:
                position -= 1
                continue
            if found.decided:
                break
            found.decided = True
            if not (state == ABSENT and found.assertion == ABSENT):
                found.assertion, found.cue = state, words
            conjunction = conjunction or found.joined == "conjunction"
            if found.joined is None or (found.joined == "comma" and not conjunction):
                break
            position -= 1
        self.joint = None
        self.after_verb = True

    def _use_cue_backwards(self, index: int) -> None:
        """A cue that ends its clause and governs nothing may speak of what came before.

        A hedge does ("pneumonia possible"), and a denial after a colon, a verb or a comma does ("pneumothorax: no",
        "effusion is not", "edema, now resolved").
        """
        if self.cue is None or self.cue_used:
            return
        begin, end = self.cue
        closes = end == (self.items[index][1] if index < len(self.items) else self.length)
        aside = closes and begin == self.aside and len(self.found) > self.clause and self.found[-1].assertion == PRESENT
        if len(self.found) == self.subclause and not aside:
            return
        answer = self.state == ABSENT and (aside or begin == self.colon or (closes and begin == self.verb))
        if (self.state == UNCERTAIN or answer) and end == self.items[index - 1][2]:
            self._decide_backwards(self.state or ABSENT, self.cue)

    # Where clauses and statements end.

    def _stop(self, index: int, words: Words, value: Any) -> None:
        self._use_cue_backwards(index)
        self._end_cue()
        self.pending = self.option = self.joint = None
        self._describe_last()
        self.clause = self.subclause = len(self.found)
        self.structures_comma = True

    def _comma(self, index: int, words: Words, value: Any) -> None:
        self._use_cue_backwards(index)
        if self.state is not None and self.cue_used:
            statement, structure = self._opens_statement(index)
            goes_on = self._alternative_ahead(index)
            if (
                structure
                or statement == Kind.CONTINUING
                or ((self.after_verb or statement is not None) and not goes_on)
            ):
                self._end_cue()
        self._describe_last()
        self.subclause = len(self.found)
        self.joint = self.joint or "comma"
        self.comma = words[1]
        self.option = None
        self.structures_comma = True

    def _colon(self, index: int, words: Words, value: Any) -> None:
        opens_list = self.cue is not None and self.cue[1] == words[0] and len(self.found) == self.subclause
        if not opens_list:
            self._end_cue()
        self._describe_last()
        self.pending = None
        self.colon = words[1]

    def _linker(self, index: int, words: Words, value: Any) -> None:
        if self.state is not None and self.cue_used:
            statement, structure = self._opens_statement(index)
            if statement is not None or structure or self.after_verb:
                self._end_cue()
        both_sides = self.side if self._follows_side(index, words) else None
        self._describe_last()
        self.side = both_sides
        self.subclause = len(self.found)
        self.joint = "conjunction"
        self.option = None

    def _opens_statement(self, index: int) -> tuple[int | None, bool]:
        """What comes before the next finding: a word that opens a statement of its own, or a body part."""
        statement = None
        for place in range(index + 1, min(index + 1 + _LOOK_AHEAD, len(self.items))):
            for kind, _ in self.items[place][0]:
                if kind == Kind.STRUCTURE:
                    return statement, True
                if kind == Kind.CONTINUING:
                    statement = kind
                elif kind in _MODIFYING and statement is None:
                    statement = Kind.MODIFIER
                elif kind == Kind.TERM and self._goes_on_to_say(place):
                    return Kind.CONTINUING, False
                elif kind in _ENDS_LOOK:
                    return statement, False
        return statement, False

    def _goes_on_to_say(self, index: int) -> bool:
        """Whether a finding is the subject of "is stable", "is small" and the like."""
        following = self.items[index + 1 : index + 3]
        kinds = [{kind for kind, _ in meanings} for meanings, _, _ in following]
        return len(kinds) == 2 and Kind.VERB in kinds[0] and not kinds[1].isdisjoint((Kind.CONTINUING, Kind.SEVERITY))

    def _verb(self, index: int, words: Words, value: Any) -> None:
        if self.cue_used:
            self.after_verb = True
        self.verb = words[1]
        self.structures_verb = True
        self.joint = self.option = None

    def _alternative(self, index: int, words: Words, value: Any) -> None:
        self.joint = "conjunction"
        self.side = None
        if self.state is not None:
            return
        self.option = words

    # Findings and body parts.

    def _term(self, index: int, words: Words, value: str, kind: int = Kind.TERM) -> None:
        state, cue = self.state or PRESENT, self.cue
        if state == PAST and self.former and value in self.vocabulary.chronic:
            state, cue = PRESENT, None
        found = Found(value, kind, words, state, cue)
        # What had a verb of its own is said; the next finding begins another statement.
        if len(self.found) > self.clause and self.found[-1].words[1] > self.verb:
            found.joined = self.joint
        if state == PRESENT and self.option is not None:
            self._choose(found)
        found.side, found.severity = self.side, self.severity
        self.side = self.severity = self.joint = self.pending = self.option = None
        self.cue_used, self.after_verb = True, False
        self.found.append(found)

    def _choose(self, found: Found) -> None:
        """``a or b`` leaves two different findings open; "atelectasis or scar" is atelectasis."""
        last = self.found[-1] if len(self.found) > self.clause else None
        if last is None or last.name is None or found.name is None or last.name == found.name or last.decided:
            return
        if last.assertion == PRESENT and found.kind == last.kind == Kind.TERM:
            found.assertion = last.assertion = UNCERTAIN
            found.cue = last.cue = self.option

    def _only_absent(self, index: int, words: Words, value: str) -> None:
        self._term(index, words, value, Kind.ONLY_ABSENT)

    def _normal_statement(self, index: int, words: Words, value: Any) -> None:
        self._term(index, words, value, Kind.NORMAL_STATEMENT)

    def _disease(self, index: int, words: Words, value: Any) -> None:
        self._term(index, words, value, Kind.DISEASE)

    def _blocker(self, index: int, words: Words, value: Any) -> None:
        self._term(index, words, value, Kind.BLOCKER)

    def _describe_last(self) -> None:
        """Where a clause ends, a side and a severity that found no finding speak of the one before: "edema is mild"."""
        last = self.found[-1] if len(self.found) > self.clause and self.joint != "conjunction" else None
        if last is not None and last.kind == Kind.TERM:
            last.side = last.side or self.side
            last.severity = last.severity or self.severity
        self.side = self.severity = None

    def _follows_side(self, index: int, words: Words) -> bool:
        """Whether a side stands right before "and": "right and left effusions"."""
        meanings, _, end = self.items[index - 1] if index else ([], 0, -1)
        return end == words[0] and any(kind == Kind.SIDE for kind, _ in meanings)

    def _side(self, index: int, words: Words, value: str) -> None:
        last = self.found[-1] if len(self.found) > self.subclause else None
        if last is not None and last.side is None and last.words[1] <= words[0] and self.joint is None:
            last.side = value
        else:
            self.side = "bilateral" if self.side not in (None, value) else value

    def _severity(self, index: int, words: Words, value: str) -> None:
        self.severity = value

    def _structure(self, index: int, words: Words, value: int) -> None:
        if self.pending is not None:
            self._say(value, words, *self.pending)
            return
        if self.structures:
            far = words[0] - self.structures[-1][1][1] > 2
            if self.structures_verb or (self.structures_comma and far and self.joint != "conjunction"):
                self.structures = []
        self.structures.append((value, words))
        self.structures_verb = self.structures_comma = False

    def _predicate(self, index: int, words: Words, value: str) -> None:
        behind = self.structures and (self.structures_verb or not self.structures_comma)
        if behind and self.structures[-1][1][1] <= words[0]:
            for structure, place in self.structures:
                self._say(structure, place, value, words)
            self.structures = []
            self.pending = None
        else:
            self.pending = (value, words)

    def _say(self, structure: int, place: Words, predicate: str, words: Words) -> None:
        """What a predicate says of a body part: "heart size is normal", "enlarged heart"."""
        span = (min(place[0], words[0]), max(place[1], words[1]))
        for name, state in self.vocabulary.structures[structure].get(predicate, {}).items():
            cue: Words | None = words
            if self.state == ABSENT:
                if state == ABSENT:
                    continue
                state, cue = ABSENT, self.cue
            elif self.state in (UNCERTAIN, PAST) and state != ABSENT:
                state, cue = self.state or state, self.cue
            found = Found(name, Kind.STRUCTURE, span, state, cue)
            found.severity = self.severity if state != ABSENT else None
            found.decided = True
            self.found.append(found)
        if self.state is not None:
            self.cue_used = True
        self.severity = None


_MODIFYING = frozenset((Kind.MODIFIER, Kind.SEVERITY, Kind.UNCERTAINTY))
_ENDS_LOOK = frozenset(
    (
        Kind.TERM,
        Kind.ONLY_ABSENT,
        Kind.NORMAL_STATEMENT,
        Kind.DISEASE,
        Kind.BLOCKER,
        Kind.COMMA,
        Kind.STOP,
        Kind.LINKER,
        Kind.ALTERNATIVE,
        Kind.NEGATION,
        Kind.HISTORY,
        Kind.FORMER,
        Kind.VERSUS,
        Kind.VERB,
    )
)
_Handler = Callable[[_Sentence, int, Words, Any], None]
_BY_KIND: dict[Kind, _Handler] = {
    Kind.TERM: _Sentence._term,
    Kind.ONLY_ABSENT: _Sentence._only_absent,
    Kind.NORMAL_STATEMENT: _Sentence._normal_statement,
    Kind.DISEASE: _Sentence._disease,
    Kind.BLOCKER: _Sentence._blocker,
    Kind.STRUCTURE: _Sentence._structure,
    Kind.PREDICATE: _Sentence._predicate,
    Kind.NEGATION: _Sentence._negation,
    Kind.NEGATION_BOTH: _Sentence._negation_both,
    Kind.NEGATION_AFTER: _Sentence._negation_after,
    Kind.UNCERTAINTY: _Sentence._uncertainty,
    Kind.UNCERTAINTY_AFTER: _Sentence._uncertainty_after,
    Kind.HISTORY: _Sentence._history,
    Kind.FORMER: _Sentence._former,
    Kind.VERSUS: _Sentence._versus,
    Kind.HISTORY_AFTER: _Sentence._history_after,
    Kind.STOP: _Sentence._stop,
    Kind.VERB: _Sentence._verb,
    Kind.LINKER: _Sentence._linker,
    Kind.ALTERNATIVE: _Sentence._alternative,
    Kind.SEVERITY: _Sentence._severity,
    Kind.SIDE: _Sentence._side,
    Kind.COMMA: _Sentence._comma,
    Kind.COLON: _Sentence._colon,
}
# Pseudo-cues, modifiers and what the vocabulary ignores are there to be longer than a cue or to be looked ahead to.
_HANDLERS: list[_Handler | None] = [_BY_KIND.get(kind) for kind in Kind]
