"""Embedding in parts: the same bytes by any number of processes, of interruptions and of parts that were there."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from fork_server import run_in_processes
from packed_tables import LABELS, write_table
from two_processes import TINY

from medvl.evaluation import load_embeddings
from medvl.utils.errors import StudyError
from medvl.workflows import FolderInUseError, TrainedRun, embed, embed_to_file, train

COLUMNS = {"label_column": LABELS}
SIZES = {"batch_size": 3, "part_size": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table of 21 studies with an image, and a run trained on it."""
    folder = tmp_path_factory.mktemp("embed")
    table = write_table(folder / "source", split=True)
    settings = {**TINY, "epochs": 1, "batch_size": 4, "progress": False, "data": str(table), "columns": COLUMNS}
    return table, TrainedRun(train("convirt", {**settings, "output": str(folder / "run")}))


def studies(trained, on_error="raise"):
    return trained[1].studies(split="all", on_error=on_error)


def content(path):
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture
def copy(trained, tmp_path):
    """Another table of the same studies, with images of its own."""
    write_table(tmp_path / "source", split=True)
    return tmp_path / "source" / "cases.csv"


def stop_after(number):
    """Progress that interrupts a run after so many studies."""
    seen = 0

    def count(more):
        nonlocal seen
        seen += more
        if seen >= number:
            raise KeyboardInterrupt

    return count


def test_parts_hold_what_the_whole_holds(trained, tmp_path):
    manifest = studies(trained)
    summary = embed_to_file(trained[1], manifest, tmp_path / "e", **SIZES)
    assert (summary.studies, summary.parts, summary.kept, summary.skipped) == (21, 5, 0, [])
    arrays = load_embeddings(tmp_path / "e")
    whole = embed(trained[1].model, trained[1].loader(manifest))
    np.testing.assert_allclose(arrays["image_embeds"], whole.image.numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["text_embeds"], whole.text.numpy(), atol=1e-6)
    assert np.isnan(arrays["text_embeds"]).any()
    assert arrays["study_id"].tolist() == whole.study_ids
    assert arrays["patient_id"].tolist() == whole.patient_ids
    np.testing.assert_array_equal(arrays["label"], whole.labels.numpy())
    assert arrays["findings"].tolist() == LABELS
    with trained[0].open(newline="") as file:
        splits = {row["study_id"]: row["split"] for row in csv.DictReader(file)}
    assert arrays["split"].tolist() == [splits[study_id] for study_id in whole.study_ids]
    assert os.listdir(tmp_path) == ["e"]


@pytest.mark.parametrize("name", ["e", "e.npz", "e.csv", "e.parquet"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(trained, tmp_path, name):
    if name == "e.parquet":
        pytest.importorskip("pyarrow")
    manifest = studies(trained)
    embed_to_file(trained[1], manifest, tmp_path / "whole" / name, **SIZES)
    with pytest.raises(KeyboardInterrupt):
        embed_to_file(trained[1], manifest, tmp_path / name, progress=stop_after(12), **SIZES)
    assert not (tmp_path / name).exists()
    parts = sorted(os.listdir(tmp_path / f"{name}.parts"))
    assert parts == ["part-000000.npz", "part-000001.npz"]
    seen = []
    summary = embed_to_file(trained[1], manifest, tmp_path / name, resume=True, progress=seen.append, **SIZES)
    assert (summary.kept, summary.parts, sum(seen)) == (2, 5, 21)
    assert content(tmp_path / name) == content(tmp_path / "whole" / name)
    assert sorted(os.listdir(tmp_path)) == [name, "whole"]


@pytest.mark.parametrize("change", ["image", "report", "batch_size", "damage", "nothing"])
def test_parts_of_other_studies_or_settings_are_embedded_again(trained, copy, tmp_path, change):
    run, sizes = trained[1], dict(SIZES)
    with pytest.raises(KeyboardInterrupt):
        embed_to_file(run, run.studies(copy, "all"), tmp_path / "e", progress=stop_after(12), **sizes)
    kept = 1
    if change == "image":
        (copy.parent / "images" / "0.png").write_bytes((copy.parent / "images" / "1.png").read_bytes())
    elif change == "report":
        copy.write_text(copy.read_text().replace("Small left effusion", "Large left effusion", 1))
    elif change == "batch_size":
        sizes["batch_size"], kept = 4, 0
    elif change == "damage":
        part = tmp_path / "e.parts" / "part-000000.npz"
        data = bytearray(part.read_bytes())
        data[data.index(b"image_embeds") + 300] ^= 1
        part.write_bytes(data)
    else:
        kept = 2
    assert embed_to_file(run, run.studies(copy, "all"), tmp_path / "e", resume=True, **sizes).kept == kept
    embed_to_file(run, run.studies(copy, "all"), tmp_path / "whole", **sizes)
    assert content(tmp_path / "e") == content(tmp_path / "whole")


def test_a_run_that_does_not_resume_begins_anew(trained, tmp_path):
    manifest = studies(trained)
    with pytest.raises(KeyboardInterrupt):
        embed_to_file(trained[1], manifest, tmp_path / "e", progress=stop_after(12), **SIZES)
    assert embed_to_file(trained[1], manifest, tmp_path / "e", **SIZES).kept == 0


def test_studies_that_cannot_be_read(trained, copy, tmp_path):
    run = trained[1]
    for number in range(6):  # the first part and one more
        (copy.parent / "images" / f"{number}.png").write_bytes(b"no image")
    manifest = run.studies(copy, "all")
    with pytest.raises(StudyError, match=r"^study 's0', image: "):
        embed_to_file(run, manifest, tmp_path / "e", **SIZES)
    assert not (tmp_path / "e.parts").exists(), "no part was whole"
    summary = embed_to_file(run, manifest, tmp_path / "e", on_error="skip", **SIZES)
    assert [error.study_id for error in summary.skipped] == [f"s{number}" for number in range(6)]
    assert summary.studies == len(load_embeddings(tmp_path / "e")["study_id"]) == 15
    for image in (copy.parent / "images").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"^No study is left: 2\d skipped for an error, the first: study 's0', image: "
    ):
        embed_to_file(run, manifest, tmp_path / "e", on_error="skip", **SIZES)
    assert load_embeddings(tmp_path / "e")["study_id"].tolist()[0] == "s7", "the old one stays"


def test_two_runs_do_not_write_one_file(trained, tmp_path):
    manifest = studies(trained)
    holder = subprocess.Popen(
        [sys.executable, "-c", f"from medvl.workflows import FolderLock\n"
         f"FolderLock({str(tmp_path / 'e.npz.parts')!r}).acquire()\nprint('held', flush=True)\ninput()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUseError, match=r"e\.npz\.parts is in use by process "):
            embed_to_file(trained[1], manifest, tmp_path / "e.npz", **SIZES)
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("part_size", 0), ("num_workers", -1)])
def test_numbers_are_checked(trained, tmp_path, option, value):
    with pytest.raises(ValueError, match=rf"^{option} must be .*, got {value}\.$"):
        embed_to_file(trained[1], studies(trained), tmp_path / "e", **{option: value})


def test_the_command_in_two_processes_writes_the_same_bytes(trained, medvl, tmp_path):
    options = ["embed", trained[1].path, "--batch-size", 3, "--part-size", 5, "--device", "cpu", "--output"]
    code, out, err = medvl(*options, tmp_path / "one", "--resume")
    assert code == 0, err
    assert out == f"21 studies in {tmp_path / 'one'}\n"
    line = [sys.executable, "-m", "medvl", *map(str, [*options, tmp_path / "two", "--workers", 1])]
    done = run_in_processes(2, line)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"21 studies in {tmp_path / 'two'}\n"
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize("name", ["notes.txt", "part-mine.npz", "folder"])
def test_a_users_folder_in_place_of_the_parts_is_kept(trained, tmp_path, name):
    parts = tmp_path / "e.npz.parts"
    parts.mkdir()
    (parts / name).mkdir() if name == "folder" else (parts / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"e.npz.parts must be a new folder.* got one with {name}"):
        embed_to_file(trained[1], studies(trained), tmp_path / "e.npz")
    assert [path.name for path in parts.iterdir()] == [name]


def test_a_link_in_place_of_the_parts_is_not_followed(trained, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "part-000007.npz").write_text("mine")
    (tmp_path / "e.npz.parts").symlink_to("own")
    with pytest.raises(ValueError, match="got a link"):
        embed_to_file(trained[1], studies(trained), tmp_path / "e.npz")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["part-000007.npz"]


def test_what_is_put_beside_the_parts_meanwhile_is_kept(trained, tmp_path):
    parts = tmp_path / "e.npz.parts"
    embed_to_file(
        trained[1], studies(trained), tmp_path / "e.npz", progress=lambda _: (parts / "notes.txt").write_text("x")
    )
    assert [path.name for path in parts.iterdir()] == ["notes.txt"]
