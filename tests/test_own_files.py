"""No command writes over a file that it reads, or over a file of the user that stands where it keeps its own."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from medvl.evaluation import Embeddings, save_embeddings

MESSAGE = "must differ from the files that are read, got"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with an image, tables and embeddings, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("0.png")
    (tmp_path / "cases.csv").write_text("study_id,image,report\na,0.png,Edema.\nb,0.png,No edema.\n")
    (tmp_path / "extra.csv").write_text("study_id,age\na,40\nb,50\n")
    shutil.copy("cases.csv", "scores.json")
    shutil.copy("cases.csv", "leaks.csv")
    made = Embeddings(torch.eye(2, 3), torch.eye(2, 3), study_ids=["a", "b"])
    for name in ("queries.npz", "archive.npz"):
        save_embeddings(made, name)
    os.symlink("archive.npz", "link.npz")
    os.link("0.png", "hard.png")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "read"),
    [
        ("explain run 0.png --text Edema. --output 0.png", "0.png"),
        ("explain run 0.png --text Edema. --output hard.png", "0.png"),
        ("predict run --data cases.csv --output cases.csv", "cases.csv"),
        ("predict run --data cases.csv --join extra.csv:study_id --output extra.csv", "extra.csv"),
        ("embed run --data cases.csv --output ./cases.csv", "cases.csv"),
        ("nearest queries.npz --output queries.npz", "queries.npz"),
        ("nearest queries.npz --among archive.npz --output link.npz", "archive.npz"),
        ("label cases.csv --output cases.csv", "cases.csv"),
        ("label cases.csv --join extra.csv:study_id --output extra.csv", "extra.csv"),
        ("label cases.csv --vocabulary extra.csv --output extra.csv", "extra.csv"),
        ("audit --data leaks.csv --output .", "leaks.csv"),
        ("audit --source image-text=leaks.csv --output .", "leaks.csv"),
    ],
)
def test_a_file_that_is_read_is_not_written_over(medvl, files, command, read):
    before = (files / read).read_bytes()
    code, _, err = medvl(*command.split())
    assert code == 2
    assert MESSAGE in err
    assert (files / read).read_bytes() == before
    assert not list(files.glob("*.partial"))
    assert not (files / "audit.json").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["train", "--data", "cases.csv", "--output", ""], "--output must not be empty"),
        (["train", "--data", "cases.csv", "--output="], "--output must not be empty"),
        (["train", "--data", "", "--output", "run"], "--data must not be empty"),
        (["train", "--data", "openi:", "--output", "run"], "source must have a path after openi:, got 'openi:'"),
        (["train", "--data", "shards:", "--output", "run"], "the location must have a folder after shards:"),
        (["train", "--source", "image-text=", "--output", "run"], "source must be KIND=LOCATION"),
        (
            ["train", "--data", "cases.csv", "--output", "run", "--set", "output="],
            "output must be the path of a folder, got None",
        ),
        (["embed", "run", "--output", ""], "--output must not be empty"),
        (["embed", "", "--output", "e.npz"], "an argument must not be empty"),
        (["predict", "run", "0.png", ""], "an argument must not be empty"),
        (["label", "cases.csv", "--vocabulary", "", "--output", "l.csv"], "--vocabulary must not be empty"),
        (["nearest", "queries.npz", "--among", ""], "--among must not be empty"),
        (["audit", "--data", "cases.csv", "--image-root="], "--image-root must not be empty"),
        (["pack", "--data", "cases.csv", "--output", ""], "--output must not be empty"),
        (["embed", "run", "--output", "-"], "--output must be a file or folder, got '-'."),
        (["predict", "run", "0.png", "--output=-"], "--output must be a file or folder, got '-'."),
    ],
)
def test_an_empty_path_is_not_the_working_folder(medvl, files, command, said):
    before = sorted(files.iterdir())
    code, _, err = medvl(*command)
    assert code == 2
    assert f"Error: {said}" in err
    assert sorted(path for path in files.rglob("*") if path.name != "run") == before
