"""Training from shards in two processes, as by torchrun: each study once in an epoch, in the batches that one process has."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from monai.bundle import run as run_bundle
from packed_tables import LABELS, write_table
from safetensors.numpy import load_file

from medvl.workflows import PackSettings, config_files, pack_studies

SETTINGS = {
    "image_size": 32,
    "embed_dim": 8,
    "vocab_size": 200,
    "max_length": 24,
    "device": "cpu",
    "progress": "$False",
    "epochs": 2,
    "num_workers": 1,
    "train#dataloader#drop_last": "$False",  # a ragged last batch; an expression, since the command line reads false as a text
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
    # Batch statistics are each process's own, and Adam divides by gradients that are hardly more than rounding.
    "network_def#image_encoder": {
        "_target_": "medvl.networks.ImageEncoder", "backbone": "vit", "image_size": 32, "patch_size": 8,
        "hidden_size": 16, "num_layers": 1,
    },
    "optimizer#_target_": "torch.optim.SGD",
    "learning_rate": 0.01,
}  # fmt: skip


def test_two_processes_learn_what_one_learns_from_both_their_batches(tmp_path):
    pack_studies(
        write_table(tmp_path / "source", 60, split=True),
        tmp_path / "packed",
        PackSettings(32, shard_size=7),
        columns={"label_column": LABELS},
    )
    settings = {**SETTINGS, "data": f"shards:{tmp_path / 'packed'}"}
    files = [str(path) for path in config_files("convirt")]
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    line += ["-m", "monai.bundle", "run", "--config_file", json.dumps(files)]
    for key, value in {**settings, "batch_size": 4, "output": str(tmp_path / "two")}.items():
        line += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run_bundle(config_file=files, batch_size=8, output=str(tmp_path / "one"), **settings)
    two, one = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("two", "one"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("two", "one")
    ]
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
