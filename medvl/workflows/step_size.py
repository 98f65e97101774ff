"""Whether a resumed run has the steps that it began with, in another number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvl.utils.counts import count_of

PER_PROCESS = ("batch_size", "num_texts")
"""Settings that a resumed run may change with the number of processes, so that a step stays as large as it was."""


def check_step_size(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any], processes: int, processes_now: int
) -> None:
    """Raise if the steps of a run would change with the number of processes.

    Args:
        path: the run's folder.
        before: the settings that the run began with.
        now: those that it is to go on with.
        processes: the number of processes that it began with.
        processes_now: the number that it is to go on in.

    Raises:
        ValueError: If the processes would have other batches together, or each contrasts its own batch only.

    Example:
        >>> check_step_size(Path("run"), {"batch_size": 32}, {"batch_size": 8}, 1, 4)
        >>> check_step_size(Path("run"), {"batch_size": 32}, {"batch_size": 32}, 1, 4)
        Traceback (most recent call last):
        ...
        ValueError: The run at run began in 1 process with batch_size=32, 32 in a step, and cannot go on in 4 with
        batch_size=32; give it batch_size=8, resume it in 1 process, or start a new run.
    """
    began = f"The run at {path} began in {count_of(processes, 'process', 'processes')}"
    again = f"resume it in {count_of(processes, 'process', 'processes')}"
    if before.get("gather") is False:
        alone = "each contrasts its own batch only"
        stopped = f"with gather=false and cannot go on in {processes_now}: {alone}"
        raise ValueError(f"{began} {stopped}; {again}, or start a new run.")
    for key in PER_PROCESS:
        size, total = now.get(key), int(before.get(key) or 0) * processes
        if key in before and size is not None and int(size) * processes_now != total:
            sizes = (
                f"with {key}={before[key]}, {total} in a step, and cannot go on in {processes_now} with {key}={size}"
            )
            keeping = f"give it {key}={total // processes_now}, " if total % processes_now == 0 else ""
            raise ValueError(f"{began} {sizes}; {keeping}{again}, or start a new run.")
