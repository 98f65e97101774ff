"""Every recipe in several processes, and runs that go on in the middle of an epoch; ``forked_runs.py`` does the trainings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fork_server import run as run_forked

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("forked_runs.py")


def run(*arguments):
    """The lines of the script by their case and number of processes, and what it wrote to standard error."""
    done = run_forked([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["case"], line.get("processes")): line for line in lines}, done.stderr


def test_several_processes_learn_what_one_learns():
    """A minute of a core: 20 steps of every recipe in 1 and 2 processes, of two recipes in 4 too, and from shards."""
    lines, _ = run("equal")
    assert {processes for case, processes in lines if case in ("medclip", "mlip")} == {2, 4}
    assert len(lines) == 13
    for case, line in lines.items():
        assert line["steps"] == 20
        # Rounding, over the largest change of a weight in these steps.
        assert line["difference"] < 1e-4, case
        assert line["loss"] < 1e-5, case


@pytest.fixture(scope="module")
def resumed():
    return run("resume")


def test_only_the_first_process_writes_and_the_run_goes_on(resumed):
    line = resumed[0]["first mlip", None]
    assert line["codes"] == [[0, 0], [0, 0]]
    assert line["checkpoints"] == ["epoch-0001.pt", "epoch-0002.pt"]
    assert line["skipped"] == 2
    assert line["same"]
    assert line["epochs"] == [1, 2]


@pytest.mark.parametrize("case", ["convirt 0", "convirt 1", "convirt 2", "convirt 3", "umcl 2"])
def test_a_run_goes_on_at_the_next_batch_with_any_number_of_workers(resumed, case):
    line = resumed[0]["workers " + case, None]
    assert line["codes"] == [[0], [-9], [0]]
    assert line["checkpoints"] == ["epoch-0001-step-000002.pt", "epoch-0001.pt"]
    assert line["first"] == 7
    assert line["order"], "each study of each batch, once"
    assert line["same"], "bit for bit, with dropout and Adam"
    assert line["metrics"]


def test_the_others_end_when_one_process_is_killed_and_the_run_goes_on(resumed):
    lines, stderr = resumed
    line = lines["killed mlip", None]
    assert line["codes"] == [[0, 0], [1, -9], [0, 0]], "the other waits for no time-out, which is a day"
    assert stderr.count("rank 0: ProcessLostError: Another process of this run has ended") == 3, (
        "once a run that loses one"
    )
    assert line["order"]
    assert line["same"], "bit for bit, with the dropout of each process"
    assert line["metrics"]


@pytest.mark.parametrize("case", ["processes convirt 1 2", "processes medclip 2 1", "sharded mlip"])
def test_a_run_goes_on_in_another_number_of_processes(resumed, case):
    line = resumed[0][case, None]
    assert line["codes"][-1] == [0] * (2 if case.endswith(" 2") else 1)
    assert line["first"] == 7
    assert line["order"]
    assert not line["same"], "not the same sums"
    assert line["difference"] < 1e-4
    assert line["loss"] < 1e-5
