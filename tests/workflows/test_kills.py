"""A command that is killed and resumed writes what it would have written; ``kills.py`` does it at every moment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fork_server import run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.parametrize(
    ("command", "kills", "ends"),
    [
        ("train", ["--operations", "70", "40", "--races", "2"], 2),
        ("pack", ["--operations", "11", "71", "--moments", "2"], 2),
        ("label", ["--moments", "2"], 1),
        ("embed", ["--operations", "9", "29", "--moments", "3"], 2),
    ],
)
def test_kills_change_nothing(command, kills, ends):
    done = run([sys.executable, SCRIPT, command, *kills], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr[-3000:]
    totals = [line for line in done.stdout.splitlines() if " kills at " in line or " races: " in line]
    assert len(totals) == ends, done.stdout
    for total in totals:
        right, _, number = total.split()[:3]
        assert right == number, done.stdout + done.stderr
        assert int(number) > 1
