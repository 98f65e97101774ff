"""The commands that ``kills.py`` kills and resumes: what they work on, and what must be the same in the end."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with more threads cannot be forked
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from packed_tables import LABELS, REPORTS, write_table
from safetensors.torch import load_file

import medvl.data.tables.output as table_output
from medvl.data.shard_verification import verify_packed
from medvl.workflows import (
    PackSettings,
    TrainedRun,
    embed_to_file,
    folder_lock,
    label_table,
    labeling,
    pack_studies,
    train,
)

folder_lock.BEAT_SECONDS = 3600.0  # else the number of file operations would depend on how long a run takes

TINY = {
    "epochs": 3, "batch_size": 16, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False, "device": "cpu",
    "data": "synthetic", "synthetic_length": 60, "keep": "best", "resume": True,
}  # fmt: skip


class Command:
    """A command that writes to a folder and can be resumed.

    Args:
        work: a folder for what it reads.
    """

    variants: tuple[Any, ...] = (0, 2)
    """What runs take turns in: numbers of worker processes. The output is the same for all, where ``same_for_all``."""

    same_for_all = True

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)

    def run(self, folder: Path, variant: Any) -> None:
        """Run, or go on with what is in the folder."""
        raise NotImplementedError

    def is_sound(self, folder: Path) -> bool:
        """Whether nothing half-written counts as whole in the folder of a run that was killed."""
        return True

    def is_same(self, folder: Path, whole: Path) -> bool:
        """Whether the folder of a run that was resumed is that of one that was not killed: byte for byte."""
        return content(folder) == content(whole)


class Train(Command):
    """Training of every recipe; the weights must be the same, bit for bit."""

    variants = ("convirt", "medclip", "mlip", "umcl")
    same_for_all = False

    def run(self, folder: Path, variant: str) -> None:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        train(variant, {**TINY, "output": str(folder), **({"preset": "small"} if variant == "mlip" else {})})

    def is_same(self, folder: Path, whole: Path) -> bool:
        first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, folder))
        left = [
            path for path in folder.rglob("*") if path.name.endswith(".partial") or path.name.startswith("run.lock")
        ]
        lines = (folder / "metrics.jsonl").read_text().count("\n")
        same = first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
        return same and not left and lines == TINY["epochs"]


class Pack(Command):
    """Packing of 40 studies into 10 shards."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.table = write_table(work / "source", 40)

    def run(self, folder: Path, variant: int) -> None:
        settings = PackSettings(image_size=64, shard_size=4)
        columns = {"label_column": LABELS}
        pack_studies(self.table, folder, settings, columns=columns, num_workers=variant, resume=True)

    def is_sound(self, folder: Path) -> bool:
        return not (folder / "index.json").is_file() or not verify_packed(folder)


class Label(Command):
    """Labeling of 600 reports, in blocks of 16 with a record after each, so that a kill hits every step."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.table = work / "reports.csv"
        with self.table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "report"), *((f"r{i}", f"{REPORTS[i % 5]} {i}") for i in range(600))])

    def run(self, folder: Path, variant: int) -> None:
        labeling.BLOCK_ROWS, table_output._SECONDS_BETWEEN_RECORDS = 16, 0.0
        label_table(self.table, "report", folder / "labels.csv.gz", num_workers=variant, resume=True)

    def is_sound(self, folder: Path) -> bool:
        return is_whole_or_absent(folder / "labels.csv.gz")


class Embed(Command):
    """Embedding of 24 studies in parts of 3, into a folder of arrays and into one file."""

    variants = ("embeddings", "embeddings.npz", "embeddings.csv")
    same_for_all = False

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.trained = work / "trained"
        if not (self.trained / "model").is_dir():
            train("convirt", {**TINY, "epochs": 1, "synthetic_length": 24, "keep": "last", "output": str(self.trained)})
        run = TrainedRun(self.trained)
        self.loaded = run, run.studies(split="all")

    def run(self, folder: Path, variant: str) -> None:
        workers = 1 if variant == "embeddings.csv" else 0
        output = folder / variant
        embed_to_file(*self.loaded, output, batch_size=2, part_size=3, num_workers=workers, resume=True)

    def is_sound(self, folder: Path) -> bool:
        return all(is_whole_or_absent(folder / name) for name in self.variants if name != "embeddings")


COMMANDS = {"train": Train, "pack": Pack, "label": Label, "embed": Embed}


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with those in folders inside it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WHOLE: dict[str, bytes] = {}
"""The bytes of files of runs that were not killed, by name."""


def is_whole_or_absent(path: Path) -> bool:
    """Whether a file is not there, or has the bytes that it has at the end."""
    return not path.exists() or path.read_bytes() == WHOLE[path.name]
