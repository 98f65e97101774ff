"""Damage files that medvl wrote itself, read them as the commands do, and list what differs without a word.

A run folder with its evaluation, an interrupted run that is resumed, and a packed folder: one file after another gets a flipped
byte, or another damage, and what the commands find must be an error, a warning, or the same as without the damage.

Run:  python tests/fuzz/silent.py --count 1000
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from damage import damage
from fuzz import fault, main

from medvl import cli
from medvl.data import read_manifest
from medvl.handlers import read_metrics
from medvl.transforms import LoadStudyImage
from medvl.transforms.packed_image import read_settings
from medvl.utils.tar_members import close_files
from medvl.workflows import TrainedRun
from medvl.workflows.evaluate import run_facts
from medvl.workflows.model_card import read_evaluation
from medvl.workflows.run_records import read_skipped
from medvl.workflows.trained_run import label_studies

SETTINGS = ["--epochs", 2, "--batch-size", 4, "--image-size", 32, "--seed", 0, "--on-error", "skip"]
SETTINGS += [part for value in ("embed_dim=4", "vocab_size=300", "progress=false") for part in ("--set", value)]
UNREAD = ("README.md", "report.html", "run.lock", ".csv")
"""What no command reads, or people edit; the figures as CSV are read when others are added to them."""


class Spoken(logging.Handler):
    """Collects what is said as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def command(*arguments: Any) -> None:
    """Run a command in this process; an error is raised as ``ValueError`` with what it says."""
    before, sys.argv = sys.argv, ["medvl", *map(str, arguments)]
    stream = io.StringIO()
    try:
        with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as stop:
        if stop.code:
            raise ValueError(stream.getvalue().strip().split("\n")[-1]) from None
    finally:
        sys.argv = before


def write_table(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rows = [["image", "report", "patient_id", "study_id", "Edema"]]
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append([f"{i}.png", ("No edema.", "Edema é, severe.", "Small effusion.")[i % 3], f"p{i}", f"s{i}", i % 2])
    rows.append(["gone.png", "Edema.", "p90", "s90", 1])
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "cases.csv"


def digest(*values: Any) -> str:
    """A hash of tensors and of anything else as text."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.contiguous().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return found.hexdigest()


def described(studies: Any) -> list[Any]:
    return [
        sorted((key, value.tolist() if hasattr(value, "tolist") else value) for key, value in study.items())
        for study in studies
    ]


def read_run(folder: Path) -> str:
    """All that evaluate, embed, predict, compare and card read of a run."""
    run = TrainedRun(folder)
    manifest = run.studies(split="test", on_error="skip")
    with torch.inference_mode():
        images = [run.model.encode_image(batch["image"]) for batch in run.loader(manifest)]
        texts = run.model.encode_text(["No edema.", "Edema."])
    facts = run_facts(run, label_studies(manifest), run.loader(manifest), 0.0)
    return digest(
        described(manifest.studies), *images, texts, run.class_prompts(run.finding_names), run.input, run.config,
        run.environment, run.cautions(manifest.studies), facts, read_metrics(folder / "metrics.jsonl"),
        [str(error) for error in read_skipped(folder)], read_evaluation(folder, folder / "model"),
    )  # fmt: skip


def read_packed(folder: Path) -> str:
    """All that a training reads of a packed folder."""
    close_files()
    read_settings.cache_clear()
    manifest = read_manifest(f"shards:{folder}")
    load = LoadStudyImage()
    images = [torch.as_tensor(load(study["image"])) for study in manifest.studies if "image" in study]
    return digest(described(manifest.studies), manifest.names, manifest.counts, manifest.summary(), *images)


def make(root: Path) -> Iterator[tuple[str, Path, Callable[[Path], str]]]:
    """Folders that medvl wrote, by name, with the function that reads each."""
    table = write_table(root / "table")
    train = ["train", "convirt", "--data", table, *SETTINGS, "--label-column", "Edema"]
    command(*train, "--output", root / "run")
    command("evaluate", root / "run", "--split", "all", "--protocol", "zero-shot", "--on-error", "skip")
    shutil.copytree(root / "run", root / "begun")
    for path in (root / "begun" / "model", root / "begun" / "checkpoints" / "epoch-0002.pt"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    command(
        "pack",
        "--data",
        table,
        "--output",
        root / "packed",
        "--image-size",
        24,
        "--shard-size",
        5,
        "--on-error",
        "skip",
    )

    def resume(folder: Path) -> str:
        again = root / "again"
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(folder, again)
        command(*train, "--output", again, "--resume")
        weights = (again / "model" / "model.safetensors").read_bytes()
        lines = [{**line, "seconds": 0} for line in read_metrics(again / "metrics.jsonl")]
        return digest(weights, lines, [str(error) for error in read_skipped(again)])

    yield "run", root / "run", read_run
    yield "begun", root / "begun", resume
    yield "packed", root / "packed", read_packed


def one_byte(data: bytes, seed: str) -> tuple[str, bytes]:
    """One bit of one byte is flipped, or the case of a letter."""
    draw = random.Random(seed)
    place = draw.randrange(len(data)) if data else 0
    mask = draw.choice((1, 2, 4, 8, 16, 32, 64, 128))
    return f"byte {place} ^ {mask}", data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :] if data else b"\0"


def attempt(path: Path, read: Callable[[Path], str], folder: Path, data: bytes, sound: str) -> tuple[str, str]:
    """How reading a folder with one damaged file ends, and what is wrong with that."""
    whole = path.read_bytes()
    path.write_bytes(data)
    spoken = Spoken()
    logging.getLogger("medvl").addHandler(spoken)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(folder)
    except Exception as error:
        wrong = fault(error, path) if str(folder) not in str(error) else fault(error, folder)
        return "refused", f"{wrong}: {type(error).__name__} {str(error)[:300]!r}" if wrong else ""
    finally:
        logging.getLogger("medvl").removeHandler(spoken)
        path.write_bytes(whole)
    if found == sound:
        return "same", ""
    return "said" if spoken.said else "differs", "" if spoken.said else "differs without a word"


def run(count: int, seed: int = 0, only: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Name of the file, damage, how it ended and what is wrong with that, of ``count`` damaged files."""
    with tempfile.TemporaryDirectory() as root:
        cases = []
        for name, folder, read in make(Path(root)):
            sound = read(folder)
            paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(UNREAD))
            cases.append([(f"{name}/{path.relative_to(folder)}", path, read, folder, sound) for path in paths])
        every = [case for group in cases for case in group if only in case[0]]
        for number in range(count):
            name, path, read, folder, sound = every[number % len(every)]
            key = f"{seed}-{name}-{number}"
            how, data = (one_byte if random.Random(key).random() < 0.7 else damage)(path.read_bytes(), key)
            yield (name, how, *attempt(path, read, folder, data, sound))


if __name__ == "__main__":
    main(run, __doc__, 1000)
