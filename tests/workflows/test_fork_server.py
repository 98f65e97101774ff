"""Processes of the fork server are as new ones: arguments, environment, streams, signals and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from fork_server import Forked, run, run_in_processes

SAY = """
import json, os, sys
leads = os.getpgid(0) == os.getpid()
print(json.dumps([sys.argv, sys.path[0], os.getcwd(), dict(os.environ), __name__, sys.stdin.read(), leads]))
print("error", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("kind", ["-c", "-m", "script"])
@pytest.mark.parametrize("start", [run, subprocess.run])
def test_what_a_process_is_given_and_gives(tmp_path, monkeypatch, kind, start):
    (tmp_path / "say.py").write_text(SAY)
    line = {"-c": ["-c", SAY], "-m": ["-m", "say"], "script": [tmp_path / "say.py"]}[kind]
    options = {"cwd": tmp_path, "env": {**os.environ, "OWN": "1"}, "start_new_session": kind == "-m"}
    done = start([sys.executable, *line, "a", "b c"], input="typed", capture_output=True, text=True, **options)
    arguments, path, folder, environment, name, typed, leads = json.loads(done.stdout)
    first = {"-c": "-c", "-m": str(tmp_path / "say.py"), "script": str(tmp_path / "say.py")}[kind]
    assert arguments == [first, "a", "b c"]
    assert path == ("" if kind == "-c" else str(tmp_path))
    assert (folder, environment["OWN"], name, typed, leads) == (str(tmp_path), "1", "__main__", "typed", kind == "-m")
    assert (done.returncode, done.stderr) == (3, "error\n")


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("start", [Forked, subprocess.Popen])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_signal_ends_it(start, name):
    line = [sys.executable, "-c", "import time; print('runs', flush=True)\nwhile True: time.sleep(1)"]
    process = start(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "runs\n"
    assert process.poll() is None
    process.send_signal(getattr(signal, name))
    _, err = process.communicate()
    assert process.returncode == process.poll() == -getattr(signal, name)
    assert ("KeyboardInterrupt" in err) == (name == "SIGINT")


def test_an_error_is_a_traceback_and_exit_code_1():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run([sys.executable, "-c", "1 / 0"], check=True, capture_output=True, text=True)
    assert caught.value.returncode == 1
    assert caught.value.stderr.endswith("ZeroDivisionError: division by zero\n")
    with pytest.raises(ValueError, match="must begin with"):
        run(["ls"])


def test_libraries_are_imported_and_random_numbers_differ():
    code = "import random, sys, numpy; print('monai' in sys.modules, random.random(), numpy.random.rand())"
    first, second = (run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in range(2))
    assert first[0] == second[0] == "True"
    assert first[1] != second[1]
    assert first[2] != second[2]


def test_several_processes_form_a_group():
    code = """
import sys, torch.distributed as dist
dist.init_process_group("gloo")
ranks = [None] * dist.get_world_size()
dist.all_gather_object(ranks, dist.get_rank())
sys.stdout.write(f"{ranks}\\n")  # at once, where print would write the end of the line by itself
sys.stdout.flush()
dist.barrier()  # a process that fails ends the others, which may not have written yet
dist.destroy_process_group()
sys.exit(int(sys.argv[1]))
"""
    for code_at_end in (0, 4):
        done = run_in_processes(2, [sys.executable, "-c", code, str(code_at_end)])
        assert (done.returncode, done.stdout) == (code_at_end, "[0, 1]\n" * 2), done.stderr
