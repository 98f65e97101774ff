"""Report sentences of many hands, by phenomenon: the share that is labeled as a whole, and what is known to be wrong.

``cases/*.jsonl`` hold one JSON object a line: ``phenomenon``, ``vocabulary``, ``text`` and ``states``, which maps findings to
their right state (1, 0, -1 or null) or a list of acceptable ones. A finding that is not listed must be blank; No Finding
counts only where it is listed. ``cases/known_wrong.txt`` lists the texts that are labeled wrong today, one JSON string a
line. ``python tests/text/test_cases.py`` prints the table of the documentation and the texts that are wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medvl.text import label_report, load_vocabulary

CASES = Path(__file__).with_name("cases")
FILES = sorted(path.name for path in CASES.glob("*.jsonl"))
KNOWN_WRONG = {json.loads(line) for line in (CASES / "known_wrong.txt").read_text(encoding="utf-8").splitlines()}
# The least share of a file that must be right as a whole.
LEAST_SHARE = {"styles.jsonl": 0.98, "phenomena.jsonl": 0.98, "held_out.jsonl": 0.95}


def read_cases(name: str) -> Iterator[dict[str, Any]]:
    for line in (CASES / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def wrong_states(case: dict[str, Any]) -> dict[str, tuple[Any, int | None]]:
    """The findings whose state is not acceptable, with the wanted and the found state."""
    vocabulary = load_vocabulary(case["vocabulary"])
    wrong = {}
    for name, state in zip(vocabulary.names, label_report(case["text"], vocabulary).tolist(), strict=True):
        found = None if state != state else int(state)
        wanted = case["states"].get(name)
        if name in vocabulary.derived and name not in case["states"]:
            continue
        if found not in (wanted if isinstance(wanted, list) else [wanted]):
            wrong[name] = (wanted, found)
    return wrong


@pytest.mark.parametrize("name", FILES)
def test_sentences_are_right_as_a_whole(name):
    cases = list(read_cases(name))
    wrong = {case["text"] for case in cases if wrong_states(case)}
    assert wrong <= KNOWN_WRONG, wrong - KNOWN_WRONG
    assert 1 - len(wrong) / len(cases) >= LEAST_SHARE[name]


def test_what_is_known_to_be_wrong_is_still_wrong():
    wrong = {case["text"] for name in FILES for case in read_cases(name) if wrong_states(case)}
    assert wrong >= KNOWN_WRONG, KNOWN_WRONG - wrong


def main() -> None:
    total: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong = []
    for name in FILES:
        for case in read_cases(name):
            states = wrong_states(case)
            total[case["phenomenon"]] += 1
            right[case["phenomenon"]] += not states
            if states:
                wrong.append((case, states))
    print("| phenomenon | right |\n|---|---|")
    for phenomenon in total:
        print(f"| {phenomenon} | {right[phenomenon]} of {total[phenomenon]} |")
    print(f"| all | {right.total()} of {total.total()} ({100 * right.total() / total.total():.1f} %) |\n")
    for case, states in wrong:
        print(
            f"- {case['text']!r}: " + "; ".join(f"{name} {found}, not {want}" for name, (want, found) in states.items())
        )


if __name__ == "__main__":
    main()
