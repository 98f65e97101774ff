"""Cues behind findings: "is not seen", "is possible", "has resolved", and cues in front that no finding follows."""

from __future__ import annotations

from medvl.text.assertion.clauses import LOOKING_BACK, LOOKING_BACK_KINDS, VERB_KINDS, Sentence
from medvl.text.assertion.parts import ABSENT, BY_COMMA, BY_CONJUNCTION, PAST, PRESENT, UNCERTAIN, Clause, Part
from medvl.text.assertion.scopes import Scope
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    COLON,
    COMMA,
    HISTORY_AFTER,
    LINKER,
    NEGATION_AFTER,
    NEGATION_BOTH,
    NEUTRAL,
    ONLY_ABSENT,
    PERSISTENCE,
    PREDICATE,
    SEVERITY,
    SIDE,
    STRUCTURE,
    TERM,
    UNCERTAINTY,
    VERSUS,
)
from medvl.text.structures import WordSpan

# Kinds of phrases that may follow the last cue of a clause: "is likely small".
_DESCRIPTION_KINDS = SEVERITY | SIDE | NEUTRAL
_OTHER_SUBJECT_KINDS = STRUCTURE | PREDICATE | SIDE | COMMA | UNCERTAINTY
_BARE_LIST_KINDS = TERM | ONLY_ABSENT | COMMA | LINKER | ALTERNATIVE


def look_back(sentence: Sentence, clause: Clause) -> None:
    """A cue behind findings decides the last one of its clause, and the list that it ends: "edema and effusion resolved".

    A cue in front that no finding follows looks back from the end of its part: "pneumonia possible", "pneumothorax: no".
    """
    floor = count = 0  # the findings before the last cue, which it has decided, and those before this one
    for part in clause.parts:
        for index in range(part.first, min(part.stop + 1, len(sentence.phrases))):
            phrase = sentence.phrases[index]
            if phrase.kinds & LOOKING_BACK_KINDS:
                count = _count_before(clause, count, phrase.start)
                for kind, _ in phrase.meanings:
                    if kind in LOOKING_BACK and not _has_own_subject(sentence, part, index):
                        _decide(sentence, clause, range(floor, count), index, LOOKING_BACK[kind], phrase.words)
                        _answer_list(sentence, clause, range(floor, count), LOOKING_BACK[kind], phrase.words)
                        floor = count
        scope = part.unused
        if scope is not None and scope.cue is not None:
            count = _count_before(clause, count, sentence.start_of(part.stop))
            if _unused_cue_looks_back(sentence, clause, part, scope, count):
                _decide(sentence, clause, range(floor, count), part.stop, scope.assertion, scope.cue)
                _answer_list(sentence, clause, range(floor, count), scope.assertion, scope.cue)
                floor = count


def _has_own_subject(sentence: Sentence, part: Part, index: int) -> bool:
    """Whether a cue behind a comma speaks of something unknown: "widened mediastinum, aortic injury cannot be excluded".

    So does one of history behind an "and": "opacities and the exam is limited".
    """
    if sentence.phrases[index].kinds & HISTORY_AFTER and part.first and sentence.phrases[part.first - 1].kinds & LINKER:
        return not sentence.phrases[index].follows_finding
    if index != part.first or not index or not sentence.phrases[index - 1].kinds & COMMA:
        return False
    subject = sentence.words[sentence.phrases[index - 1].end : sentence.phrases[index].start]
    return not sentence.vocabulary.words["pronouns"].issuperset(subject)


def _count_before(clause: Clause, count: int, word: int) -> int:
    """The number of findings of a clause before a word; ``count`` of them are known to be."""
    while count < len(clause.findings) and clause.findings[count].words[1] <= word:
        count += 1
    return count


def _decide(sentence: Sentence, clause: Clause, places: range, index: int, assertion: str, cue: WordSpan) -> None:
    """Decide the last finding at ``places``, and those that a conjunction, or commas of such a list, join to it."""
    findings = clause.findings
    in_list = sentence.join_at(index) == BY_CONJUNCTION
    for position in reversed(places):
        finding = findings[position]
        if finding.kind == STRUCTURE:
            if assertion == UNCERTAIN and finding.assertion == PRESENT and sentence.verb_follows(finding, index):
                finding.decide(assertion, cue, "look_back")
            continue
        if finding.final:
            break
        finding.final = assertion != PAST  # "was seen on the prior film and is unchanged"
        finding.former = finding.former or assertion == PAST
        if not (assertion == ABSENT and finding.assertion == ABSENT):
            finding.decide(assertion, cue, "look_back")
        if position and findings[position - 1].words == finding.words:
            continue  # another meaning of the same words
        in_list = in_list or finding.joined == BY_CONJUNCTION
        if finding.joined is None or (finding.joined == BY_COMMA and not in_list):
            break


def _answer_list(sentence: Sentence, clause: Clause, places: range, assertion: str, cue: WordSpan) -> None:
    """An answer behind a colon holds for a list of bare findings before it: "pneumothorax, effusion, fracture: none"."""
    first = clause.parts[0].first
    if not clause.kinds & COLON or len(places) < 2:
        return
    colon = next(i for i in range(first, len(sentence.phrases)) if sentence.phrases[i].kinds & COLON)
    if sentence.phrases[colon].end != cue[0]:
        return  # "effusion: small, pneumothorax: none"
    if all(phrase.kinds & _BARE_LIST_KINDS for phrase in sentence.phrases[first:colon]):
        for position in places:
            clause.findings[position].decide(assertion, cue, "look_back")


def _unused_cue_looks_back(sentence: Sentence, clause: Clause, part: Part, scope: Scope, count: int) -> bool:
    """Whether a cue in front that no finding of its part follows decides the findings before it.

    An uncertain cue does ("pneumonia possible"), and a negation behind a colon, a verb or a comma ("pneumothorax: no",
    "effusion is not", "edema, now resolved").
    """
    if not count or scope.cue is None:
        return False
    last, end = clause.findings[count - 1], scope.cue[1]
    behind = scope.behind.kinds if scope.behind is not None else 0
    ends_clause = end == sentence.start_of(part.stop)
    is_remark = scope.kind == NEGATION_BOTH and behind & COMMA and ends_clause and last.assertion == PRESENT
    if last.part is not part and not is_remark:
        return False
    if scope.assertion == UNCERTAIN:
        return _closes_clause(sentence, end, part.stop, scope.kind == VERSUS)
    if scope.behind is not None and sentence.words[scope.behind.end - 1] in sentence.vocabulary.words["auxiliary"]:
        return False  # "the effusions have not" denies the change that another finding had
    answers = behind & COLON or (ends_clause and behind & VERB_KINDS)
    return scope.assertion == ABSENT and bool(is_remark or answers) and end == sentence.phrases[part.stop - 1].end


def _closes_clause(sentence: Sentence, end: int, stop: int, is_versus: bool) -> bool:
    """Whether an uncertain cue that ends at word ``end`` closes its clause, save for a place: "possible on the left".

    A finding that may be an artifact is open too: "the enlargement may be due to technique".
    """
    words = sentence.vocabulary.words
    if not words["artifacts"].isdisjoint(sentence.words[end : sentence.start_of(stop)]):
        return True
    if sentence.words[end - 1] in words["forward"]:
        return False
    last = stop - 1
    while _DESCRIPTION_KINDS & sentence.phrases[last].meanings[0][0]:
        last -= 1
    if end < len(sentence.words) and sentence.words[end] in words["prepositions"]:
        return True
    if end != sentence.phrases[last].end:
        return False
    follows = end < sentence.start_of(last + 1)  # "opacity likely infective" leaves the cause open
    return not follows or is_versus or sentence.words[end] in words["hedged_place"]


def restore_former(sentence: Sentence, clause: Clause) -> None:
    """A former finding that "has not changed" is still there: "the prior effusion is unchanged"."""
    for part in clause.parts:
        for phrase in sentence.phrases[part.first : part.stop + 1]:
            last = phrase.last
            was_former = last is not None and last.former and last.assertion == PAST and not last.final
            if last is not None and was_former and phrase.kinds & PERSISTENCE:
                last.decide(PRESENT, None, "restore_former")


def deny_by_pronoun(sentence: Sentence, clause: Clause) -> None:
    """A clause with "none" or "it", and no finding of its own, denies the last one: "it showed edema; none is seen today"."""
    last = sentence.last_finding
    if clause.findings or last is None or last.final or last.kind != TERM or clause.kinds & _OTHER_SUBJECT_KINDS:
        return
    phrases = [phrase for part in clause.parts for phrase in sentence.phrases[part.first : part.stop]]
    denial = next((phrase for phrase in phrases if phrase.kinds & NEGATION_AFTER), None)
    if denial is None:
        return
    first = clause.parts[0].first
    subject = sentence.words[sentence.phrases[first - 1].end if first else 0 : denial.start]
    if sentence.vocabulary.words["pronouns"].issuperset(subject):
        last.decide(ABSENT, denial.words, "deny_by_pronoun")
