"""A run never writes over what it did not write."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from medvl.data import Manifest
from medvl.data.manifest import CONTENT_KEYS
from medvl.workflows import RunFolder, run_folder, train

TINY = {"epochs": 1, "batch_size": 4, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False}


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "model/weights.bin", "model", "model.partial/x", "checkpoints/epoch-0001.pt", "checkpoints/best-0003.pt",
        "checkpoints/notes.txt", "data/cases.csv", "data/images/p17.png", "data/notes.txt", "metrics.jsonl", "skipped.jsonl",
        "environment.json", "splits.json", "splits.key", "tensorboard/events.1",
    ],
)  # fmt: skip
def test_a_users_files_are_refused_and_kept(tmp_path, name, resume):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("the user's own\n")
    before = content(tmp_path)
    said = rf" holds {name.split('/')[0]} and no run, and a run would write over it; choose another folder\."
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        train(
            "convirt", {**TINY, "data": "synthetic", "synthetic_length": 20, "output": str(tmp_path), "resume": resume}
        )
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ValueError)
    assert str(error) == f"{tmp_path}{said}".replace("\\", "")
    assert content(tmp_path) == before


def test_other_files_in_the_folder_are_no_obstacle(tmp_path):
    for name in ("notes.txt", "data/cases.csv", "report.pdf", "models/a.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the user's own\n")
    RunFolder(tmp_path, config={"data": "cases.csv"}).acquire()
    RunFolder(tmp_path / "new", config={"data": "synthetic"}).acquire()


@pytest.mark.parametrize(("cores", "workers", "expected"), [(6, 0, 6), (6, 2, 4), (2, 8, 1)])
def test_each_loading_process_has_a_core_of_its_own(tmp_path, monkeypatch, cores, workers, expected):
    given = []
    monkeypatch.setattr(run_folder, "torch_threads", lambda number: given.append(number) or nullcontext())
    monkeypatch.setattr(run_folder.torch, "get_num_threads", lambda: cores)
    state = SimpleNamespace(epoch=0, max_epochs=1, device="cpu")
    trainer = SimpleNamespace(state=state, data_loader=SimpleNamespace(num_workers=workers), run=lambda: None)
    folder = RunFolder(tmp_path, config={"data": "cases.csv", "seed": 0})
    folder.run_training(trainer)
    monkeypatch.setattr(run_folder, "describe_environment", lambda *arguments: {"threads": arguments[-1]})
    folder.acquire()
    folder._write_records(
        Manifest("cases.csv", [], (), {"rows": 0, "skipped": 0, **dict.fromkeys(CONTENT_KEYS, 0)}), "cpu", workers
    )
    folder.run_training(trainer)
    assert given == [expected, expected]


def test_a_run_that_was_killed_while_it_drew_goes_on(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "syn0-s000000.png").write_bytes(b"half")
    folder = RunFolder(tmp_path, resume=True, config={"data": "synthetic"})
    folder.acquire()
    (tmp_path / "data" / "cases.csv").write_text("image,report\n")
    folder._check_free()  # once more when the records are written
