"""German sentences: right states from the German vocabulary, and from the English one right states or none.

``languages/german.jsonl`` has the format of ``cases/*.jsonl``; its states are those that the German
vocabulary should give. It was written with the sentences of even number in view.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
from test_cases import wrong_states

import medvl.text
from medvl.text import find_findings, label_report, load_vocabulary

GERMAN = Path(__file__).with_name("languages") / "german.jsonl"
# Sentences that still get a wrong state: their other words are too few or too rare to tell the language.
KNOWN_WRONG = {
    "Weder Erguss noch Pneumothorax.",
    "Verdacht auf Pneumothorax.",
    "Klinische Angaben: Z.n. Pneumothorax. Befund: Kein Pneumothorax.",
    "Fragestellung: Pneumothorax? Beurteilung: Kein Pneu.",
    "Kein Nachweis von:\n- Pneumothorax\n- Pleuraerguss\n- Fraktur",
}


def test_the_states_of_another_language_are_right_or_blank():
    names = load_vocabulary("chexpert14").names
    cases = [json.loads(line) for line in GERMAN.read_text(encoding="utf-8").splitlines()]
    wrong = set()
    for case in cases:
        for name, state in zip(names, label_report(case["text"], "chexpert14").tolist(), strict=True):
            accepted = case["states"].get(name)
            accepted = accepted if isinstance(accepted, list) else [accepted]
            if state == state and int(state) not in accepted and (name in case["states"] or name != "No Finding"):
                wrong.add(case["text"])
    assert len(cases) == 239
    assert wrong == KNOWN_WRONG


def test_the_german_vocabulary_labels_german():
    cases = [json.loads(line) for line in GERMAN.read_text(encoding="utf-8").splitlines()]
    wrong = {case["text"] for case in cases if wrong_states(case)}
    assert wrong == {"kein pneu kein erguss zvk rechts in situ"}
    assert load_vocabulary("chexpert14_de").names == load_vocabulary("chexpert14").names
    assert all(
        not load_vocabulary("chexpert14_de").conventions.headers.name(text) for text in ("FINDINGS:", "History:")
    )


def test_english_gets_no_state_from_the_german_vocabulary():
    for text in ("There is no pneumothorax.", "The port is seen with the tip in the SVC."):
        assert np.isnan(label_report(text, "chexpert14_de")).all()


def test_letters_and_their_marks_may_be_two_characters():
    text = unicodedata.normalize("NFD", "Kein Lungenödem, kleine Pleuraergüsse.")
    assert [(m.finding, m.assertion) for m in find_findings(text, "chexpert14_de")] == [
        ("Edema", "absent"),
        ("Pleural Effusion", "present"),
    ]


def test_no_word_of_german_is_in_the_code():
    words = re.compile(r"\b(?:kein|keine|nicht|Erguss|Befund|Verdacht|Beurteilung|bds)\b")
    for path in Path(medvl.text.__file__).parent.rglob("*.py"):
        assert not words.search(path.read_text(encoding="utf-8")), path
