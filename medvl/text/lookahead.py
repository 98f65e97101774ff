"""What follows a phrase in its sentence: queries that decide whether the scope of a cue goes on."""

from __future__ import annotations

from medvl.text.phrases import PhraseMatch
from medvl.text.vocabulary import PhraseKind

_MAX_DISTANCE = 8

# A finding may follow one of these without opening a statement of its own.
_MODIFYING_KINDS = frozenset((PhraseKind.MODIFIER, PhraseKind.SEVERITY, PhraseKind.UNCERTAINTY))
_TERMINAL_KINDS = frozenset(
    (
        PhraseKind.TERM,
        PhraseKind.ONLY_ABSENT,
        PhraseKind.NORMAL_STATEMENT,
        PhraseKind.DISEASE,
        PhraseKind.BLOCKER,
        PhraseKind.WITH_PLACE,
        PhraseKind.COMMA,
        PhraseKind.STOP,
        PhraseKind.LINKER,
        PhraseKind.ALTERNATIVE,
        PhraseKind.NEGATION,
        PhraseKind.HISTORY,
        PhraseKind.FORMER,
        PhraseKind.VERSUS,
        PhraseKind.VERB,
    )
)
# What an item of a list of findings consists of.
_NAMING_KINDS = frozenset((PhraseKind.TERM, PhraseKind.ONLY_ABSENT, PhraseKind.DISEASE, PhraseKind.BLOCKER))


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
            for kind, _ in self.matches[index][0]:
                if kind == PhraseKind.ALTERNATIVE:
                    seen = True
                elif kind == PhraseKind.STOP:
                    seen = False
        return follows

    def next_statement(self, index: int) -> tuple[PhraseKind | None, bool]:
        """What precedes the next finding after phrase ``index``.

        Returns:
            The kind of word that may open a statement of its own (``CONTINUING`` or ``MODIFIER``) or None, and whether a
            body part precedes the finding.
        """
        statement = None
        for place in range(index + 1, min(index + 1 + _MAX_DISTANCE, len(self.matches))):
            for kind, _ in self.matches[place][0]:
                if kind == PhraseKind.STRUCTURE:
                    return statement, True
                if kind == PhraseKind.CONTINUING:
                    statement = kind
                elif kind in _MODIFYING_KINDS and statement is None:
                    statement = PhraseKind.MODIFIER
                elif kind == PhraseKind.TERM and self._is_subject(place):
                    return PhraseKind.CONTINUING, False
                elif kind in _TERMINAL_KINDS:
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
            kinds = {kind for kind, _ in meanings}
            if start != end:
                break
            if PhraseKind.STOP in kinds and has_term:
                count, has_term, is_alternative = count + 1, False, False
            elif PhraseKind.VERB in kinds and has_term and is_alternative:
                return count + 1  # "or effusion is seen"
            elif not kinds.isdisjoint(_NAMING_KINDS):
                has_term = True
            elif PhraseKind.ALTERNATIVE in kinds:
                is_alternative = True
            elif PhraseKind.LINKER not in kinds:
                break
            end = next_end
            if count == most:
                return count
        else:
            place = len(self.matches)
        return count + (has_term and place == len(self.matches))

    def _is_subject(self, index: int) -> bool:
        """Whether a finding is the subject of a verb and an attribute: "is stable", "is small"."""
        following = self.matches[index + 1 : index + 3]
        kinds = [{kind for kind, _ in meanings} for meanings, _, _ in following]
        if kinds and PhraseKind.PERSISTENCE in kinds[0]:
            return True
        if len(kinds) < 2:
            return False
        attribute = (PhraseKind.CONTINUING, PhraseKind.SEVERITY)
        return PhraseKind.VERB in kinds[0] and not kinds[1].isdisjoint(attribute)
