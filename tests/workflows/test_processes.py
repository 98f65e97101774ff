"""Recipes in two processes, started by torchrun as on a machine with two GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import run as run_bundle
from PIL import Image
from safetensors.numpy import load_file
from two_processes import COMPARABLE, TINY, in_two_processes

from medvl.workflows import config_files

pytestmark = pytest.mark.slow

TEXTS = {"Pneumothorax": "Large left pneumothorax.", "Edema": "Edema is seen.", "No Finding": "Clear lungs."}


@pytest.fixture
def sources(tmp_path):
    """24 images with a label, 12 with a report."""
    rows = {"labeled": ["image,study_id,finding"], "paired": ["image,study_id,report"]}
    for i in range(36):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        name = list(TEXTS)[i % 3]
        rows["labeled" if i < 24 else "paired"].append(f"{i}.png,s{i},{name if i < 24 else TEXTS[name]}")
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return [f"image-label={tmp_path / 'labeled.csv'}", f"image-text={tmp_path / 'paired.csv'}"]


# test_forked_runs.py has every recipe.
def test_two_processes_learn_what_one_learns_from_both_their_batches(sources, tmp_path):
    settings = {
        **TINY,
        **COMPARABLE,
        "sources": sources,
        "columns": {"label_column": "finding"},
        "epochs": 2,
    }  # fmt: skip
    in_two_processes("medvl", output=str(tmp_path / "two"), progress=False, batch_size=4, cached_chunk=2, **settings)
    run_bundle(
        config_file=[str(path) for path in config_files("medvl")],
        output=str(tmp_path / "one"),
        progress=False,
        batch_size=8,
        **settings,
    )
    two, one = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("two", "one"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("two", "one")
    ]
    assert [line["epoch"] for line in lines[0]] == [1, 2]
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_one_message_when_a_process_is_killed(tmp_path):
    """``kill -9`` of the second of two processes of ``torchrun -m medvl train``; ``test_killed_ranks.py`` has other moments."""
    table = ["image,report,split"]
    for i in range(24):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        table.append(f"{i}.png,{list(TEXTS.values())[i % 3]},train")
    (tmp_path / "cases.csv").write_text("\n".join(table) + "\n")
    run = tmp_path / "run"
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        "-m",
        "medvl",
        "train",
    ]
    line += ["convirt", "--data", tmp_path / "cases.csv", "--output", run, "--batch-size", 4, "--epochs", 100_000]
    line += ["--image-size", 32, "--device", "cpu", "--set", "progress=false", "--set", "checkpoint_interval=1"]
    with run.with_suffix(".errors").open("w") as errors:
        torchrun = subprocess.Popen(list(map(str, line)), stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            while not list(run.glob("checkpoints/epoch-*")) and torchrun.poll() is None:
                time.sleep(0.1)
            children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
            second = next(pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
            os.kill(int(second), signal.SIGKILL)
            assert torchrun.wait() != 0
        finally:
            if torchrun.poll() is None:
                torchrun.kill()
    said = run.with_suffix(".errors").read_text()
    assert "This looks like a defect" not in said
    assert "exitcode: -9" in " ".join(said.split()).replace("exitcode  :", "exitcode:").replace(
        "exitcode :", "exitcode:"
    )
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert said.count("Go on by the same command with --resume.") == 1, said[-3000:]
