"""What is missing is made, whatever was interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evidence import measures, runner, training
from evidence.claims import choose_claims
from evidence.runner import Task, expected_seconds, plan, run_task
from evidence.scales import SCALES
from evidence.store import Store
from medvl.workflows import FolderInUseError

CLAIMS = choose_claims(["convirt-retrieval"])
QUICK = replace(SCALES["quick"], seeds=(0, 1))
ROOT = Path(__file__).parents[2]


class FakeTrained:
    """What :func:`evidence.training.train_arm` gives, without a training."""

    steps = 7

    class test:
        @staticmethod
        def studies(split: str) -> list[int]:
            return [0] * {"train": 70, "val": 10, "test": 20}[split]


@pytest.fixture
def fake_work(monkeypatch):
    """Trainings and measures that take no time; the list of what was trained and the set of arms whose measures fail."""
    trained: list[str] = []
    broken: set[str] = set()

    def train_arm(arm, scale, seed, data, folder: Path) -> FakeTrained:
        trained.append(f"{arm.name} {seed} {'again' if folder.exists() else 'new'}")
        folder.mkdir(parents=True, exist_ok=True)
        if arm.name in broken:
            raise KeyboardInterrupt
        return FakeTrained()

    monkeypatch.setattr(training, "train_arm", train_arm)
    monkeypatch.setattr(measures, "measure", lambda trained, names: {f"{name}/value": 0.5 for name in names})
    return trained, broken


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, fake_work):
    trained, broken = fake_work
    store, work = Store(tmp_path / "results"), tmp_path / "work"
    tasks = plan(CLAIMS, CLAIMS, QUICK, store, work)
    assert [task.arm for task in tasks] == ["untrained", "supervised", "convirt"] * 2
    run_task(tasks[0])
    broken.add("supervised")
    with pytest.raises(KeyboardInterrupt):
        run_task(tasks[1])
    broken.clear()
    left = plan(CLAIMS, CLAIMS, QUICK, store, work)
    assert [(task.arm, task.seed) for task in left] == [(task.arm, task.seed) for task in tasks[1:]]
    for task in left:
        run_task(task)
    assert trained[1:3] == ["supervised 0 new", "supervised 0 again"]  # its run folder was kept for it
    assert plan(CLAIMS, CLAIMS, QUICK, store, work) == []
    assert list((work / "runs").iterdir()) == []


def test_run_folders_stay_if_asked(tmp_path, fake_work):
    store = Store(tmp_path / "results")
    task = plan(CLAIMS, CLAIMS, QUICK, store, tmp_path / "work", keep=True)[0]
    run_task(task)
    assert len(list((tmp_path / "work" / "runs").iterdir())) == 1
    result = store.read("quick", task.arm, task.seed)
    assert result["steps"] == 7
    assert result["studies"] == {"train": 70, "val": 10, "test": 20}
    assert result["settings"]["seed"] == task.seed
    assert set(result["seconds"]) == {"training", "measures"}
    assert {"versions", "date", "commit"} <= set(result)


def test_what_was_measured_before_is_kept_with_its_commit(tmp_path, fake_work):
    store, work = Store(tmp_path / "results"), tmp_path / "work"
    task = plan(CLAIMS, CLAIMS, QUICK, store, work)[0]
    run_task(task)
    assert plan(CLAIMS, CLAIMS, QUICK, store, work)[0] != task
    # Of what was measured one measure was given up since, and one is wanted besides.
    first, *others = task.measures
    found = store.read("quick", task.arm, task.seed)
    before = {
        **found,
        "measures": [*others, "given_up"],
        "figures": {**{f"{name}/value": 0.25 for name in others}, "given_up/value": 0.25},
        "commit": "before",
        "date": "2026-01-01",
        "seconds": {"training": 50.0, "measures": 40.0},
    }
    store.write("quick", task.arm, task.seed, before)
    lacking = plan(CLAIMS, CLAIMS, QUICK, store, work)[0]
    assert lacking.measures == (first,)
    run_task(lacking)
    after = store.read("quick", task.arm, task.seed)
    assert after["measures"] == sorted(task.measures)
    assert after["figures"] == {f"{first}/value": 0.5, **{f"{name}/value": 0.25 for name in others}}
    assert after["kept"] == [{**after["kept"][0], "measures": others, "commit": "before", "date": "2026-01-01"}]
    assert after["commit"] == found["commit"]
    assert after["seconds"]["training"] < 40.0 <= after["seconds"]["measures"]
    # Each time that something is measured again, the rest keeps its own origin.
    store.write("quick", task.arm, task.seed, {**after, "measures": others, "commit": "between"})
    run_task(lacking)
    assert store.read("quick", task.arm, task.seed)["kept"] == after["kept"]
    last = [others[-1]]
    store.write("quick", task.arm, task.seed, {**after, "measures": sorted([first, *others[:-1]]), "commit": "between"})
    run_task(replace(lacking, measures=tuple(last)))
    assert [(part["measures"], part["commit"]) for part in store.read("quick", task.arm, task.seed)["kept"]] == [
        (part, commit) for part, commit in ((others[:-1], "before"), ([first], "between")) if part
    ]
    # A result of another experiment gives nothing.
    store.write("quick", task.arm, task.seed, {**before, "key": "0" * 16})
    again = plan(CLAIMS, CLAIMS, QUICK, store, work)[0]
    assert again == task
    run_task(again)
    assert store.read("quick", task.arm, task.seed)["kept"] == []


def test_expected_time_is_that_of_earlier_results(tmp_path, fake_work):
    store = Store(tmp_path)
    tasks = plan(CLAIMS, CLAIMS, QUICK, store, tmp_path / "work")
    assert expected_seconds(tasks, store) is None
    for task in tasks[:3]:
        run_task(task)
        found = store.read("quick", task.arm, task.seed)
        store.write("quick", task.arm, task.seed, {**found, "seconds": {"training": 20.0, "measures": 10.0}})
    assert expected_seconds(tasks[3:], store) == 90.0
    first = tasks[0]
    assert len(first.measures) > 1
    one_missing = replace(first, measures=first.measures[:1])
    assert expected_seconds([one_missing], store) == pytest.approx(20 + 10 / len(first.measures))
    more = replace(first, measures=(*first.measures, "another"))
    assert expected_seconds([more], store) == 30.0


def test_one_failure_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.EvidenceData, "prepare", lambda self: None)
    good = Task("convirt", 0, "quick", (), tmp_path / "results", tmp_path / "work")
    said: list[str] = []

    class Pool:
        """The processes, here in this one."""

        def __init__(self, *arguments: object, **options: object) -> None: ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *arguments: object) -> None: ...
        def submit(self, function, task):
            from concurrent.futures import Future

            future: Future[float] = Future()
            if task.arm == "mlip":
                future.set_exception(ValueError("no patches"))
            elif task.arm == "umcl":
                future.set_exception(FolderInUseError("runs/umcl is in use by process 7."))
            else:
                future.set_result(2.0)
            return future

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(runner.os, "environ", {"OMP_NUM_THREADS": "2"})
    bad = Task("mlip", 1, "quick", (), good.results, good.work)
    used = Task("umcl", 2, "quick", (), good.results, good.work)
    errors = runner.run_tasks([bad, good, used], 2, said.append)
    assert runner.os.environ == {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    unexplained, explained = sorted(errors)
    assert unexplained.startswith("mlip, seed 1:\n")
    assert unexplained.endswith("ValueError: no patches\n")
    assert explained == "umcl, seed 2:\nruns/umcl is in use by process 7.\n"
    assert sorted(line.partition("] ")[2] for line in said) == [
        "convirt, seed 0: done in 2 s",
        "mlip, seed 1: failed: no patches",
        "umcl, seed 2: failed: runs/umcl is in use by process 7.",
    ]


def test_processes_end_with_a_command_that_was_killed():
    code = (
        "import multiprocessing, os, signal\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from evidence.runner import _start_process\n"
        "context = multiprocessing.get_context('spawn')\n"
        "pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start_process)\n"
        "assert pool.submit(os.getpid).result() != os.getpid()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The process of the pool holds standard output, which is at its end only when that process has ended too.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=600, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
