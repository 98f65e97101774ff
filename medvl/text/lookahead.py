"""What follows a phrase in its sentence: queries that decide whether the scope of a cue goes on."""

from __future__ import annotations

from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COMMA,
    CONTINUING,
    DISEASE,
    FORMER,
    HISTORY,
    LINKER,
    MODIFIER,
    NEGATION,
    NORMAL_STATEMENT,
    ONLY_ABSENT,
    PERSISTENCE,
    SEVERITY,
    STOP,
    STRUCTURE,
    TERM,
    UNCERTAINTY,
    VERB,
    VERSUS,
    WITH_PLACE,
    Kind,
    kinds_of,
)
from medvl.text.phrases import PhraseMatch

_MAX_DISTANCE = 8

# A finding may follow one of these without opening a statement of its own.
_MODIFYING_KINDS = MODIFIER | SEVERITY | UNCERTAINTY
_TERMINAL_KINDS = (
    (TERM | ONLY_ABSENT | NORMAL_STATEMENT | DISEASE | BLOCKER | WITH_PLACE)
    | (COMMA | STOP | LINKER | ALTERNATIVE | VERB)
    | (NEGATION | HISTORY | FORMER | VERSUS)
)
# A phrase of no such kind says nothing of a statement that follows.
_STATEMENT_KINDS = _TERMINAL_KINDS | _MODIFYING_KINDS | STRUCTURE | CONTINUING
# What an item of a list of findings consists of.
_NAMING_KINDS = TERM | ONLY_ABSENT | DISEASE | BLOCKER


class LookAhead:
    """Queries of the phrases after a place in a sentence.

    Args:
        matches: phrases of the sentence, as :meth:`medvl.text.phrases.PhraseMatcher.match` returns them.
    """

    __slots__ = ("_alternative_follows", "matches")

    def __init__(self, matches: list[PhraseMatch]) -> None:
        self.matches = matches
        self._alternative_follows: list[bool] | None = None

    def alternative_follows(self, index: int) -> bool:
        """Whether an "or" follows phrase ``index`` in its clause."""
        if self._alternative_follows is None:  # computed for all phrases at once, so that time stays linear
            self._alternative_follows = self._find_alternatives()
        return self._alternative_follows[index]

    def _find_alternatives(self) -> list[bool]:
        follows = [False] * len(self.matches)
        seen = False
        for index in range(len(self.matches) - 1, -1, -1):
            follows[index] = seen
            kinds = kinds_of(self.matches[index][0])
            if kinds & (ALTERNATIVE | STOP):
                seen = not kinds & STOP
        return follows

    def next_statement(self, index: int) -> tuple[Kind | None, bool]:
        """What precedes the next finding after phrase ``index``.

        Returns:
            The kind of word that may open a statement of its own (``CONTINUING`` or ``MODIFIER``) or None, and whether a
            body part precedes the finding.
        """
        statement = None
        for place in range(index + 1, min(index + 1 + _MAX_DISTANCE, len(self.matches))):
            meanings = self.matches[place][0]
            if not kinds_of(meanings) & _STATEMENT_KINDS:
                continue
            for kind, _ in meanings:
                if kind == STRUCTURE:
                    return statement, True
                if kind == CONTINUING:
                    statement = kind
                elif kind & _MODIFYING_KINDS and statement is None:
                    statement = MODIFIER
                elif kind == TERM and self._is_subject(place):
                    return CONTINUING, False
                elif kind & _TERMINAL_KINDS:
                    return statement, False
        return statement, False

    def bare_items(self, index: int, most: int) -> int:
        """Count the items of a list behind the semicolon at phrase ``index`` that name findings and nothing else.

        Args:
            index: the phrase of a semicolon.
            most: maximum number of items to count.

        Returns:
            The number of such items in a row, at most ``most``.
        """
        count, has_term, end = 0, False, self.matches[index][2]
        is_alternative = False
        for place in range(index + 1, min(index + 1 + _MAX_DISTANCE, len(self.matches))):
            meanings, start, next_end = self.matches[place]
            kinds = kinds_of(meanings)
            if start != end:
                break
            if kinds & STOP and has_term:
                count, has_term, is_alternative = count + 1, False, False
            elif kinds & VERB and has_term and is_alternative:
                return count + 1  # "or effusion is seen"
            elif kinds & _NAMING_KINDS:
                has_term = True
            elif kinds & ALTERNATIVE:
                is_alternative = True
            elif not kinds & LINKER:
                break
            end = next_end
            if count == most:
                return count
        else:
            place = len(self.matches)
        return count + (has_term and place == len(self.matches))

    def _is_subject(self, index: int) -> bool:
        """Whether a finding is the subject of a verb and an attribute: "is stable", "is small"; or of its place: "tip in"."""
        kinds = [kinds_of(meanings) for meanings, _, _ in self.matches[index + 1 : index + 3]]
        if kinds and kinds[0] & PERSISTENCE:
            return True
        if kinds and kinds[0] & TERM and self.matches[index + 1][1] == self.matches[index][2]:
            return self.matches[index + 1][0] == self.matches[index][0]  # the same finding: "NG tube | tip in stomach"
        return len(kinds) == 2 and bool(kinds[0] & VERB and kinds[1] & (CONTINUING | SEVERITY))
