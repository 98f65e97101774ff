"""``medvl nearest``: a table of the nearest reports of images, from files of embeddings."""

from __future__ import annotations

import csv

import pytest
import torch

from medvl.evaluation import Embeddings
from medvl.evaluation.embedding_files import embedding_arrays, write_embeddings
from medvl.evaluation.stored_embeddings import load_embeddings
from medvl.workflows import write_neighbors


@pytest.fixture
def files(tmp_path):
    """Five archived studies, of which the second has no report, and two new ones."""
    text = torch.eye(6)[:5].clone()
    text[1] = torch.nan
    archive = Embeddings(torch.eye(6)[[5, 1, 2, 3, 4]], text, study_ids=["=a", "b", "c", "d", "e"])
    new = Embeddings(torch.tensor([[0.0, 0, 3, 4, 0, 0], [1.0, 1, 0, 0, 0, 0]]), torch.eye(6)[:2], study_ids=["x", "y"])
    return new.save(tmp_path / "new.npz"), archive.save(tmp_path / "archive")


def rows(path):
    with path.open(newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def test_the_nearest_reports_of_images(medvl, files, tmp_path):
    new, archive = files
    output = tmp_path / "out" / "nearest.csv"
    code, out, err = medvl("nearest", new, "--among", archive, "--count", 2, "--output", output)
    assert code == 0, err
    assert out == f"2 images, each with its 2 nearest of 4 reports, in {output}\n"
    assert rows(output) == [
        ("x", "1", "d", "0.800000"), ("x", "2", "c", "0.600000"),
        ("y", "1", "'=a", "0.707107"), ("y", "2", "c", "0.000000"),
    ]  # fmt: skip
    write_neighbors(new, archive, tmp_path / "torch.csv", k=2, backend="torch")
    assert (tmp_path / "torch.csv").read_bytes() == output.read_bytes()


def test_other_directions_and_the_file_itself(medvl, files, tmp_path):
    _, archive = files
    code, out, err = medvl(
        "nearest", archive, "--query", "report", "--candidate", "image", "--output", tmp_path / "n.csv"
    )
    assert code == 0, err
    assert out.startswith("4 reports, each with its 5 nearest of 5 images, in ")
    firsts = {study: near for study, rank, near, _ in rows(tmp_path / "n.csv") if rank == "1"}
    assert firsts == {"'=a": "'=a", "c": "c", "d": "d", "e": "e"}  # all of "=a" are at 0, and the first of them is it


@pytest.mark.parametrize("name", ["e", "e.npz", "e.parquet"])
def test_embeddings_of_two_models_are_not_compared(medvl, files, tmp_path, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    arrays = embedding_arrays(Embeddings(torch.eye(6), torch.eye(6)))
    paths = []
    for folder, model in (("first", "a" * 64), ("copy", "a" * 64), ("second", "b" * 64)):
        paths.append(write_embeddings(tmp_path / folder / name, (), lambda key: [arrays[key]], model))
        assert load_embeddings(paths[-1])["model"].tolist() == [model]
    output = ("--output", tmp_path / "n.csv")
    assert medvl("nearest", paths[0], "--among", paths[1], *output)[0] == 0
    assert medvl("nearest", paths[0], "--among", files[0], *output)[0] == 0  # which do not name their model
    code, _, err = medvl("nearest", paths[0], "--among", paths[2], *output)
    assert code == 2
    message = (
        f"{paths[0]} and {paths[2]} must be embeddings of one model, got those of two (aaaaaaaaaaaa and bbbbbbbbbbbb)."
    )
    assert message in " ".join(err.split())


def test_errors(medvl, files, tmp_path):
    new, archive = files
    Embeddings(torch.eye(6)[:2], torch.full((2, 6), torch.nan)).save(tmp_path / "images.npz")
    Embeddings(torch.eye(3), torch.eye(3)).save(tmp_path / "narrow.npz")
    for arguments, message in {
        ("--among", "nowhere"): "nowhere does not exist.",
        ("--among", tmp_path / "images.npz"): f"{tmp_path / 'images.npz'} must have studies with a report, got none.",
        ("--query", "text"): "--query must be image or report, got 'text'.",
        ("--backend", "annoy"): "--backend must be auto or faiss or torch, got 'annoy'.",
        (
            "--among",
            tmp_path / "narrow.npz",
        ): "query_embeds and candidate_embeds must have the same width D, got 6 and 3.",
        ("--output", archive): f"{archive} cannot be written: it is a folder.",
    }.items():
        code, _, err = medvl("nearest", new, *arguments)
        assert (code, err) == (2, f"Error: {message}\n")
