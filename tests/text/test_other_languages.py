"""German sentences read by the English vocabulary: a state is right, or there is none.

``languages/german.jsonl`` holds one JSON object a line, in the format of ``cases/*.jsonl``; its states are those that a German
vocabulary should give.
"""

from __future__ import annotations

import json
from pathlib import Path

from medvl.text import label_report, load_vocabulary

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
