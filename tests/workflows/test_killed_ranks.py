"""One of two processes is killed: the other ends with one message, and the command goes on to the same result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from fork_server import run as run_forked

SCRIPT = Path(__file__).with_name("killed_ranks.py")


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes")]


def run(command):
    done = run_forked([sys.executable, SCRIPT, command], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("command", "moments"), [("train", 15), ("embed", 5)])
def test_one_message_and_the_same_result(command, moments):
    """Up to a minute of a core: each moment is a start of two processes, and most are gone on with."""
    lines = run(command)
    assert len(lines) == moments
    for line in lines:
        case = line["case"]
        assert line["killed"] == -9, case
        # It notices the loss, or is told to stop, whichever is first; it waits for no time-out of hours.
        assert line["left"] in (1, 143), case
        assert len(line["messages"]) == 1, (case, line["messages"])
        assert line["messages"][0].endswith("Go on by the same command with --resume."), case
        assert not line["defects"], (case, line["defects"])
        assert line["resumed"] in ([0, 0], None), case
        assert line["same"] in (True, None), case
    assert sum(line["same"] is True for line in lines) >= 5


def test_other_commands_are_the_first_processes():
    """``torchrun -m medvl label``: two processes that write one file would be in each other's way."""
    whole, killed, packed = run("label")
    assert whole == {"case": "label", "codes": [0, 0], "said": 1}
    assert (killed["killed"], killed["left"], killed["resumed"]) == (-9, 0, [0, 0])
    assert killed["same"]
    assert packed["codes"] == [0, 0]
    assert packed["said"] == 1
