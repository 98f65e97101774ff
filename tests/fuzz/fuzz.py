"""Damage files of every kind, read them as the commands do, and list what does not end in one sentence.

Run:  python tests/fuzz/fuzz.py --count 2000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from damage import damage
from readers import Kind, make

from medvl.utils.errors import StudyError

SECONDS = 30
"""Of processor time, which a busy machine does not lengthen."""

INTERNAL = (
    "NoneType", "object has no attribute", "not subscriptable", "not iterable", "unsupported operand", "unexpected keyword",
    "positional argument", "not callable", "object is not", "list index", "Traceback", "defect", "recursion", "unhashable",
    "must be str, not", "dictionary update", "invalid literal for",
)  # fmt: skip
"""What an error says that comes from inside of the program, and not from a check."""


def fault(error: BaseException, path: Path) -> str:
    """What is wrong with an error as the answer to a damaged file; empty if it is one sentence that names the file."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}."  # as the command says it
    if not isinstance(error, ValueError | OSError):
        return "of a kind that is no answer"
    if any(word in text for word in INTERNAL):
        return "an inner error"
    if "\n" in text.strip():
        return "several lines"
    named = isinstance(error, StudyError) or path.name in text or str(path.parent) in text or path.parent.name in text
    return "" if named else "does not name the file"


def attempt(kind: Kind, data: bytes) -> tuple[str, str]:
    """Read one damaged file: how it ended, and what is wrong with that."""
    sound = kind.path.read_bytes()
    kind.path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(kind.path)
        return "read", ""
    except Exception as error:
        wrong = fault(error, kind.path)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return "refused", f"{wrong}: {type(error).__name__} at {where}: {str(error)[:300]!r}" if wrong else ""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        kind.path.write_bytes(sound)


def run(count: int, seed: int = 0, only: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Name of the file, damage, how it ended and what is wrong with that, of ``count`` damaged files."""

    def late(*_: object) -> None:
        raise TimeoutError("no answer in time")

    signal.signal(signal.SIGPROF, late)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        kinds = {name: kind for name, kind in make(Path(folder)).items() if only in name}
        names = list(kinds)
        for name, kind in kinds.items():
            outcome, wrong = attempt(kind, kind.path.read_bytes())
            if outcome != "read" and name not in ("a.nrrd", "a.mha"):  # which need ITK
                yield name, "none", outcome, wrong or "the sound file was refused"
        for number in range(count):
            name = names[number % len(names)]
            how, data = damage(kinds[name].path.read_bytes(), f"{seed}-{name}-{number}")
            yield (name, how, *attempt(kinds[name], data))


def main(
    attempts: Callable[[int, int, str], Iterator[tuple[str, str, str, str]]], description: str, count: int
) -> None:
    """The command line of a script that damages files: print what is wrong, and exit with 1 if anything is.

    Args:
        attempts: called with the number of damaged files, the seed and a part of their names; yields the name, the damage, the
            outcome, and what is wrong with it or "".
        description: of the command.
        count: of damaged files, by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the names of files")
    arguments = parser.parse_args()
    ended: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for name, how, outcome, wrong in attempts(arguments.count, arguments.seed, arguments.only):
        ended[outcome] += 1
        if wrong:
            faults[name] += 1
            print(f"{name}, {how}: {wrong}", flush=True)
    print(f"{ended.total()} damaged files: {dict(ended)}, {faults.total()} wrong {dict(faults)}")
    sys.exit(faults.total() > 0)


if __name__ == "__main__":
    main(run, __doc__, 2000)
