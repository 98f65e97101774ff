"""Body parts and predicates: which statements a sentence makes."""

from __future__ import annotations

import pytest

from medvl.text.structures import StructureTracker

HEART, AORTA = 0, 1


def statements(*events):
    """(structure, predicate) of each statement; words are numbered, and a number skips so many of them."""
    tracker, made, word = StructureTracker(), [], 0
    for event in events:
        if isinstance(event, int):
            word += event
            continue
        if event in ("heart", "aorta", "and aorta"):
            structure = HEART if event == "heart" else AORTA
            new = tracker.add_structure(structure, (word, word + 1), event.startswith("and"))
        elif event in ("normal", "enlarged"):
            new = tracker.add_predicate(event, (word, word + 1))
        else:
            setattr(tracker, *{"is": ("verb_seen", True), ",": ("comma_seen", True), "end": ("predicate", None)}[event])
            new = []
        made += [(s.structure, s.predicate) for s in new]
        for s in new:
            assert s.structure_words[1] - s.structure_words[0] == s.predicate_words[1] - s.predicate_words[0] == 1
        word += 1
    return made


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (["heart", "is", "normal"], [(HEART, "normal")]),
        (["heart", "normal"], [(HEART, "normal")]),
        (["normal", "heart"], [(HEART, "normal")]),
        (["normal", "heart", "and aorta"], [(HEART, "normal"), (AORTA, "normal")]),
        (["normal", "end", "heart"], []),
        (["heart", "and aorta", "is", "normal"], [(HEART, "normal"), (AORTA, "normal")]),
        (["heart", ",", "aorta", "is", "normal"], [(HEART, "normal"), (AORTA, "normal")]),
        # A comma before the predicate separates it, unless there is a verb.
        (["heart", ",", "normal"], []),
        (["heart", ",", "is", "normal"], [(HEART, "normal")]),
        # A statement that has its verb does not share the next predicate.
        (["heart", "is", 1, "aorta", "is", "normal"], [(AORTA, "normal")]),
        (["heart", "is", "normal", "aorta", "is", "enlarged"], [(HEART, "normal"), (AORTA, "enlarged")]),
        # More than two words after a comma, and the list is over; "and" keeps it.
        (["heart", ",", 1, "aorta", "is", "normal"], [(HEART, "normal"), (AORTA, "normal")]),
        (["heart", ",", 2, "aorta", "is", "normal"], [(AORTA, "normal")]),
        (["heart", ",", 2, "and aorta", "is", "normal"], [(HEART, "normal"), (AORTA, "normal")]),
        (["heart", 5, "aorta", "is", "normal"], [(HEART, "normal"), (AORTA, "normal")]),
        # The predicate of a statement does not go on to the next body part.
        (["heart", "is", "normal", "aorta"], [(HEART, "normal")]),
        (["normal", "enlarged", "heart"], [(HEART, "enlarged")]),
    ],
)
def test_statements(events, expected):
    assert statements(*events) == expected


def test_a_statement_has_the_words_of_both_parts():
    tracker = StructureTracker()
    assert tracker.add_structure(AORTA, (2, 4), False) == []
    assert tracker.add_predicate("normal", (5, 7)) == [(AORTA, (2, 4), "normal", (5, 7))]


def test_a_predicate_inside_a_body_part_waits_for_the_next():
    tracker = StructureTracker()
    tracker.add_structure(HEART, (0, 3), False)
    assert tracker.add_predicate("normal", (2, 3)) == []
    assert tracker.add_structure(AORTA, (4, 5), False) == [(AORTA, (4, 5), "normal", (2, 3))]
    tracker = StructureTracker()
    tracker.add_structure(HEART, (0, 3), False)
    assert tracker.add_predicate("normal", (3, 4)) == [(HEART, (0, 3), "normal", (3, 4))]
