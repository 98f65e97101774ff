"""Kills training runs and resumes them: the weights must be those of a run that was never stopped, bit for bit.

    python tests/workflows/kill_runs.py --operations 0 1     # at every file operation of a small convirt run; 0 7: every 7th
    python tests/workflows/kill_runs.py --moments 100        # at 100 random moments, over all recipes
    python tests/workflows/kill_runs.py --races 20           # two processes in one folder: one runs, one is told

Each run is a forked process, so that the libraries are imported once.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with more threads cannot be forked

from safetensors.torch import load_file

from medvl.workflows import FolderInUseError, train

RECIPES = ("convirt", "medclip", "mlip", "umcl")
TINY = {
    "epochs": 3, "batch_size": 16, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False, "device": "cpu",
    "data": "synthetic", "synthetic_length": 60, "keep": "best", "resume": True,
}  # fmt: skip
IN_USE = 3  # exit code of a process that was told that the folder is in use
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.utime", "os.truncate"}
"""Audit events of file operations; ``os.fsync`` has none and is patched."""


def settings(folder: Path, recipe: str) -> dict[str, Any]:
    """What the runs of a recipe differ in from its defaults."""
    return {**TINY, "output": str(folder), **({"preset": "small"} if recipe == "mlip" else {})}


def start(folder: Path, recipe: str, before: Callable[[], None] = lambda: None) -> int:
    """Train in a forked process; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        before()
        train(recipe, settings(folder, recipe))
        code = 0
    except BaseException as error:  # the process ends here, whatever it is
        while error.__cause__ is not None:
            error = error.__cause__
        code = IN_USE if isinstance(error, FolderInUseError) else 1
        if code == 1:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def finish(pid: int) -> int:
    """The exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(folder: Path, number: int, count: Path | None = None) -> Callable[[], None]:
    """What kills a process at its ``number``-th file operation in a folder; 0 never does. ``count`` gets their number."""
    done = 0

    def operation() -> None:
        nonlocal done
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not any(str(folder) in str(value) for value in arguments[:2]):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        operation()

    def install() -> None:
        sync = os.fsync

        def counted(descriptor: int) -> None:
            operation()
            sync(descriptor)

        os.fsync = counted
        sys.addaudithook(audit)
        if count is not None:
            ends = os._exit

            def end(code: int) -> None:
                number_of_operations = done
                count.write_text(str(number_of_operations))
                ends(code)

            os._exit = end

    return install


def same_weights(one: Path, other: Path) -> bool:
    """Whether two run folders hold the same model, bit for bit."""
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def is_same_after(folder: Path, whole: Path, recipe: str) -> bool:
    """Resume a run that was killed, and compare it with one that was not."""
    if finish(start(folder, recipe)) != 0:
        return False
    left = [path for path in folder.rglob("*") if path.name.endswith(".partial") or path.name.startswith("run.lock")]
    lines = (folder / "metrics.jsonl").read_text().count("\n")
    return same_weights(whole, folder) and not left and lines == TINY["epochs"]


def whole_run(work: Path, recipe: str) -> tuple[Path, int, float]:
    """A run that nothing stops: its folder, the number of its file operations and its seconds."""
    folder, count = work / f"{recipe}-whole", work / f"{recipe}-count"
    begun = time.monotonic()
    if finish(start(folder, recipe, kill_at(folder, 0, count))) != 0:
        raise RuntimeError(f"the run of {recipe} failed")
    return folder, int(count.read_text()), time.monotonic() - begun


def kill_at_operations(work: Path, first: int, step: int) -> Mapping[int, bool]:
    """Whether a convirt run that was killed at an operation ends with the same weights, by the operation's number."""
    whole, operations, _ = whole_run(work, "convirt")
    same = {}
    for number in range(1 + first, operations + 1, step):
        folder = work / f"killed-{number}"
        code = finish(start(folder, "convirt", kill_at(folder, number)))
        same[number] = code == -signal.SIGKILL and is_same_after(folder, whole, "convirt")
        shutil.rmtree(folder)
        print(f"operation {number} of {operations}: {'identical' if same[number] else 'DIFFERENT'}", flush=True)
    return same


def kill_at_moments(work: Path, number: int, seed: int = 0) -> list[bool]:
    """Whether runs that were killed at random moments, some twice, end with the same weights; the recipes take turns."""
    draw = random.Random(seed)
    wholes = {recipe: whole_run(work, recipe) for recipe in RECIPES}
    same = []
    while len(same) < number:
        recipe = RECIPES[len(same) % len(RECIPES)]
        whole, _, seconds = wholes[recipe]
        folder = work / f"killed-{len(same)}"
        kills = 0
        for _ in range(1 + (draw.random() < 0.3)):
            pid = start(folder, recipe)
            time.sleep(draw.random() * seconds)
            os.kill(pid, signal.SIGKILL)
            kills += finish(pid) == -signal.SIGKILL
        if kills:  # else it was faster than the first run
            same.append(is_same_after(folder, whole, recipe))
            print(f"moment {len(same)}: {recipe} {'identical' if same[-1] else 'DIFFERENT'}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return same


def race(work: Path, number: int, seed: int = 0) -> list[tuple[int, int]]:
    """The exit codes of two processes that train in one folder at the same time, sorted."""
    draw = random.Random(seed)
    codes = []
    for turn in range(number):
        folder = work / f"race-{turn}"
        first = start(folder, "convirt")
        time.sleep(draw.random() * 0.3)
        second = start(folder, "convirt")
        codes.append(tuple(sorted((finish(second), finish(first)))))
        shutil.rmtree(folder)
        print(f"race {turn + 1}: {codes[-1]}", flush=True)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", nargs=2, type=int, metavar=("FIRST", "STEP"))
    parser.add_argument("--moments", type=int, default=0)
    parser.add_argument("--races", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for name in ("operations", "moments", "races"):
            (Path(work) / name).mkdir()
        if asked.operations:
            same = kill_at_operations(Path(work) / "operations", *asked.operations)
            print(f"{sum(same.values())} of {len(same)} kills at file operations: identical weights")
        if asked.moments:
            moments = kill_at_moments(Path(work) / "moments", asked.moments)
            print(f"{sum(moments)} of {len(moments)} kills at random moments: identical weights")
        if asked.races:
            codes = race(Path(work) / "races", asked.races)
            print(f"{sum(pair == (0, IN_USE) for pair in codes)} of {len(codes)} races: one ran, one was told")


if __name__ == "__main__":
    main()
