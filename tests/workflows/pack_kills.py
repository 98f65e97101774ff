"""Kills packing and resumes it: the folder must be, byte for byte, that of a run that was never stopped.

    python tests/workflows/pack_kills.py --moments 50          # at 50 random moments, by 0 and 2 workers in turn, some twice
    python tests/workflows/pack_kills.py --operations 0 1      # at every file operation; 0 7: every 7th

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
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with more threads cannot be forked
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from kill_runs import finish, kill_at
from packed_tables import LABELS, write_table

from medvl.data.shard_verification import verify_packed
from medvl.workflows import PackSettings, pack_studies

STUDIES, SETTINGS = 40, PackSettings(image_size=64, shard_size=4)


def start(table: Path, folder: Path, workers: int, before: Callable[[], None] = lambda: None) -> int:
    """Pack in a forked process, which goes on with what is there; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        before()
        pack_studies(table, folder, SETTINGS, columns={"label_column": LABELS}, num_workers=workers, resume=True)
        code = 0
    except BaseException as error:  # the process ends here, whatever it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with those in folders inside it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_same_after(table: Path, folder: Path, whole: Path, workers: int) -> bool:
    """Whether nothing half-written counts as whole, and the folder is the same once the run is resumed."""
    before = sorted(folder.glob("index.json"))
    if before and verify_packed(folder):
        return False
    if finish(start(table, folder, workers)) != 0:
        return False
    return content(folder) == content(whole)


def kill_at_moments(work: Path, number: int, seed: int = 0) -> list[bool]:
    """Whether runs that were killed at random moments end the same; the worker processes must end by themselves."""
    draw = random.Random(seed)
    table, whole = write_table(work / "source", STUDIES), work / "whole"
    seconds = []
    for workers in (0, 2):  # the second time it is known to be the same by any number of workers
        shutil.rmtree(whole, ignore_errors=True)
        begun = time.monotonic()
        finish(start(table, whole, workers))
        seconds.append(time.monotonic() - begun)
    same: list[bool] = []
    while len(same) < number:
        workers = 2 * (len(same) % 2)
        folder = work / f"killed-{len(same)}"
        kills = 0
        for _ in range(1 + (draw.random() < 0.3)):
            pid = start(table, folder, workers)
            time.sleep(draw.random() * seconds[workers // 2])
            os.kill(pid, signal.SIGKILL)
            kills += finish(pid) == -signal.SIGKILL
        if kills:  # else it was faster than the first run
            same.append(is_same_after(table, folder, whole, workers))
            print(f"moment {len(same)}: {workers} workers {'identical' if same[-1] else 'DIFFERENT'}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return same


def kill_at_operations(work: Path, first: int, step: int) -> dict[int, bool]:
    """Whether a run that was killed at a file operation ends the same, by the operation's number."""
    table, whole, count = write_table(work / "source", STUDIES), work / "whole", work / "count"
    if finish(start(table, whole, 0, kill_at(whole, 0, count))) != 0:
        raise RuntimeError("the run failed")
    operations = int(count.read_text())
    same = {}
    for number in range(1 + first, operations + 1, step):
        folder = work / f"killed-{number}"
        code = finish(start(table, folder, 0, kill_at(folder, number)))
        same[number] = code == -signal.SIGKILL and is_same_after(table, folder, whole, 0)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"operation {number} of {operations}: {'identical' if same[number] else 'DIFFERENT'}", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", nargs=2, type=int, metavar=("FIRST", "STEP"))
    parser.add_argument("--moments", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for name in ("operations", "moments"):
            (Path(work) / name).mkdir()
        if asked.operations:
            same = kill_at_operations(Path(work) / "operations", *asked.operations)
            print(f"{sum(same.values())} of {len(same)} kills at file operations: identical folders")
        if asked.moments:
            moments = kill_at_moments(Path(work) / "moments", asked.moments)
            print(f"{sum(moments)} of {len(moments)} kills at random moments: identical folders")


if __name__ == "__main__":
    main()
