"""Kills a command and resumes it: what it writes must be what a run that was never stopped writes.

    python tests/workflows/kills.py train --moments 100        # at 100 random moments, some twice; the recipes take turns
    python tests/workflows/kills.py pack --operations 0 1      # at every file operation; 0 7: every 7th
    python tests/workflows/kills.py label --moments 50         # by 0 and 2 workers in turn, which must end by themselves
    python tests/workflows/kills.py embed --moments 50
    python tests/workflows/kills.py train --races 20           # two processes in one folder: one runs, one is told

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from killed_commands import COMMANDS, WHOLE, Command

from medvl.workflows import FolderInUseError, FolderLock, folder_lock

IN_USE = 3  # exit code of a process that was told that the folder is in use
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.utime", "os.truncate"}
"""Audit events of file operations; ``os.fsync`` has none and is patched."""


def start(command: Command, folder: Path, variant: Any, before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a forked process; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        before()
        command.run(folder, variant)
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


def has_ended(pid: int) -> bool:
    """Whether a process has ended; its exit code is still to be had."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for a moment, or for the end of a process if that is sooner; whether it has ended."""
    moment = time.monotonic() + seconds
    while not has_ended(pid):
        left = moment - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, 0.01))
    return True


def hold_lock(at_end: int, go: int) -> Callable[[], None]:
    """What lets a process keep the lock of its folder at its end: it writes a byte, and reads one before it goes on."""

    def install() -> None:
        release = FolderLock.release

        def release_later(lock: FolderLock) -> None:
            if folder_lock._held.get(lock.folder) is lock:
                os.write(at_end, b".")
                os.read(go, 1)
            release(lock)

        FolderLock.release = release_later  # type: ignore[method-assign]

    return install


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


class Killing:
    """Kills of one command in a folder of its own.

    Args:
        command: what is killed.
        work: the folder.
    """

    def __init__(self, command: Command, work: Path) -> None:
        self.command, self.work = command, work
        work.mkdir()
        self._wholes: dict[Any, tuple[Path, int]] = {}
        self._seconds: dict[Any, float] = {}

    def whole(self, variant: Any) -> tuple[Path, int]:
        """A run that nothing stops: its folder and the number of its file operations."""
        if variant not in self._wholes:
            folder, count = self.work / f"whole-{variant}", self.work / f"count-{variant}"
            begun = time.monotonic()
            if finish(start(self.command, folder, variant, kill_at(folder, 0, count))) != 0:
                raise RuntimeError(f"the run of {variant} failed")
            self._seconds[variant] = time.monotonic() - begun
            self._wholes[variant] = folder, int(count.read_text())
            first = next(iter(self._wholes.values()))[0]
            if self.command.same_for_all and not self.command.is_same(folder, first):
                raise RuntimeError(f"the output of {variant} differs from that of {self.command.variants[0]}")
            WHOLE.update({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
        return self._wholes[variant]

    def is_same_after(self, folder: Path, variant: Any) -> bool:
        """Resume a run that was killed, and compare it with one that was not."""
        if not self.command.is_sound(folder) or finish(start(self.command, folder, variant)) != 0:
            return False
        return self.command.is_same(folder, self.whole(variant)[0])

    def at_operations(self, first: int, step: int) -> Iterator[bool]:
        """Whether runs that were killed at a file operation end the same."""
        variant = self.command.variants[0]
        operations = self.whole(variant)[1]
        for number in range(1 + first, operations + 1, step):
            folder = self.work / f"killed-{number}"
            code = finish(start(self.command, folder, variant, kill_at(folder, number)))
            same = code == -signal.SIGKILL and self.is_same_after(folder, variant)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"operation {number} of {operations}: {'identical' if same else 'DIFFERENT'}", flush=True)
            yield same

    def at_moments(self, number: int, seed: int = 0) -> Iterator[bool]:
        """Whether runs that were killed at random moments, some twice, end the same; the variants take turns."""
        draw = random.Random(seed)
        done = 0
        while done < number:
            variant = self.command.variants[done % len(self.command.variants)]
            self.whole(variant)
            folder = self.work / f"killed-{done}"
            kills = 0
            for _ in range(1 + (draw.random() < 0.3)):
                begun = time.monotonic()
                pid = start(self.command, folder, variant)
                if ended_within(pid, draw.random() * self._seconds[variant]):
                    finish(pid)
                    if not kills:  # a whole run, which was faster than the one that nothing stopped
                        self._seconds[variant] = min(self._seconds[variant], time.monotonic() - begun)
                    break
                os.kill(pid, signal.SIGKILL)
                kills += finish(pid) == -signal.SIGKILL
            if kills:
                done += 1
                same = self.is_same_after(folder, variant)
                print(f"moment {done}: {variant} {'identical' if same else 'DIFFERENT'}", flush=True)
                yield same
            shutil.rmtree(folder, ignore_errors=True)

    def races(self, number: int, seed: int = 0) -> Iterator[bool]:
        """Whether of two processes that run in one folder at the same time one ends well and one is told.

        The one that runs keeps the folder till the other one has ended or is there too, however slow they are.
        """
        draw = random.Random(seed)
        variant = self.command.variants[0]
        for turn in range(number):
            folder = self.work / f"race-{turn}"
            (at_end, said), (go, gone) = os.pipe(), os.pipe()
            os.set_blocking(at_end, False)
            pids = [start(self.command, folder, variant, hold_lock(said, go))]
            time.sleep(draw.random() * 0.3)
            pids.append(start(self.command, folder, variant, hold_lock(said, go)))
            arrived = 0
            while sum(map(has_ended, pids)) + arrived < 2:
                try:
                    arrived += len(os.read(at_end, 2))
                except BlockingIOError:
                    time.sleep(0.01)
            os.write(gone, b"..")
            codes = sorted(map(finish, pids))
            for descriptor in (at_end, said, go, gone):
                os.close(descriptor)
            shutil.rmtree(folder)
            print(f"race {turn + 1}: {codes}", flush=True)
            yield codes == [0, IN_USE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--operations", nargs=2, type=int, metavar=("FIRST", "STEP"))
    parser.add_argument("--moments", type=int, default=0)
    parser.add_argument("--races", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        command = COMMANDS[asked.command](work / "input")
        if asked.operations:
            same = list(Killing(command, work / "operations").at_operations(*asked.operations))
            print(f"{sum(same)} of {len(same)} kills at file operations: identical")
        if asked.moments:
            same = list(Killing(command, work / "moments").at_moments(asked.moments, asked.seed))
            print(f"{sum(same)} of {len(same)} kills at random moments: identical")
        if asked.races:
            told = list(Killing(command, work / "races").races(asked.races))
            print(f"{sum(told)} of {len(told)} races: one ran, one was told")


if __name__ == "__main__":
    main()
