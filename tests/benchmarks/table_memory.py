"""Peak memory and time from a large table to the first batch: reading, splits, tokenizer, records, run folder, sampler.

    python tests/benchmarks/table_memory.py                     # 1,000,000 rows, 126 MB of CSV
    python tests/benchmarks/table_memory.py --rows 100000

Each case runs in a process of its own. Memory is the process's maximum over that after the imports, time the clock's.
Images are 1,000 small files under 1,000 names of folders, so that every row has a path of its own; none is kept in memory
(``cache_bytes=0``). Every report has a number of its own, so that no two are alike.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES = ("read", "convirt", "medclip", "sources")
FILES = 1000


def write_table(folder: Path, rows: int) -> Path:
    """A table of paired studies: a patient of about three studies, a report of about a hundred characters."""
    from PIL import Image

    (folder / "pool").mkdir()
    for number in range(FILES):
        Image.new("L", (8, 8), number % 256).save(folder / "pool" / f"{number:04d}.png")
    for number in range(-(-rows // FILES)):
        os.symlink("pool", folder / f"d{number:04d}", target_is_directory=True)
    draw = random.Random(0)
    findings = [
        "edema",
        "effusion",
        "pneumothorax",
        "consolidation",
        "cardiomegaly",
        "atelectasis",
        "fracture",
        "opacity",
    ]
    sides = ["left", "right", "bilateral", "basal", "apical"]
    table = folder / "cases.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "report", "patient_id", "study_id"])
        for row in range(rows):
            one, two = draw.choices(findings, k=2)
            report = (
                f"There is {draw.choice(sides)} {one}, as in examination {draw.randrange(10**6):06d}. "
                f"No {draw.choice(sides)} {two} is seen today."
            )
            writer.writerow([f"d{row // FILES:04d}/{row % FILES:04d}.png", report, f"p{row // 3:07d}", f"s{row:08d}"])
    return table


def peak_mb() -> float:
    """The process's maximum memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(case: str, table: Path, folder: Path) -> dict[str, Any]:
    """Memory and time of one case after each of its parts."""
    import torch

    import medvl.workflows
    from medvl.data import read_manifest

    torch.set_num_threads(1)
    base, begin, parts = peak_mb(), time.monotonic(), []

    def note(part: str) -> None:
        nonlocal begin
        parts.append([part, round(peak_mb() - base), round(time.monotonic() - begin, 1)])
        begin = time.monotonic()

    if case == "read":
        manifest = read_manifest(table)
        note("read_manifest")
        manifest = manifest.assign_splits(seed=0)
        note("splits")
        manifest.summary()
        note("summary")
        return {"base": round(base), "parts": parts}
    settings: dict[str, Any] = {
        "output": str(folder / f"run-{case}"), "image_size": 32, "embed_dim": 8, "cache_bytes": 0, "progress": False,
        "device": "cpu", "network_def#image_encoder": {"backbone": "resnet10", "width": 0.125},
    }  # fmt: skip
    if case == "sources":
        settings["sources"] = [f"image-text={table}"]
    else:
        settings["data"] = str(table)
    parser = medvl.workflows.RecipeWorkflow("convirt" if case == "convirt" else "medclip", **settings).parser
    parser.get_parsed_content("manifest")
    note("manifest")
    parser.get_parsed_content("tokenizer")
    note("tokenizer")
    parser.get_parsed_content("train#trainer")
    note("network, trainer")
    parser.get_parsed_content("initialize")
    note("run folder")
    loader = parser.get_parsed_content("train#dataloader")
    next(iter(loader))
    note("first batch")
    next(iter(loader))
    note("first batch of the next epoch")
    return {"base": round(base), "parts": parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--table", type=Path, help="a table that was written before")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(arguments.measure, arguments.table, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = arguments.table or write_table(Path(folder), arguments.rows)
        print(f"{table.stat().st_size / 1e6:.0f} MB of CSV")
        for case in arguments.case or CASES:
            command = [sys.executable, __file__, "--measure", case, "--table", str(table)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                print(f"{case}: {result.stderr.strip().splitlines()[-1]}")
                continue
            found = json.loads(result.stdout.strip().splitlines()[-1])
            print(f"\n{case}: {found['base']} MB after the imports\n{'after':32} {'MB above':>9} {'seconds':>8}")
            for part, memory, seconds in found["parts"]:
                print(f"{part:32} {memory:>9} {seconds:>8}")


if __name__ == "__main__":
    main()
