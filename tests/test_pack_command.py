"""``medvl pack``, and training and evaluation of what it writes, as a user meets them."""

from __future__ import annotations

import json

import pytest
from packed_tables import LABELS, web_server, write_table
from safetensors.numpy import load_file

SMALL = ["--image-size", 32, "--batch-size", 4, "--epochs", 1, "--device", "cpu", "--set", "embed_dim=16"]
SMALL += ["--set", "vocab_size=120", "--set", "progress=false"]
COLUMNS = [option for name in LABELS for option in ("--label-column", name)]


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "source", 40)


def same_weights(one, other):
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("recipe", ["convirt", "medclip"])
def test_a_run_on_shards_is_that_on_the_table(medvl, table, tmp_path, recipe):
    packed = tmp_path / "packed"
    options = ["--image-size", 32, "--dtype", "float32", "--shard-size", 10, "--workers", 1]
    code, out, err = medvl("pack", "--data", table, "--output", packed, *options, *COLUMNS)
    assert code == 0, err
    assert out.startswith("40 studies, 35 with an image, in 4 tar files of ")
    assert out.endswith(f"Next: medvl train medvl --data shards:{packed}\n")
    labels = COLUMNS if recipe == "medclip" else []
    runs = {}
    for name, data in (("table", [table, *labels]), ("shards", [f"shards:{packed}"])):
        runs[name] = tmp_path / name
        code, out, err = medvl("train", recipe, "--data", *data, "--output", runs[name], *SMALL)
        assert code == 0, err
    assert same_weights(runs["table"], runs["shards"])
    told = json.loads((runs["shards"] / "environment.json").read_text())
    assert told["data"] == "packed"
    assert len(told["tables_sha256"]) == 1
    if recipe == "medclip":
        return
    code, out, err = medvl(
        "evaluate", runs["shards"], "--data", table, "--protocol", "retrieval", "--output", tmp_path / "a"
    )
    assert code == 0, err  # the test split of the training is found in the table, which has no splits
    code, out, err = medvl("evaluate", runs["shards"], "--protocol", "retrieval", "--output", tmp_path / "b")
    assert code == 0, err
    one, other = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in "ab")
    assert one["retrieval"] == other["retrieval"]


def test_other_sizes_are_said(medvl, table, tmp_path):
    packed = tmp_path / "packed"
    assert medvl("pack", "--data", table, "--output", packed, "--image-size", 24, "--vocabulary", "none")[0] == 0
    assert not (packed / "text_labels.npz").exists()
    code, _, err = medvl("train", "convirt", "--data", f"shards:{packed}", "--output", tmp_path / "run", *SMALL)
    assert code == 0, err
    assert "The images were packed at 24 pixels and are enlarged to 32: pack them again." in err


def test_training_from_a_web_server(medvl, table, tmp_path):
    packed = tmp_path / "packed"
    assert medvl("pack", "--data", table, "--output", packed, "--image-size", 32, "--dtype", "uint16", *COLUMNS)[0] == 0
    with web_server(tmp_path) as (url, _):
        code, _, err = medvl("train", "convirt", "--data", f"shards:{url}/packed", "--output", tmp_path / "web", *SMALL)
        assert code == 0, err
    code, _, err = medvl("train", "convirt", "--data", f"shards:{packed}", "--output", tmp_path / "local", *SMALL)
    assert code == 0, err
    assert same_weights(tmp_path / "web", tmp_path / "local")


def test_verify(medvl, table, tmp_path):
    packed = tmp_path / "packed"
    assert medvl("pack", "--data", table, "--output", packed, "--shard-size", 30, *COLUMNS)[0] == 0
    assert medvl("pack", "--verify", packed)[:2] == (0, f"{packed} is whole: 40 studies in 2 tar files.\n")
    shard = packed / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    (packed / "studies.jsonl").unlink()
    code, out, err = medvl("pack", "--verify", packed)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{packed}/studies.jsonl is missing.",
        f"{shard} is damaged.",
        f"Error: {packed} must be as it was written, got a folder of which 2 files are not.",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--data and --output are needed: a table of studies and the folder to write; or --verify FOLDER."),
        (["--data", "missing.csv", "--output", "packed"], "missing.csv"),
        (
            ["--data", "shards:nowhere", "--output", "packed"],
            "nowhere holds no index.json: it is no folder that medvl pack",
        ),
        (["--data", "cases.csv", "--output", "packed", "--dtype", "int"], "dtype must be one of 'uint8', 'uint16', "),
        (["--verify", "nowhere"], "nowhere holds no index.json: it is no folder that medvl pack has finished."),
        (["--verify", "shards:http://host/x"], "http://host/x is on a web server; copy the folder to verify it."),
    ],
)
def test_errors_are_sentences(medvl, table, tmp_path, monkeypatch, options, expected):
    monkeypatch.chdir(table.parent)
    code, _, err = medvl("pack", *options)
    assert code == 2
    assert expected in err
    assert "defect" not in err
