"""Each rule of the assertion pass on a sentence of its own: assertion, cue, side and severity, exactly."""

from __future__ import annotations

import pickle

import pytest
from test_cases import FILES, read_cases
from test_findings import challenge

from medvl.text import Vocabulary, find_findings, label_report, load_vocabulary
from medvl.text.assertion import (
    DECIDED,
    NAMED,
    RULES,
    STATES,
    assert_findings,
    classify_assertions,
    read_clauses,
    state_code,
)
from medvl.text.assertion.parts import counts
from medvl.text.phrases import find_words

E, F, C, P, X = "Edema", "Pleural Effusion", "Cardiomegaly", "Pneumonia", "Pneumothorax"


def mentions(text):
    return [(m.finding, m.assertion, m.cue and text[m.cue.start : m.cue.end]) for m in find_findings(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A scope covers the list behind its cue, and ends at "but", and at a comma or "and" with a statement of its own.
        ("No edema, effusion, or pneumonia.", [(E, "absent", "No"), (F, "absent", "No"), (P, "absent", "No")]),
        ("Edema but no effusion.", [(E, "present", None), (F, "absent", "no")]),
        ("No edema; effusion.", [(E, "absent", "No"), (F, "present", None)]),
        ("No edema, stable effusion.", [(E, "absent", "No"), (F, "present", None)]),
        ("No edema and stable effusion.", [(E, "absent", "No"), (F, "present", None)]),
        ("No edema or stable effusion.", [(E, "absent", "No"), (F, "absent", "No")]),
        ("No edema, heart is enlarged.", [(E, "absent", "No"), (C, "present", "enlarged")]),
        ("No: edema.", [(E, "absent", "No")]),
        ("No edema: effusion.", [(E, "absent", "No"), (F, "present", None)]),
        # Of two cues in front, a negation keeps what follows absent.
        ("No definite edema.", [(E, "absent", "No")]),
        ("No prior edema.", [(E, "absent", "No")]),
        ("Unlikely edema.", [(E, "absent", "Unlikely")]),
        # A cue behind decides the last finding and the list that a conjunction joins to it.
        ("Edema and effusion are possible.", [(E, "uncertain", "are possible"), (F, "uncertain", "are possible")]),
        (
            "Edema, effusion and pneumonia have resolved.",
            [(E, "absent", "have resolved"), (F, "absent", "have resolved"), (P, "absent", "have resolved")],
        ),
        ("Effusion in the past.", [(F, "past", "in the past")]),
        ("No history of edema is possible now.", [(E, "uncertain", "is possible")]),
        # A cue in front without a finding behind it looks back.
        ("Pneumonia possible.", [(P, "uncertain", "possible")]),
        ("Pneumothorax: no.", [(X, "absent", "no")]),
        ("Edema, now resolved.", [(E, "absent", "now resolved")]),
        # History, and findings that persist.
        ("History of cardiomegaly, effusion.", [(C, "past", "History of"), (F, "past", "History of")]),
        ("Effusion with history of edema.", [(F, "present", None), (E, "past", "history of")]),
        ("Prior fracture.", [("Fracture", "present", None)]),
        ("History of fracture.", [("Fracture", "past", "History of")]),
        ("Prior pneumonia.", [(P, "past", "Prior")]),
        ("The prior effusion is unchanged.", [(F, "present", None)]),
        ("The prior effusion has resolved.", [(F, "absent", "has resolved")]),
        ("Status post biopsy with edema.", [(E, "present", None)]),
        ("s/p CABG, edema.", [(E, "present", None)]),
        # A denied list goes on over semicolons, and a colon opens one.
        ("No edema; effusion; pneumonia.", [(E, "absent", "No"), (F, "absent", "No"), (P, "absent", "No")]),
        ("Not found: edema, effusion.", [(E, "absent", "Not found"), (F, "absent", "Not found")]),
        (
            "None of the following: edema; effusion.",
            [(E, "absent", "None of the following"), (F, "absent", "None of the following")],
        ),
        # What a part of a sentence leaves out.
        ("No effusion on the right, small on the left.", [(F, "absent", "No"), (F, "present", None)]),
        ("No effusion, small spur on the left.", [(F, "absent", "No")]),
        ("Right effusion resolved, left persists.", [(F, "absent", "resolved"), (F, "present", None)]),
        ("No effusion except on the left.", [(F, "absent", "No"), (F, "present", None)]),
        # An adjective in front of a finding does not look back, nor does a cue that names what follows.
        ("Effusion is probable edema.", [(F, "present", None), (E, "uncertain", "is probable")]),
        ("Edema is negative for effusion.", [(E, "present", None), (F, "absent", "negative for")]),
        ("Edema worrisome for failure.", [(E, "present", None)]),
        ("Possibly due to edema.", [(E, "uncertain", "Possibly due to")]),
        # Alternatives are open if they are two different findings.
        ("Edema or pneumonia.", [(E, "uncertain", "or"), (P, "uncertain", "or")]),
        ("Edema versus pneumonia.", [(E, "uncertain", "versus"), (P, "uncertain", "versus")]),
        ("Edema or pulmonary edema.", [(E, "present", None), (E, "present", None)]),
        ("Normal chest or edema.", [("No Finding", "present", None), (E, "present", None)]),
        # Body parts. What a negated normal state is instead is not said.
        ("No enlarged heart.", [(C, "absent", "No")]),
        ("Heart is not enlarged.", [(C, "absent", "not")]),
        ("Heart is not normal.", []),
        ("Without normal heart size.", []),
        ("History of enlarged heart.", [(C, "past", "History of")]),
        ("No edema heart is enlarged.", [(E, "absent", "No"), (C, "present", "enlarged")]),
        ("No edema, chest tube in place.", [(E, "absent", "No"), ("Support Devices", "present", None)]),
        ("No edema, port, chest tube.", [(E, "absent", "No")] + [("Support Devices", "absent", "No")] * 2),
        ("Heart size is possibly normal.", [(C, "absent", "normal")]),
    ],
)
def test_assertions_and_cues(text, expected):
    assert mentions(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Effusion is small.", [(None, "mild")]),
        ("Small effusion and edema, left.", [(None, "mild"), ("left", None)]),
        ("Right and left effusions.", [("bilateral", None)]),
        ("Left edema, right effusion.", [("left", None), ("right", None)]),
        ("Left or right effusion.", [("right", None)]),
        ("Possible mildly enlarged heart.", [(None, "mild")]),
        ("Effusion on the left.", [("left", None)]),
        ("Severe heart enlargement.", [(None, "severe")]),
        ("Mild: effusion.", [(None, None)]),
    ],
)
def test_sides_and_severities(text, expected):
    assert [(m.side, m.severity) for m in find_findings(text)] == expected


def test_a_sentence_without_a_phrase_has_no_finding():
    assert find_findings("The patient was seen by the doctor.") == []


def read(text):
    vocabulary = load_vocabulary("chexpert14")
    words = vocabulary.matcher.normalize_words(find_words(text.lower()))
    return read_clauses(vocabulary.matcher.match(words), words, vocabulary)[0]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("Effusion.", [None]),
        ("No effusion.", ["scope"]),
        ("Effusion and edema have resolved.", ["look_back", "look_back"]),
        ("The prior effusion is unchanged.", ["restore_former"]),
        ("Prior rib fracture.", ["chronic"]),
        ("Edema or pneumonia.", ["leave_alternatives_open"] * 2),
        ("Edema versus pneumonia.", ["leave_versus_open", "scope"]),
        ("No effusion on the right, small on the left.", ["scope", "complete_ellipsis"]),
        ("Heart is enlarged.", ["structure"]),
    ],
)
def test_a_finding_names_the_rule_that_decided_it(text, rules):
    assert [finding.rule for clause in read(text).clauses for finding in clause.findings] == rules


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("No effusion.", [None]),
        ("No effusion but edema.", ["clause_ends"]),
        ("No effusion, stable edema.", ["_statement_follows_comma"]),
        ("No effusion and the heart is enlarged.", ["_statement_follows_linker"]),
        ("Status post surgery, small effusion.", ["_comma_follows_former"]),
        ("Status post biopsy with effusion.", ["_with_follows_former"]),
        ("No edema: effusion.", ["_colon_opens_no_list"]),
        ("No evidence of: effusion.", [None]),
        ("Possible edema, no effusion.", ["another_cue", None]),
        ("no edema heart is enlarged", ["_describes_anew"]),
        ("No evidence that the heart is enlarged.", [None]),
        ("No edema or enlarged heart.", [None]),
        ("No edema; effusion; pneumonia.", [None]),
        ("Possibly due to edema.", [None]),
    ],
)
def test_a_scope_names_the_rule_that_ended_it(text, ends):
    assert [scope.ended_by for scope in read(text).scopes] == ends


def test_rules_are_functions_with_an_example_that_apply_to_some_kinds():
    for rule in RULES:
        assert rule.kinds
        assert '"' in rule.apply.__doc__


def test_sentences_without_cues_are_read_as_the_rules_read_them():
    """States are read by a shorter way than findings; both must say the same of every sentence of the suites."""
    vocabulary = load_vocabulary("chexpert14")
    for text in [text for _, text, _ in challenge()] + [case["text"] for name in FILES for case in read_cases(name)]:
        words = vocabulary.matcher.normalize_words(find_words(text.lower()))
        matches = vocabulary.matcher.match(words)
        reading = classify_assertions(matches, words, vocabulary)
        found = assert_findings(matches, words, vocabulary)
        states = [
            state_code(
                vocabulary.indices[f.name], STATES.index({"present": 1, "absent": 0, "uncertain": -1}[f.assertion])
            )
            for f in found
            if f.name and f.assertion != "past" and counts(f.kind, f.assertion)
        ]
        assert sorted(reading.states) == sorted(states), text
        assert bool(reading.flags & NAMED) == bool(found), text
        assert bool(reading.flags & DECIDED) == any(f.assertion in ("present", "absent") for f in found), text


def test_what_was_read_is_remembered_up_to_a_limit_and_not_pickled(monkeypatch):
    monkeypatch.setattr("medvl.text.reading._MAX_REMEMBERED", 2)
    vocabulary = Vocabulary({"version": 1, "findings": {"A": {"terms": ["a"]}}})
    assert [label_report(text, vocabulary).tolist() for text in ("No a.", "No a.", "A.")] == [[0], [0], [1]]
    assert set(vocabulary.readings) == {"no a.", "a."}
    label_report("Possible a.", vocabulary)
    assert set(vocabulary.readings) == {"possible a."}
    label_report("A" + " b" * 200, vocabulary)
    assert len(vocabulary.readings) == 1
    assert [m.assertion for _ in range(3) for m in find_findings("No a.", vocabulary)] == ["absent"] * 3
    assert set(vocabulary.findings) == {"no a."}
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy.readings == copy.findings == {}
