"""Report sentences of many hands, by phenomenon: the share that is labeled as a whole, and what is known to be wrong.

``cases/*.jsonl`` hold one JSON object a line: ``phenomenon``, ``vocabulary``, ``text`` and ``states``, which maps findings to
their right state (1, 0, -1 or null) or a list of acceptable ones. A finding that is not listed must be blank; No Finding
counts only where it is listed. ``cases/known_wrong.txt`` lists the texts that are labeled wrong today, one JSON string a
line. ``python tests/text/test_cases.py`` writes the table and the texts that are wrong into the page of the documentation.
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
LEAST_SHARE = {
    "styles.jsonl": 0.98,
    "phenomena.jsonl": 0.98,
    "held_out.jsonl": 0.95,
    "more.jsonl": 0.98,
    "more_held_out.jsonl": 0.95,
    "fresh_1.jsonl": 0.98,
    "fresh_2.jsonl": 0.98,
    "fresh_3.jsonl": 0.98,
    "fresh_4.jsonl": 0.98,
    "fresh_5.jsonl": 0.98,
    "fresh_6.jsonl": 0.98,
    "fresh_7.jsonl": 0.98,
    "fresh_8.jsonl": 0.98,
    "fresh_9.jsonl": 0.98,
    "fresh_10.jsonl": 0.98,
    "fresh_11.jsonl": 0.98,
    "fresh_12.jsonl": 0.98,
    "kinds_7.jsonl": 0.98,
    "kinds_8.jsonl": 0.98,
    "kinds_9.jsonl": 0.98,
}
# The least share of a phenomenon, over all files, if it has at least so many texts.
LEAST_SHARE_OF_PHENOMENON, LEAST_TEXTS = 0.93, 20
PAGE = Path(__file__).parents[2] / "docs" / "report_language.md"
BEGIN, END = "<!-- table of phenomena -->\n", "<!-- end of the table -->\n"


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


def counts() -> tuple[Counter[str], Counter[str], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Texts and right texts by phenomenon, and the wrong ones with their states."""
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
    return total, right, wrong


def table() -> str:
    """The table of the documentation, and what is still wrong."""
    total, right, wrong = counts()
    lines = ["| phenomenon | right |", "|---|---|"]
    lines += [f"| {phenomenon} | {right[phenomenon]} of {total[phenomenon]} |" for phenomenon in total]
    share = 100 * right.total() / total.total()
    lines += [f"| all | {right.total()} of {total.total()} ({share:.1f} %) |", "", "Still wrong:", ""]
    for case, states in wrong:
        found = "; ".join(f"{name} {found}, not {want}" for name, (want, found) in states.items())
        lines.append(f"- {case['text']!r}: {found}")
    return "\n".join(lines) + "\n"


def test_every_phenomenon_has_its_share():
    total, right, _ = counts()
    assert sum(count >= LEAST_TEXTS for count in total.values()) >= 15
    shares = {name: right[name] / count for name, count in total.items() if count >= LEAST_TEXTS}
    assert min(shares.values()) >= LEAST_SHARE_OF_PHENOMENON, shares


def test_the_table_of_the_documentation_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)] == table(), "run python tests/text/test_cases.py"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:start] + table() + page[end:], encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
