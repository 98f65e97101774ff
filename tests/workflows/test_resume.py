"""What a resumed run does with damage, other machines and other data: the same weights, or a sentence."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from medvl.utils.checksums import write_listed
from medvl.utils.errors import DiskFullError
from medvl.workflows import RunFolder, TrainedRun, train

TEXTS = ("The heart is enlarged.", "Left pleural effusion.", "Clear lungs.", "Right pneumothorax.")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = ["image,report,split"]
    for i in range(20):
        Image.fromarray(generator.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{i}.bmp")
        rows.append(f"{i}.bmp,{TEXTS[i % 4]},{'val' if i > 15 else 'train'}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def tiny(table, output, **more):
    small = {"epochs": 3, "batch_size": 8, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False}
    return {"data": str(table), "output": str(output), **small, "device": "cpu", "keep": "best", **more}


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    return train("convirt", tiny(table, tmp_path_factory.mktemp("runs") / "whole"))


@pytest.fixture
def run(whole, tmp_path, table, caplog):
    """A copy of a complete run, and what resumes it."""
    caplog.set_level(logging.INFO)
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def resume(run, table, **more):
    return train("convirt", tiny(table, run, resume=True, **more))


def refusal(run, table, **more):
    """What the error of a refused run says."""
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        resume(run, table, **more)
    error = caught.value
    while error.__cause__ is not None and not isinstance(error, DiskFullError):
        error = error.__cause__
    return error


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def same(one, other):
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def flip(path, position=-500):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def edit(path, **changes):
    """Change a record as if the run had written it so."""
    write_listed(path, json.dumps({**yaml.safe_load(path.read_text()), **changes}))  # JSON is YAML


def test_a_complete_run_is_not_trained_again_even_without_checkpoints(run, table, caplog):
    shutil.rmtree(run / "checkpoints")
    before = {path: path.read_bytes() for path in (*run.glob("model/*"), run / "metrics.jsonl") if path.is_file()}
    resume(run, table)
    assert f"The run at {run} is complete, and nothing is left to train." in caplog.messages
    assert {path: path.read_bytes() for path in before} == before
    assert not (run / "checkpoints").exists()
    assert not (run / "run.lock").exists()


def test_a_flipped_byte_of_the_model_is_noticed_and_mended(run, whole, table, caplog):
    flip(run / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model/model\.safetensors is damaged: its content is not what was saved\."):
        TrainedRun(run)
    resume(run, table)
    assert f"The run at {run} goes on after epoch 3 of 3." in caplog.messages
    assert same(run, whole)


@pytest.mark.parametrize("name", ["epoch-0003.pt", "best-000*.pt"])
def test_a_damaged_checkpoint_falls_back_and_ends_with_the_same_weights(run, whole, table, caplog, name):
    shutil.rmtree(run / "model")
    for path in run.glob(f"checkpoints/{name}"):
        flip(path)
    resume(run, table)
    start = "goes on after epoch 2 of 3." if name.startswith("epoch") else "starts with the first of 3 epochs."
    assert f"The run at {run} {start}" in caplog.messages
    assert any(message.startswith("The run cannot be resumed after epoch 3 (") for message in caplog.messages)
    assert same(run, whole)
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_another_number_of_processes_needs_the_same_step(run, table):
    edit(run / "environment.json", processes=2)
    assert str(refusal(run, table)) == (
        f"The run at {run} began in 2 processes with batch_size=8, 16 in a step, and cannot go on in 1 with batch_size=8; "
        "give it batch_size=16, resume it in 2 processes, or start a new run."
    )
    edit(run / "config.yaml", gather=False)
    assert str(refusal(run, table, batch_size=16, gather=False)) == (
        f"The run at {run} began in 2 processes with gather=false and cannot go on in 1: each contrasts its own batch only; "
        "resume it in 2 processes, or start a new run."
    )


def test_a_run_of_one_process_in_several(run, table, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("medvl.workflows.run_folder.is_rank_zero", lambda: True)
    folder = RunFolder(run, resume=True, config={**yaml.safe_load((run / "config.yaml").read_text()), "batch_size": 4})
    with pytest.raises(
        ValueError, match=r"8 in a step, and cannot go on in 3 with batch_size=4; resume it in 1 process,"
    ):
        folder.acquire()


def test_a_changed_pixel_in_a_file_of_the_same_size_is_refused(run, table):
    image = table.parent / "3.bmp"
    flip(image)
    try:
        assert "cases.csv has changed since the run at " in str(refusal(run, table))
    finally:
        flip(image)


def test_threads_are_those_of_the_beginning_and_differences_are_said(run, whole, table, caplog):
    shutil.rmtree(run / "model")
    (run / "checkpoints" / "epoch-0003.pt").unlink()
    versions = json.loads((run / "environment.json").read_text())["versions"]
    edit(
        run / "environment.json", threads=torch.get_num_threads() + 2, versions={**versions, "numpy": "0.1"}, cpu="old"
    )
    resume(run, table)
    assert f"It trains with {torch.get_num_threads() + 2} threads, as it began, so that the weights are the same." in (
        caplog.messages
    )
    said = next(message for message in caplog.messages if message.startswith("Since the run began, "))
    assert f"numpy is {versions['numpy']} and was 0.1, cpu is " in said
    record = json.loads((run / "environment.json").read_text())
    assert record["versions"]["numpy"] == "0.1"
    assert record["resumed"][0]["numpy"] == ["0.1", versions["numpy"]]
    assert same(run, whole), "on one core, and so small that threads do not share a sum"


def test_a_full_disk_while_the_model_is_saved(run, whole, table, monkeypatch):
    def full(model, path):
        open(path, "w").close()
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    shutil.rmtree(run / "model")
    with monkeypatch.context() as patch:
        patch.setattr("medvl.networks.nets.pretrained.save_model", full)
        error = refusal(run, table)
    assert isinstance(error, DiskFullError)
    assert error.filename == str(run / "model.partial" / "model.safetensors")
    assert error.strerror.startswith("No space left on the disk mounted at /")
    resume(run, table)
    assert same(run, whole)
    assert not (run / "model.partial").exists()


def test_a_demo_of_another_seed_is_refused_and_nothing_is_drawn(tmp_path, medvl):
    (tmp_path / "config.yaml").write_text("data: synthetic\nseed: 0\n")
    code, _, err = medvl("demo", "--output", tmp_path, "--seed", 1)
    assert code == 2
    assert "seed is 1 but was 0" in err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("name", ["nope", "base", "demo"])
def test_a_demo_is_of_a_recipe_and_not_of_a_layer(tmp_path, medvl, name):
    code, _, err = medvl("demo", "--output", tmp_path, "--recipe", name)
    assert code == 2
    assert "recipe must be one of convirt, medclip, medvl, mlip, umcl" in err
    assert not list(tmp_path.iterdir())
