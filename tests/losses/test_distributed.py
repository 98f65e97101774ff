"""Several processes with gather=True give the loss and gradients of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import run_in_processes

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.parametrize(
    ("processes", "batches"),
    [(2, ["4,4/4,4", "5,2/3,4"]), (4, ["3,3,3,3/3,3,3,3", "2,1,4,3/2,1,4,3", "4,1,0,3/2,3,1,4"])],
    ids=["two", "four"],
)
def test_gathered_equals_one_process(processes, batches):
    if processes == 2:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            WORKER,
            *batches,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=850, env=environment, check=False)
    else:
        done = run_in_processes(processes, [sys.executable, WORKER, *batches])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == processes
