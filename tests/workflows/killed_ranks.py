"""A command in two processes, as ``torchrun`` starts them, of which one is killed; forked, so that imports are done once.

    python tests/workflows/killed_ranks.py train      # killed at moments from the first connection to the end
    python tests/workflows/killed_ranks.py train --resume-all
    python tests/workflows/killed_ranks.py embed
    python tests/workflows/killed_ranks.py label

Each line of the output is a dictionary in JSON; ``test_killed_ranks.py`` reads it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with more threads cannot be forked
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch.distributed as dist
from monai.engines import SupervisedEvaluator
from PIL import Image
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

import medvl.data.tables.output
import medvl.workflows.embedding
import medvl.workflows.labeling
import medvl.workflows.training  # before the forks, as it imports most of what a training needs
from medvl import cli
from medvl.handlers import EpochSeed, GradientClipping, MetricsLog, RunCheckpoint
from medvl.utils import distributed, signals
from medvl.workflows import RunFolder

medvl.workflows.labeling.BLOCK_ROWS, medvl.data.tables.output._SECONDS_BETWEEN_RECORDS = 16, 0.0
signals.BLOCKED_SECONDS = 2.0  # else each moment that blocks takes five seconds

Moment = tuple[Any, str, int]
"""An object, the name of a function of it, and the number of the call in which the process is killed."""

TRAIN: dict[str, tuple[int, Moment]] = {
    "before the first connection": (1, (dist, "init_process_group", 1)),
    "before the first connection, the first process": (0, (dist, "init_process_group", 1)),
    "while the first process reads the studies": (1, (RunFolder, "acquire", 1)),
    "while the second process waits for the studies": (0, (RunFolder, "release", 1)),
    "before the networks are compared": (1, (DistributedDataParallel, "__init__", 1)),
    "in the first gather": (1, (distributed._AllGather, "forward", 1)),
    "in the first backward pass": (1, (distributed._AllGather, "backward", 1)),
    "before a step of the optimizer": (1, (GradientClipping, "__call__", 3)),
    "in a checkpoint within an epoch": (1, (RunCheckpoint, "save_within_epoch", 2)),
    "in the evaluation": (1, (SupervisedEvaluator, "_iteration", 1)),
    "before the line of the log": (1, (MetricsLog, "write_line", 1)),
    "while the first process writes a checkpoint": (1, (RunCheckpoint, "__call__", 1)),
    "the first process, before a checkpoint": (0, (RunCheckpoint, "__call__", 2)),
    "between epochs": (1, (EpochSeed, "__call__", 2)),
    "while the first process saves the model": (1, (RunFolder, "save_model", 1)),
}
"""Which process is killed, and when."""

RESUMED = (
    "while the second process waits for the studies", "in the first backward pass", "in a checkpoint within an epoch",
    "while the first process writes a checkpoint", "the first process, before a checkpoint",
    "while the first process saves the model",
)  # fmt: skip
"""After which of these moments a training goes on, unless after all (``--resume-all``)."""

EMBED: dict[str, tuple[int, Moment]] = {
    "before the first connection": (1, (dist, "init_process_group", 1)),
    "in its second part": (1, (medvl.workflows.embedding, "embed_studies", 2)),
    "the first process, in its second part": (0, (medvl.workflows.embedding, "embed_studies", 2)),
    "while the first process joins the parts": (1, (distributed, "destroy_distributed", 1)),
    "the first process, while it joins the parts": (0, (medvl.workflows.embedding, "write_embeddings", 1)),
}

LABEL: dict[str, tuple[int, Moment]] = {
    "in the third block": (0, (medvl.workflows.labeling, "_label_texts", 3)),
}


def write_table(folder: Path) -> Path:
    """24 images with reports, of which 8 are for validation."""
    rows = ["image,report,split,study_id"]
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        report = ("No effusion.", "Small effusion.", "Edema.")[i % 3]
        rows.append(f"{i}.png,{report},{'val' if i >= 16 else 'train'},s{i}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


class Ranks:
    """Two forked processes of a command, and what they say.

    Args:
        arguments: of the command line.
        errors: the file that both write to.
        kill: a rank and a moment.
    """

    def __init__(self, arguments: Sequence[Any], errors: Path, kill: tuple[int, Moment] | None = None) -> None:
        self.errors = errors
        errors.unlink(missing_ok=True)
        # As torchrun's, it outlives the processes.
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.pids = []
        for rank in (0, 1):
            pid = os.fork()
            if not pid:
                self._run(rank, list(map(str, arguments)), kill)
            self.pids.append(pid)

    def _run(self, rank: int, arguments: list[str], kill: tuple[int, Moment] | None) -> None:
        code: Any = 1
        try:
            out = os.open(self.errors, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(self.store.port), TORCHELASTIC_USE_AGENT_STORE="True",
            )  # fmt: skip
            if kill is not None and kill[0] == rank:
                kill_at(*kill[1])
            sys.argv = ["medvl", *arguments]
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)

    def wait(self) -> list[int]:
        """The exit codes of both. When one fails, the other gets SIGTERM, as from torchrun.

        However long it takes, the other must end: one that waits for the time-out of the processes, two hours, does not
        within the limit of a test.
        """
        codes: dict[int, int] = {}
        while len(codes) < 2:
            pid, status = os.waitpid(-1, 0)
            codes[pid] = os.waitstatus_to_exitcode(status)
            if codes[pid]:
                for other in set(self.pids) - set(codes):
                    os.kill(other, signal.SIGTERM)
        return [codes[pid] for pid in self.pids]

    def said(self) -> list[str]:
        return self.errors.read_text().splitlines()


def kill_at(owner: Any, name: str, number: int) -> None:
    """Let this process end by SIGKILL in a call of a function."""
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(function)
    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            time.sleep(0.2)  # so that the other process is on its way to wait for this one
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    of_class = isinstance(owner, type) and isinstance(owner.__dict__[name], staticmethod)
    setattr(owner, name, staticmethod(counted) if of_class else counted)


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def check(
    moments: Mapping[str, tuple[int, Moment]],
    command: Callable[[str], list[Any]],
    work: Path,
    same: Callable[[str], bool],
    resumed: Collection[str],
) -> None:
    """Kill a process of a command at each of these moments; let it go on after some of them, and compare."""
    for number, (case, kill) in enumerate(moments.items()):
        name = f"killed-{number}"
        ranks = Ranks(command(name), work / "said", kill)
        codes = ranks.wait()
        said = ranks.said()
        goes_on = case in resumed
        again = Ranks([*command(name), "--resume"], work / "said again").wait() if goes_on else None
        say(
            case=case,
            killed=codes[kill[0]],
            left=codes[1 - kill[0]],
            messages=[line for line in said if "Go on by the same command" in line],
            defects=[line for line in said if "Traceback" in line or "defect" in line],
            resumed=again,
            same=same(name) if goes_on else None,
        )


def check_train(work: Path, every: bool) -> None:
    table = write_table(work)

    def command(name: str) -> list[Any]:
        return [
            "train", "convirt", "--data", table, "--output", work / name, "--batch-size", 4, "--epochs", 2, "--device", "cpu",
            "--image-size", 32, "--set", "progress=false", "--set", "checkpoint_interval=1", "--set", "embed_dim=8",
        ]  # fmt: skip

    def same(name: str) -> bool:
        whole, killed = (load_file(work / run / "model" / "model.safetensors") for run in ("whole", name))
        left = [path for path in (work / name).rglob("*") if path.suffix == ".partial" or path.name == "run.lock"]
        return not left and all(killed[key].equal(whole[key]) for key in whole)

    assert Ranks(command("whole"), work / "said").wait() == [0, 0], (work / "said").read_text()
    check(TRAIN, command, work, same, TRAIN if every else RESUMED)


def check_embed(work: Path, every: bool) -> None:
    table = write_table(work)
    options = ["--device", "cpu", "--image-size", 32, "--set", "progress=false", "--set", "embed_dim=8"]
    trained = Ranks(
        ["train", "convirt", "--data", table, "--output", work / "run", "--batch-size", 4, "--epochs", 1, *options],
        work / "said",
    )
    assert trained.wait() == [0, 0], (work / "said").read_text()

    def command(name: str) -> list[Any]:
        return ["embed", work / "run", "--output", work / f"{name}.npz", "--part-size", 3, "--batch-size", 2]

    def same(name: str) -> bool:
        left = list(work.glob(f"{name}.npz?*"))
        return not left and (work / f"{name}.npz").read_bytes() == (work / "whole.npz").read_bytes()

    assert Ranks(command("whole"), work / "said").wait() == [0, 0], (work / "said").read_text()
    check(EMBED, command, work, same, EMBED)


def check_label(work: Path, every: bool) -> None:
    """The first process does all the work, and is killed in its third block; then packing, by which two would be in the way."""
    table = write_table(work)
    reports = work / "reports.csv"
    reports.write_text("id,report\n" + "".join(f"r{i},Small effusion. No edema {i}.\n" for i in range(200)))

    def command(name: str) -> list[Any]:
        return ["label", reports, "--output", work / f"{name}.csv"]

    def same(name: str) -> bool:
        return (work / f"{name}.csv").read_bytes() == (work / "whole.csv").read_bytes()

    whole = Ranks(command("whole"), work / "said")
    say(case="label", codes=whole.wait(), said=len(whole.said()))
    check(LABEL, command, work, same, LABEL)
    packed = Ranks(["pack", "--data", table, "--output", work / "packed", "--image-size", 32], work / "said")
    say(case="pack", codes=packed.wait(), said=sum("24 studies" in line for line in packed.said()))


def main() -> None:
    work = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed at the end of a forked process too
    try:
        {"train": check_train, "embed": check_embed, "label": check_label}[sys.argv[1]](
            work, "--resume-all" in sys.argv
        )
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
