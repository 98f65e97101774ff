"""One of two processes is killed: the other ends with one message, and the command goes on to the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_ranks.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes")
@pytest.mark.parametrize(("command", "moments"), [("train", 15), ("embed", 5)])
def test_one_message_and_the_same_result(command, moments):
    """Up to a minute of a core: each moment is a start of two processes, and most are gone on with."""
    done = subprocess.run([sys.executable, SCRIPT, command], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == moments
    for line in lines:
        case = line["case"]
        assert line["killed"] == -9, case
        assert line["left"] in (1, 143), case  # it notices the loss, or is told to stop, whichever is first
        assert line["seconds"] < 15, case
        assert len(line["messages"]) == 1, (case, line["messages"])
        assert line["messages"][0].endswith("Go on by the same command with --resume."), case
        assert not line["defects"], (case, line["defects"])
        assert line["resumed"] in ([0, 0], None), case
        assert line["same"] in (True, None), case
    assert sum(line["same"] is True for line in lines) >= 5
