"""Training from shards in two processes, as by torchrun: each study once in an epoch, in the batches that one process has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from monai.bundle import run as run_bundle
from packed_tables import LABELS, write_table
from safetensors.numpy import load_file
from two_processes import COMPARABLE, TINY, in_two_processes

from medvl.workflows import PackSettings, config_files, pack_studies

SETTINGS = {
    **TINY,
    **COMPARABLE,
    "progress": "$False",
    "epochs": 2,
    "num_workers": 1,
    "train#dataloader#drop_last": "$False",  # a ragged last batch; an expression, since the command line reads false as a text
}


def test_two_processes_learn_what_one_learns_from_both_their_batches(tmp_path):
    pack_studies(
        write_table(tmp_path / "source", 60, split=True),
        tmp_path / "packed",
        PackSettings(32, shard_size=7),
        columns={"label_column": LABELS},
    )
    settings = {**SETTINGS, "data": f"shards:{tmp_path / 'packed'}"}
    in_two_processes("convirt", **settings, batch_size=4, output=str(tmp_path / "two"))
    files = [str(path) for path in config_files("convirt")]
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
