"""A run that is killed and resumed ends with the same weights; ``kill_runs.py`` does it at every moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_runs.py")


def test_kills_at_file_operations_and_two_processes_in_one_folder():
    command = [sys.executable, SCRIPT, "--operations", "70", "40", "--races", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [line for line in done.stdout.splitlines() if " of " in line and not line.startswith("operation ")]
    assert len(ends) == 2
    for line in ends:
        right, _, number = line.split()[:3]
        assert right == number, done.stdout
        assert int(number) > 1
