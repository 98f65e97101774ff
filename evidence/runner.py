"""Makes the results that are missing: trains, measures and stores, one arm and seed after another, in several processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.arms import ARMS, Arm, settings_of
from evidence.claim import Claim, arms_of, needed_measures
from evidence.data import EvidenceData, has_real
from evidence.scales import SCALES, Scale
from evidence.store import ENVIRONMENT, Store, environment, result_key
from medvl.utils.errors import DiskFullError
from medvl.utils.worker_processes import end_with_parent
from medvl.workflows import FolderInUseError

Print = Callable[[str], None]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Numbers of threads of torch and of NumPy's and SciPy's linear algebra, whose threads wait on small problems."""


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Task:
    """An arm and seed that is to be trained and measured.

    Args:
        arm: its name.
        seed: of the training.
        scale: its name.
        measures: that are missing, in alphabetical order.
        results: folder of the results.
        work: folder of the data and of the run folders.
        keep: whether the run folder stays after it was measured.
    """

    arm: str
    seed: int
    scale: str
    measures: tuple[str, ...]
    results: Path
    work: Path
    keep: bool = False


def plan(
    claims: Sequence[Claim], all_claims: Sequence[Claim], scale: Scale, store: Store, work: Path, keep: bool = False
) -> list[Task]:
    """The tasks that some claims lack, seed by seed, so that an interrupted run has whole seeds.

    An arm is measured for all claims, and not only those chosen, so that it need not be trained again for another; what was
    measured in this very experiment is kept. One whose every measure lacks its real data is not trained.
    """
    needs = needed_measures(all_claims)
    tasks = []
    for seed in scale.seeds:
        for arm in arms_of(claims):
            if seed not in arm.seeds(scale):
                continue
            known = store.same_experiment(scale, arm, seed)
            measures = _measurable(arm, needs[arm.name]) - set(known["measures"] if known else ())
            if measures:
                tasks.append(Task(arm.name, seed, scale.name, tuple(sorted(measures)), store.folder, work, keep))
    return tasks


def without_data(claims: Sequence[Claim], all_claims: Sequence[Claim]) -> list[str]:
    """What lacks its real data, by name: arms that cannot be trained or have no other measure, and measures."""
    from evidence.measures import NEEDS

    needs = needed_measures(all_claims)
    measures = {measure for needed in needed_measures(claims).values() for measure in needed}
    arms = [f"the arm {arm.name}" for arm in arms_of(claims) if not _measurable(arm, needs[arm.name])]
    return arms + [f"the measure {name}" for name in sorted(measures & NEEDS.keys()) if not NEEDS[name].exists()]


def of_other_forms(claims: Sequence[Claim], scale: Scale) -> list[str]:
    """The arms of some claims that a form of the evidence leaves out, by name."""
    return [arm.name for arm in arms_of(claims) if not arm.seeds(scale)]


def _measurable(arm: Arm, needed: Iterable[str]) -> set[str]:
    """The measures of an arm whose real data are here; none where it cannot be trained."""
    from evidence.measures import NEEDS

    return {name for name in needed if name not in NEEDS or NEEDS[name].exists()} if has_real(arm) else set()


def expected_seconds(tasks: Sequence[Task], store: Store) -> float | None:
    """How long tasks take in one process, by results of the same arms; None if an arm has none.

    The measures of an arm are assumed to take equal time where some of them are missing, and no longer than those of its
    results where these have fewer.
    """
    total = 0.0
    for task in tasks:
        known = [store.read(task.scale, task.arm, seed) for seed in store.seeds(task.scale, task.arm)]
        times = []
        for result in known:
            if result is not None:
                part = min(1.0, len(task.measures) / max(1, len(result["measures"])))
                times.append(result["seconds"]["training"] + part * result["seconds"]["measures"])
        if not times:
            return None
        total += sum(times) / len(times)
    return total


def run_tasks(tasks: Sequence[Task], jobs: int, say: Print = _print) -> list[str]:
    """Run tasks, ``jobs`` at a time, each process with one thread; the errors of those that failed.

    One that fails does not stop the others.
    """
    if not tasks:
        return []
    for scale in {ARMS[task.arm].scale(SCALES[task.scale]) for task in tasks}:
        EvidenceData(scale, tasks[0].work).prepare()
    start = time.perf_counter()
    errors = []
    for name in THREADS:  # of the processes, which read it as they start
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_process) as pool:
        futures = {pool.submit(run_task, task): task for task in tasks}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                task, error = futures[future], future.exception()
                seconds = "" if error else f" in {future.result():.0f} s"
                if error:
                    explained = isinstance(error, FolderInUseError | DiskFullError)
                    text = f"{error}\n" if explained else "".join(traceback.format_exception(error))
                    errors.append(f"{task.arm}, seed {task.seed}:\n{text}")
                state = f"failed: {error}" if error else "done"
                passed = time.perf_counter() - start
                say(f"[{number}/{len(tasks)}, {passed / 60:.1f} min] {task.arm}, seed {task.seed}: {state}{seconds}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return errors


def _start_process() -> None:
    end_with_parent()
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # tiny sets have findings of one class; the figures then are missing
    logging.getLogger("medvl").setLevel(logging.ERROR)


def run_task(task: Task) -> float:
    """Train and measure one arm with one seed, and write its result; returns the seconds that it took.

    Figures of other measures of this very experiment are kept, with the commit and the date of each.
    """
    from evidence.measures import MEASURES, measure
    from evidence.training import train_arm

    arm, store = ARMS[task.arm], Store(task.results)
    scale = arm.scale(SCALES[task.scale])
    data = EvidenceData(scale, task.work)
    key = result_key(arm, SCALES[task.scale], task.seed)
    folder = task.work / "runs" / f"{scale.name}-{arm.name}-{task.seed}-{key}"
    start = time.perf_counter()
    trained = train_arm(arm, scale, task.seed, data, folder)
    after_training = time.perf_counter()
    figures = measure(trained, set(task.measures))
    end = time.perf_counter()
    known = store.same_experiment(SCALES[task.scale], arm, task.seed) or {"measures": [], "figures": {}}
    kept = sorted((set(known["measures"]) & MEASURES.keys()) - set(task.measures))
    kept_figures = {name: value for name, value in known["figures"].items() if name.partition("/")[0] in kept}
    result = {
        "arm": arm.name,
        "recipe": arm.recipe,
        "seed": task.seed,
        "scale": task.scale,
        "key": key,
        "settings": settings_of(arm, scale, task.seed),
        "sources": list(arm.sources),
        "without": list(arm.without),
        "studies": {split: len(trained.test.studies(split)) for split in ("train", "val", "test")},
        "steps": trained.steps,
        "seconds": {
            "training": round(after_training - start, 1),
            "measures": round(end - after_training + (known["seconds"]["measures"] if kept else 0), 1),
        },
        "measures": sorted([*kept, *task.measures]),
        "figures": {**kept_figures, **{name: round(value, 6) for name, value in figures.items()}},
        **environment(),
        "kept": _kept(known, kept),
    }
    store.write(task.scale, arm.name, task.seed, result)
    if not task.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return end - start


def _kept(known: Mapping[str, Any], measures: Sequence[str]) -> list[dict[str, Any]]:
    """What some measures of an earlier result depend on beside its settings, by when they were made."""
    earlier = known.get("kept", [])
    before = {name for part in earlier for name in part["measures"]}
    parts = [*earlier, {**known, "measures": [name for name in known["measures"] if name not in before]}]
    return [
        {"measures": own, **{field: part[field] for field in ENVIRONMENT}}
        for part in parts
        if (own := [name for name in part["measures"] if name in measures])
    ]
