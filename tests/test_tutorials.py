"""What the tutorials promise. That they run is a step of CI of its own."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

TUTORIALS = Path(__file__).parents[1] / "tutorials"


def code_of(name: str) -> list[str]:
    """The lines of a tutorial below its docstring."""
    return (TUTORIALS / name).read_text().split('"""', 2)[2].splitlines()


def changed_lines(before: list[str], after: list[str]) -> int:
    """Lines that one changes, adds or deletes to get from ``before`` to ``after``; a changed line counts once."""
    edits = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in edits if kind != "equal")


def test_changed_lines_are_counted():
    assert changed_lines(list("abc"), list("abc")) == 0
    assert changed_lines(list("abc"), list("axc")) == 1
    assert changed_lines(list("abc"), list("axybc")) == 2
    assert changed_lines(list("abc"), list("a")) == 2


def test_a_monai_trainer_learns_from_reports_by_at_most_fifteen_changed_lines():
    before, after = (code_of(f"06_monai_trainer_{which}.py") for which in ("before", "after"))
    assert 5 < changed_lines(before, after) <= 15
    uses = {
        which: set(re.findall(r"^from medvl\.(\w+)", "\n".join(lines), re.M))
        for which, lines in (("before", before), ("after", after))
    }
    assert uses["before"] == {"data"}, "before, only the stand-in for one's own data is ours"
    assert {"losses", "transforms", "networks", "engines"} <= uses["after"]
